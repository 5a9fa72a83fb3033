"""A run from its folder to its outcome: the one function that a launcher calls, once on every worker.

`outcome.json` is written last and means that the run ended, well or by the user's fault. Whatever else goes wrong is
raised, leaves no outcome, and a later attempt goes on from the last checkpoint.
"""

import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from schemas.run_layout import OUTCOME, SPEC
from schemas.run_record import AdapterResult, Outcome, RunError, StoredFile
from schemas.run_spec import RunSpec
from trainers.distributed import Workers, open_workers
from trainers.dpo.finish import write_results
from trainers.dpo.prepare import prepare
from trainers.dpo.train import TrainingLoop
from trainers.errors import TrainerError
from trainers.events import EventLog, message
from trainers.models.weight_hashes import hashing_weights
from trainers.run_folder import RunFolder, local_copy
from trainers.stop_signal import StopSignal, listening_for_stop


@dataclass(slots=True)
class Tally:
    """What was done until now, told by a failed outcome too."""

    steps: int = 0
    trained_tokens: int = 0
    train_seconds: float = 0.0


def run(run_folder_uri: str) -> Outcome | None:
    """Train what `spec.json` says. Returns the outcome, on worker 0 alone.

    Raises: RunStopped after SIGTERM; anything else that another attempt may cure.
    """
    folder = RunFolder(run_folder_uri)
    spec = RunSpec.model_validate_json(folder.read(SPEC))
    with listening_for_stop() as stop, open_workers(gpus_per_worker=spec.gpus_per_worker) as workers:
        if workers.from_first(workers.writes and folder.exists(OUTCOME)):
            return Outcome.model_validate_json(folder.read(OUTCOME)) if workers.writes else None
        events = EventLog(folder, is_writer=workers.writes)
        try:
            outcome = _run_to_outcome(folder, spec, workers, events, stop)
        finally:
            events.flush()
        if outcome is not None:
            folder.write(OUTCOME, outcome.model_dump_json(indent=2).encode())
        workers.wait()
        return outcome


def _run_to_outcome(
    folder: RunFolder, spec: RunSpec, workers: Workers, events: EventLog, stop: StopSignal
) -> Outcome | None:
    tally = Tally()
    try:
        adapter, metrics_csv = _train(folder, spec, workers, events, stop, tally)
    except TrainerError as error:
        told = RunError(code=error.code, message=error.message, param=error.param)
        return _outcome(workers, tally, error=told) if workers.writes else None
    if adapter is None:
        return None
    return _outcome(workers, tally, adapter=adapter, metrics_csv=metrics_csv)


def _train(
    folder: RunFolder, spec: RunSpec, workers: Workers, events: EventLog, stop: StopSignal, tally: Tally
) -> tuple[AdapterResult | None, StoredFile | None]:
    """Train and write results; worker 0 alone has some to return."""
    with ExitStack() as stack:
        model_folder = stack.enter_context(local_copy(folder.resolve(spec.model.uri)))
        base_weights = stack.enter_context(hashing_weights(model_folder)) if workers.writes else None
        prepared = prepare(folder, spec, model_folder, workers.device)
        for event in prepared.opening:
            events.tell(event)
        events.flush()
        loop = TrainingLoop(prepared, spec, folder, workers, events, stop)
        loop.resume()
        loop.shared_reference.open(prepared, model_folder, base_weights, loop.progress)
        began = time.monotonic()
        try:
            loop.run()
        finally:
            tally.steps, tally.trained_tokens = loop.progress.step, loop.progress.trained_tokens
            tally.train_seconds = time.monotonic() - began
        if base_weights is None:
            return None, None
        results = write_results(folder, spec, prepared, loop.progress, base_weights=base_weights.hashed())
    events.tell(message("finished", f"Finished {tally.steps} steps; the adapter is ready"))
    return results


def _outcome(
    workers: Workers,
    tally: Tally,
    *,
    error: RunError | None = None,
    adapter: AdapterResult | None = None,
    metrics_csv: StoredFile | None = None,
) -> Outcome:
    return Outcome(
        status="succeeded" if error is None else "failed",
        error=error,
        adapter=adapter,
        metrics_csv=metrics_csv,
        steps=tally.steps,
        trained_tokens=tally.trained_tokens,
        train_seconds=tally.train_seconds,
        peak_memory_bytes=_peak_memory_bytes(workers.device),
    )


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
