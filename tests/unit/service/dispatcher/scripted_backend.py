"""A backend whose runs move one scripted action each time their status is asked.

It is the cluster: it survives every crash of the dispatcher, and counts what it was asked.
"""

from collections import defaultdict
from collections.abc import Callable

from schemas.ids import RunId
from service.backends.backend import BackendUnavailable, Capacity, RunRequest, RunState, RunStatus

Action = Callable[[RunRequest], RunStatus | None]
"""Does what a trainer would; a returned status is the run's from then on."""
Script = Callable[[RunRequest], list[Action]]

ENDED_WELL = RunStatus(RunState.ENDED, "exit code 0")
RUNNING = RunStatus(RunState.RUNNING, "")
STOPPED = RunStatus(RunState.ENDED, "stopped")
UNKNOWN = RunStatus(RunState.UNKNOWN, "")


class ScriptedBackend:
    def __init__(self, script: Script, *, on_stop: Script = lambda _: [], cpus: int = 2, gpus: int = 0) -> None:
        self._script = script
        self._on_stop = on_stop
        self._capacity = Capacity(cpus, gpus)
        self._actions: dict[RunId, list[Action]] = {}
        self._statuses: dict[RunId, RunStatus] = {}
        self.requests: dict[RunId, RunRequest] = {}
        self.submissions: dict[RunId, int] = defaultdict(int)
        self.stopped: list[RunId] = []
        self.is_away = False

    def submit(self, request: RunRequest) -> None:
        self._answer()
        self.submissions[request.run_id] += 1
        if request.run_id not in self.requests:
            self.requests[request.run_id] = request
            self._actions[request.run_id] = self._script(request)
            self._statuses[request.run_id] = RUNNING

    def status(self, run_id: RunId) -> RunStatus:
        self._answer()
        if run_id not in self._statuses:
            return UNKNOWN
        if self._statuses[run_id] is RUNNING and self._actions[run_id]:
            changed = self._actions[run_id].pop(0)(self.requests[run_id])
            self._statuses[run_id] = changed or RUNNING
        return self._statuses[run_id]

    def stop(self, run_id: RunId) -> None:
        self._answer()
        self.stopped.append(run_id)
        if self._statuses.get(run_id) is RUNNING and self.stopped.count(run_id) == 1:
            self._actions[run_id] = self._on_stop(self.requests[run_id])
            if not self._actions[run_id]:
                self._statuses[run_id] = STOPPED

    def log_tail(self, run_id: RunId) -> str:
        return "Traceback …\nMemoryError: no room\n"

    def capacity(self) -> Capacity:
        self._answer()
        return self._capacity

    def end(self, run_id: RunId, status: RunStatus = ENDED_WELL) -> None:
        """Its processes are gone."""
        self._statuses[run_id] = status

    def forget_all(self) -> None:
        """As a head that restarts elsewhere does."""
        self._statuses.clear()

    def _answer(self) -> None:
        if self.is_away:
            raise BackendUnavailable("the cluster is away")
