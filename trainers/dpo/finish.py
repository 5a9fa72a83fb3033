"""Leave the results of a finished run in its folder."""

import hashlib
from dataclasses import dataclass

from schemas.run_layout import SPEC
from schemas.run_record import StoredFile
from schemas.run_spec import RunSpec
from trainers.checkpoints import stored_file
from trainers.dpo.guarding import GuardVerdict
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import HistoryEntry, Progress, adapter_bytes, adapter_files
from trainers.model_card import Delivered, Lineage, model_card, passport
from trainers.models.lora import ADAPTER_WEIGHTS, Policy
from trainers.results import Results, write_adapter, write_metrics_csv
from trainers.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Choice:
    """The adapter that the job delivers."""

    entry: HistoryEntry
    weights: bytes
    why: str


def choose_adapter(progress: Progress, policy: Policy, verdict: GuardVerdict | None) -> Choice:
    """The last step's, or the best one's when a guard stopped the run."""
    if verdict is None:
        return Choice(progress.history[-1], adapter_bytes(policy), "the last step")
    assert progress.best_adapter is not None, "guards that stop a run hold the best adapter"
    why = f"a guard stopped the run after step {progress.step}; {verdict.why_best}"
    return Choice(progress.history[verdict.best_step - 1], progress.best_adapter, why)


def write_results(
    folder: RunFolder,
    spec: RunSpec,
    prepared: Prepared,
    progress: Progress,
    chosen: Choice,
    *,
    base_weights: tuple[StoredFile, ...],
) -> Results:
    """Write adapter, archive and metrics; the same again when a killed run comes back to it."""
    csv = write_metrics_csv(folder, [(entry.step, entry.evaluation) for entry in progress.history])
    policy = prepared.objective.policy
    files = prepared.tokenizer_files | adapter_files(policy, chosen.weights, base_model=spec.model.id)
    weights = stored_file(ADAPTER_WEIGHTS, chosen.weights)
    lineage = Lineage(
        hashlib.sha256(folder.read(SPEC)).hexdigest(),
        base_weights,
        weights,
        max_length=prepared.max_length,
        gpu_kernels=prepared.gpu_kernels,
    )
    delivered, last = Delivered(chosen.entry.step, chosen.entry.evaluation, chosen.why), progress.history[-1].step
    trained = spec.model_copy(update={"lora": prepared.lora})
    card = model_card(trained, delivered, last, max_length=prepared.max_length)
    made_of = passport(trained, lineage, delivered, last)
    files |= {"README.md": card.encode(), "passport.json": f"{made_of.model_dump_json(indent=2)}\n".encode()}
    return Results(write_adapter(folder, files, weights=weights), csv)
