"""A run from its folder to its outcome: the one function that a launcher calls, once on every worker.

`outcome.json` is written last and means that the run ended, well or by the user's fault. Whatever else goes wrong is
raised, leaves no outcome, and a later attempt goes on from the last checkpoint.
"""

import logging
import resource
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch

from schemas.missing_files import missing_file_message
from schemas.run_layout import ADAPTER, OUTCOME, SPEC
from schemas.run_record import Outcome, RunError
from schemas.run_spec import RunSpec
from trainers.distributed import Workers, failing_together, open_workers
from trainers.dpo.finish import choose_adapter, write_results
from trainers.dpo.loop_events import checkpoint_event
from trainers.dpo.prepare import prepare
from trainers.dpo.train import TrainingLoop
from trainers.errors import TrainerError, TrainingFileNotFound, ValidationFileNotFound
from trainers.events import EventLog, message
from trainers.host_memory import keep_freed_memory
from trainers.logs import log_event, name_run
from trainers.model_copy import local_copy
from trainers.models.weight_hashes import hashing_weights
from trainers.results import Results
from trainers.run_folder import RunFolder
from trainers.sft.phase import SftPhase
from trainers.spec_file import read_spec
from trainers.stop_signal import StopSignal, listening_for_stop

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What was done until now, told by a failed outcome too."""

    steps: int = 0
    trained_tokens: int = 0
    train_seconds: float = 0.0


def run(run_folder_uri: str) -> Outcome | None:
    """Train what `spec.json` says. Returns the outcome, on worker 0 alone.

    Raises: RunStopped after SIGTERM; UnreadableSpec; anything else that another attempt may cure.
    """
    folder = RunFolder(run_folder_uri)
    spec = read_spec(folder)
    name_run(spec)
    log_event(log, "run_started", threads=torch.get_num_threads())
    keep_freed_memory()
    with listening_for_stop(folder) as stop, open_workers(gpus_per_worker=spec.gpus_per_worker) as workers:
        if workers.from_first(workers.writes and folder.exists(OUTCOME)):
            return _read_outcome(folder) if workers.writes else None
        events = EventLog(folder, is_writer=workers.writes)
        try:
            outcome = _run_to_outcome(folder, spec, workers, events, stop)
        finally:
            events.flush()
        if outcome is not None:
            folder.write(OUTCOME, outcome.model_dump_json(indent=2).encode())
            _log_outcome("run_finished", outcome)
        workers.wait()
        return outcome


def _read_outcome(folder: RunFolder) -> Outcome:
    outcome = Outcome.model_validate_json(folder.read(OUTCOME))
    _log_outcome("run_had_finished", outcome)
    return outcome


def _log_outcome(event: str, outcome: Outcome) -> None:
    """A failure's message is for the user, whose text may be in it: a kept log says where to read it."""
    if outcome.error is None:
        log_event(log, event, outcome=outcome.status, steps=outcome.steps)
        return
    told = outcome.error.message if sys.stdout.isatty() else f"see {OUTCOME}"
    fields = {"code": outcome.error.code, "param": outcome.error.param, "message": told}
    log_event(log, event, level=logging.ERROR, outcome=outcome.status, steps=outcome.steps, **fields)


def _run_to_outcome(
    folder: RunFolder, spec: RunSpec, workers: Workers, events: EventLog, stop: StopSignal
) -> Outcome | None:
    tally = Tally()
    try:
        return _train(folder, spec, workers, events, stop, tally)
    except TrainerError as error:
        told = RunError(code=error.code, message=error.message, param=error.param)
        return _outcome(workers, tally, "failed", error=told) if workers.writes else None


def _train(
    folder: RunFolder, spec: RunSpec, workers: Workers, events: EventLog, stop: StopSignal, tally: Tally
) -> Outcome | None:
    """Train and write results; worker 0 alone has an outcome to return."""
    with ExitStack() as stack:
        with failing_together(workers):
            _find_files(folder, spec)
            model_folder = stack.enter_context(local_copy(folder.resolve(spec.model.uri)))
        base_weights = stack.enter_context(hashing_weights(model_folder)) if workers.writes else None
        prepared = prepare(folder, spec, model_folder, workers)
        for event in prepared.opening:
            events.tell(event)
        events.flush()
        loop = TrainingLoop(prepared, spec, folder, workers, events, stop)
        loop.resume()
        began = time.monotonic()
        try:
            if spec.sft is not None and loop.progress.step == 0:
                SftPhase(prepared, spec, spec.sft, folder, workers, events, stop, loop.progress, loop.budget).run()
            loop.shared_reference.open(prepared, model_folder, base_weights, loop.progress)
            verdict = loop.run()
        finally:
            tally.steps, tally.trained_tokens = loop.progress.step, loop.progress.trained_tokens
            tally.train_seconds = time.monotonic() - began
        if base_weights is None:
            return None
        if verdict is not None and verdict.action == "pause":
            return _outcome(workers, tally, "paused")
        chosen = choose_adapter(loop.progress, prepared.objective.policy, verdict)
        hashes = base_weights.hashed()
        results = write_results(folder, spec, prepared, loop.progress, chosen, base_weights=hashes)
    if verdict is not None:
        events.tell(checkpoint_event(chosen.entry, chosen.weights, adapter=ADAPTER, why="which is the result"))
    events.tell(message("finished", f"Finished {tally.steps} steps; the adapter is ready"))
    return _outcome(workers, tally, "succeeded", results=results)


def _find_files(folder: RunFolder, spec: RunSpec) -> None:
    """Before the model is loaded, which may take minutes.

    The message is a user's, who has no server to look at; the log says what an operator, or a run made by hand, needs.

    Raises: TrainingFileNotFound, ValidationFileNotFound; OSError where the store is at fault.
    """
    files = ((spec.training_file, TrainingFileNotFound), (spec.validation_file, ValidationFileNotFound))
    for file, error in files:
        if file is not None and not folder.exists(file.uri):
            place, remedy = folder.resolve(file.uri), f"in a run made by hand, correct {error.param}.uri in its {SPEC}"
            log_event(log, "file_not_found", level=logging.ERROR, param=error.param, place=place, remedy=remedy)
            raise error(missing_file_message(str(error.param), file.file_id))


def _outcome(
    workers: Workers,
    tally: Tally,
    status: Literal["succeeded", "failed", "paused"],
    *,
    error: RunError | None = None,
    results: Results | None = None,
) -> Outcome:
    return Outcome(
        status=status,
        error=error,
        adapter=None if results is None else results.adapter,
        metrics_csv=None if results is None else results.metrics_csv,
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
