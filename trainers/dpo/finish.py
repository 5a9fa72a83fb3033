"""Leave the results of a finished run in its folder."""

import hashlib

from schemas.run_layout import SPEC
from schemas.run_record import AdapterResult, StoredFile
from schemas.run_spec import RunSpec
from trainers.checkpoints import stored_file
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import Progress, adapter_files
from trainers.model_card import Lineage, model_card, passport
from trainers.models.lora import ADAPTER_WEIGHTS
from trainers.results import tokenizer_files, write_adapter, write_metrics_csv
from trainers.run_folder import RunFolder


def write_results(
    folder: RunFolder, spec: RunSpec, prepared: Prepared, progress: Progress, *, base_weights: tuple[StoredFile, ...]
) -> tuple[AdapterResult, StoredFile]:
    """Write adapter, archive and metrics; the same again when a killed run comes back to it."""
    csv = write_metrics_csv(folder, [(entry.step, entry.evaluation) for entry in progress.history])
    files = tokenizer_files(prepared.tokenizer) | adapter_files(prepared.objective.policy, base_model=spec.model.id)
    weights = stored_file(ADAPTER_WEIGHTS, files[ADAPTER_WEIGHTS])
    spec_sha256 = hashlib.sha256(folder.read(SPEC)).hexdigest()
    last = progress.history[-1]
    card = model_card(spec, last.step, last.evaluation)
    lineage = passport(spec, Lineage(spec_sha256, base_weights, weights), last.step)
    files |= {"README.md": card.encode(), "passport.json": f"{lineage.model_dump_json(indent=2)}\n".encode()}
    return write_adapter(folder, files, weights=weights), csv
