"""Leave the results of a finished run in its folder."""

import hashlib
from pathlib import Path

from schemas.run_layout import SPEC
from schemas.run_record import AdapterResult, StoredFile
from schemas.run_spec import RunSpec
from trainers.checkpoints import stored_file
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import Progress, adapter_files
from trainers.model_card import Lineage, model_card, passport
from trainers.models.causal_lm import weight_files
from trainers.models.lora import ADAPTER_WEIGHTS
from trainers.results import tokenizer_files, write_adapter, write_metrics_csv
from trainers.run_folder import RunFolder


def write_results(
    folder: RunFolder, spec: RunSpec, prepared: Prepared, progress: Progress, *, model_folder: Path
) -> tuple[AdapterResult, StoredFile]:
    """Write adapter, archive and metrics; the same again when a killed run comes back to it."""
    csv = write_metrics_csv(folder, [(entry.step, entry.evaluation) for entry in progress.history])
    files = tokenizer_files(prepared.tokenizer) | adapter_files(prepared.objective.policy, base_model=spec.model.id)
    weights = stored_file(ADAPTER_WEIGHTS, files[ADAPTER_WEIGHTS])
    base_weights = tuple(_hash_file(path) for path in weight_files(model_folder))
    spec_sha256 = hashlib.sha256(folder.read(SPEC)).hexdigest()
    last = progress.history[-1]
    card = model_card(spec, last.step, last.evaluation)
    lineage = passport(spec, Lineage(spec_sha256, base_weights, weights), last.step)
    files |= {"README.md": card.encode(), "passport.json": f"{lineage.model_dump_json(indent=2)}\n".encode()}
    return write_adapter(folder, files, weights=weights), csv


def _hash_file(path: Path) -> StoredFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return StoredFile(path=path.name, sha256=digest.hexdigest(), bytes=path.stat().st_size)
