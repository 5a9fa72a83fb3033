"""A trainer as its run folder shows it: it writes in the order of trainers/entrypoint.py and trainers/dpo/train.py.

Opening events are flushed before the checkpoint to go on from is looked for; a step's events are flushed before the
manifest of a checkpoint that stands on it; `outcome.json` comes last. Each `yield` lets time pass.
"""

from collections.abc import Collection, Generator
from dataclasses import dataclass
from functools import cache
from random import Random

from schemas.run_layout import (
    ADAPTER,
    ADAPTER_ARCHIVE,
    CHECKPOINTS,
    EVENTS,
    MANIFEST,
    METRICS_CSV,
    OUTCOME,
    SPEC,
    checkpoint_prefix,
    event_chunk,
)
from schemas.run_record import (
    AdapterResult,
    CheckpointManifest,
    CheckpointRecord,
    Outcome,
    RunError,
    RunEvent,
    StepMetrics,
    StoredFile,
)
from schemas.run_spec import RunSpec
from tests.simulation.observer import require
from tests.simulation.store import MemoryStore, key_of

STORE_PATIENCE = 12
"""Turns that a trainer waits for a store that is away."""
CREATED_AT = 1_900_000_000.0
CSV = StoredFile(path=METRICS_CSV, sha256="c" * 64, bytes=12)
ARCHIVE = StoredFile(path=ADAPTER_ARCHIVE, sha256="d" * 64, bytes=34)
OPTIMIZER = "optimizer.safetensors"
WEIGHTS = "adapter_model.safetensors"
Life = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class Training:
    """What a job's training comes to, whichever attempt makes it."""

    steps: int
    checkpoint_every: int
    fails_at: int | None = None
    """Step at which it fails by its own fault."""
    first_dies_at: int | None = None
    """Step that its first attempt does not live to tell."""
    pauses_at: int | None = None
    """Step after which a guard pauses it, once."""

    def is_kept(self, step: int) -> bool:
        """The end of an epoch: a checkpoint that users see."""
        return step in (self.steps, (self.steps + 1) // 2)


class TrainerDied(Exception):
    """The process ends by itself and leaves no outcome."""


class Trainer:
    def __init__(self, store: MemoryStore, folder_uri: str, training: Training, rng: Random) -> None:
        self._store = store
        self._folder = key_of(folder_uri)
        self._training = training
        self._rng = rng
        self._buffer: list[RunEvent] = []
        self.is_asked_to_stop = False

    def live(self) -> Life:
        """Raises: TrainerDied."""
        spec = RunSpec.model_validate_json((yield from self._read(f"{self._folder}/{SPEC}")))
        if f"{self._folder}/{OUTCOME}" in self._store.objects:
            return
        self._tell(f"started:{spec.job_id}", "Training on 4 pairs")
        yield from self._flush()
        yield
        resumed_from = self._newest_checkpoint([self._folder, *map(key_of, spec.resume_from)])
        if resumed_from:
            self._tell(f"resumed:{spec.run_id}:{resumed_from}", f"Resumed after step {resumed_from}")
        for step in range(resumed_from + 1, self._training.steps + 1):
            yield
            if step == self._training.first_dies_at and not spec.resume_from:
                raise TrainerDied("exit code 137")
            if step == self._training.fails_at:
                yield from self._end("failed")
                return
            if (yield from self._make(step)):
                return
        yield from self._end("succeeded")

    def _make(self, step: int) -> Generator[None, None, bool]:
        """One step. True when the run ends with it, and not by having trained."""
        training, is_stopping = self._training, self.is_asked_to_stop
        self._buffer.append(_step_event(step, training.steps))
        is_last, is_guarded = step == training.steps, step == training.pauses_at
        if self._rng.random() < 0.3:
            yield from self._flush()
        if is_stopping or is_last or is_guarded or step % training.checkpoint_every == 0 or training.is_kept(step):
            yield from self._checkpoint(step)
        if is_guarded and not self._was_paused_before():
            yield from self._end("paused")
            return True
        return is_stopping and not is_last

    def _checkpoint(self, step: int) -> Life:
        yield from self._write(f"{checkpoint_prefix(step)}/{OPTIMIZER}", b"moments")
        yield from self._write(f"{checkpoint_prefix(step)}/{ADAPTER}/{WEIGHTS}", b"weights")
        if self._training.is_kept(step):
            self._buffer.append(_checkpoint_event(step))
        yield from self._flush()
        if self._rng.random() < 0.3:
            yield
        yield from self._write(f"{checkpoint_prefix(step)}/{MANIFEST}", _manifest(step))

    def _was_paused_before(self) -> bool:
        """An outcome of an earlier attempt that says paused: its user has ended that pause."""
        job_prefix = self._folder.rpartition("/")[0]
        return any(
            key.startswith(f"{job_prefix}/") and key.endswith(OUTCOME) and b'"paused"' in content
            for key, content in self._store.objects.items()
        )

    def _newest_checkpoint(self, folders: list[str]) -> int:
        """Of the first folder that has a whole one; 0 when none has. Raises: InvariantBroken."""
        newest = _newest_step(folders, self._store.objects)
        written = _newest_step(folders, self._store.written)
        require(newest == written, f"{self._folder} goes on from step {newest}, the checkpoint of {written} has gone")
        return newest

    def _end(self, status: str) -> Life:
        yield from self._flush()
        if status == "succeeded":
            yield from self._write(f"{ADAPTER}/{WEIGHTS}", b"weights")
            yield from self._write(METRICS_CSV, b"step,loss")
            yield from self._write(ADAPTER_ARCHIVE, b"adapter")
            self._tell("finished", "Finished; the adapter is ready")
            yield from self._flush()
        yield from self._write(OUTCOME, _outcome(status, self._training.steps))

    def _tell(self, key: str, text: str) -> None:
        self._buffer.append(_message(key, text))

    def _flush(self) -> Life:
        if not self._buffer:
            return
        lines = "".join(f"{event.model_dump_json(exclude_none=True)}\n" for event in self._buffer)
        prefix = f"{self._folder}/{EVENTS}/"
        number = 1 + sum(key.startswith(prefix) for key in self._store.objects)
        yield from self._write(event_chunk(number), lines.encode())
        self._buffer.clear()

    def _write(self, name: str, content: bytes) -> Life:
        yield from self._outlast_outage()
        self._store.objects[f"{self._folder}/{name}"] = content
        self._store.written.add(f"{self._folder}/{name}")

    def _read(self, key: str) -> Generator[None, None, bytes]:
        yield from self._outlast_outage()
        return self._store.objects[key]

    def _outlast_outage(self) -> Life:
        for _ in range(STORE_PATIENCE):
            if not self._store.is_away:
                return
            yield
        raise TrainerDied("exit code 1")


def _newest_step(folders: list[str], keys: Collection[str]) -> int:
    for folder in folders:
        prefix = f"{folder}/{CHECKPOINTS}/step-"
        found = [key for key in keys if key.startswith(prefix) and key.endswith(MANIFEST)]
        if found:
            return int(max(found).removeprefix(prefix).split("/")[0])
    return 0


def _message(key: str, text: str) -> RunEvent:
    return RunEvent(key=key, created_at=CREATED_AT, level="info", message=text)


@cache
def _step_event(step: int, total: int) -> RunEvent:
    metrics = StepMetrics.model_validate(
        dict.fromkeys(StepMetrics.model_fields, 0.5)
        | {"step": step, "total_steps": total, "trained_tokens": 10 * step, "step_seconds": 2.0}
    )
    return RunEvent(key=f"step:{step}", created_at=CREATED_AT + step, level="info", message="", step_metrics=metrics)


@cache
def _checkpoint_event(step: int) -> RunEvent:
    record = CheckpointRecord(
        step=step,
        adapter=f"{checkpoint_prefix(step)}/{ADAPTER}",
        adapter_sha256="a" * 64,
        adapter_bytes=7,
        train_loss=0.6,
        train_mean_token_accuracy=0.5,
    )
    return _message(f"checkpoint:{step}", f"Checkpoint saved at step {step}").model_copy(update={"checkpoint": record})


@cache
def _manifest(step: int) -> bytes:
    return CheckpointManifest(step=step, files=()).model_dump_json().encode()


@cache
def _outcome(status: str, steps: int) -> bytes:
    has_results = status == "succeeded"
    error = RunError(code="loss_not_finite", message="the loss is not finite") if status == "failed" else None
    outcome = Outcome(
        status=status,  # type: ignore[arg-type]
        error=error,
        adapter=AdapterResult(folder=ADAPTER, sha256="b" * 64, bytes=9, archive=ARCHIVE) if has_results else None,
        metrics_csv=CSV if has_results else None,
        steps=steps,
        trained_tokens=60,
        train_seconds=1.0,
        peak_memory_bytes=1,
    )
    return outcome.model_dump_json().encode()
