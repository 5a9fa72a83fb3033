"""The results of a run: the metrics as CSV, the adapter unpacked and as an archive that loads with stock PEFT."""

import csv
import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedTokenizerBase

from schemas.run_layout import ADAPTER, ADAPTER_ARCHIVE, METRICS_CSV
from schemas.run_record import AdapterResult, EvaluationMetrics, StepMetrics, StoredFile
from trainers.checkpoints import stored_file
from trainers.run_folder import RunFolder

STEP_COLUMNS = tuple(StepMetrics.model_fields)
EVALUATION_COLUMNS = tuple(name for name in EvaluationMetrics.model_fields if name.startswith("valid_"))


@dataclass(frozen=True, slots=True)
class Results:
    adapter: AdapterResult
    metrics_csv: StoredFile


def write_metrics_csv(folder: RunFolder, rows: Sequence[tuple[StepMetrics, EvaluationMetrics | None]]) -> StoredFile:
    """One row a step; the `valid_` columns are empty where nothing was evaluated."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*STEP_COLUMNS, *EVALUATION_COLUMNS], lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    for step, evaluation in rows:
        evaluated = {} if evaluation is None else evaluation.model_dump()
        table.writerow(evaluated | step.model_dump())
    content = text.getvalue().encode()
    folder.write(METRICS_CSV, content)
    return stored_file(METRICS_CSV, content)


def write_adapter(folder: RunFolder, files: Mapping[str, bytes], *, weights: StoredFile) -> AdapterResult:
    for name, content in files.items():
        folder.write(f"{ADAPTER}/{name}", content)
    archive = _archive(files)
    folder.write(ADAPTER_ARCHIVE, archive)
    return AdapterResult(
        folder=ADAPTER, sha256=weights.sha256, bytes=weights.bytes, archive=stored_file(ADAPTER_ARCHIVE, archive)
    )


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    """Return what an adapter carries of its tokenizer; of several chat templates all but one lie in a folder."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Pack without times and owners: the same files give the same bytes."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=6) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
