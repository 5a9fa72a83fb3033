"""The cluster: nodes, the runs on them, and what really ran, which no dispatcher is told.

A node that is lost ends its runs, or is only cut off: its runs are said to have ended and still write for a while. A
head that restarts forgets every run; their processes end with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.ids import RunId
from service.backends.backend import STOP_GRACE_S, BackendUnavailable, Capacity, RunRequest, RunState, RunStatus
from tests.simulation.trainer import Life, Trainer, TrainerDied

CPUS_OF_A_NODE = 4
UNKNOWN = RunStatus(RunState.UNKNOWN, "")
PENDING = RunStatus(RunState.PENDING, "")
RUNNING = RunStatus(RunState.RUNNING, "")


@dataclass(slots=True)
class Node:
    gpus: int
    is_lost: bool = False


@dataclass(slots=True)
class Process:
    """A run's processes: `status` is what the cluster says, `is_alive` what is."""

    request: RunRequest
    trainer: Trainer
    life: Life
    pace_s: float
    status: RunStatus = PENDING
    is_alive: bool = False
    nodes: list[Node] = field(default_factory=list)
    next_turn_s: float = 0.0
    started_s: float | None = None
    ended_s: float | None = None
    cut_off_until_s: float | None = None
    stop_asked_s: float | None = None
    has_finished: bool = False
    """It ended by itself, with an outcome or at a stop that it was asked for."""
    was_late: bool = False
    """Submitted by a dispatcher that had waited: it may have lost its job meanwhile, and stops the run then."""

    @property
    def gpus(self) -> int:
        return self.request.workers * self.request.gpus_per_worker


class Cluster:
    def __init__(self, nodes: list[Node], start: Callable[[RunRequest], tuple[Trainer, float]]) -> None:
        self.nodes = nodes
        self._start = start
        self.now_s = 0.0
        self.known: dict[RunId, Process] = {}
        self.all: list[Process] = []
        """Every process that there ever was, forgotten ones too."""
        self.is_away = False

    # What a backend answers.

    def submit(self, request: RunRequest, *, is_late: bool = False) -> None:
        """`is_late`: whoever asked has lost the job meanwhile."""
        self._answer()
        if request.run_id in self.known:
            return
        trainer, pace_s = self._start(request)
        process = Process(request, trainer, trainer.live(), pace_s, was_late=is_late)
        self.known[request.run_id] = process
        self.all.append(process)
        self._place_pending()

    def status(self, run_id: RunId) -> RunStatus:
        self._answer()
        process = self.known.get(run_id)
        return process.status if process else UNKNOWN

    def stop(self, run_id: RunId) -> None:
        """Ray cannot stop what is pending: that is asked again once it runs."""
        self._answer()
        process = self.known.get(run_id)
        if process and process.status is RUNNING:
            process.trainer.is_asked_to_stop = True
            process.stop_asked_s = self.now_s if process.stop_asked_s is None else process.stop_asked_s

    def log_tail(self, run_id: RunId) -> str:
        return "" if self.is_away else "MemoryError: no room\n"

    def capacity(self) -> Capacity:
        self._answer()
        alive = [node for node in self.nodes if not node.is_lost]
        if not alive:
            raise BackendUnavailable("no node of the simulated cluster is alive")
        return Capacity(cpus=CPUS_OF_A_NODE * len(alive), gpus=sum(node.gpus for node in alive))

    # What happens there.

    def advance(self, *, to_s: float) -> None:
        """Let every process have its turns, in the order of their times."""
        while True:
            due = [process for process in self.all if process.is_alive and process.next_turn_s <= to_s]
            if not due:
                break
            process = min(due, key=lambda each: each.next_turn_s)
            self.now_s = max(self.now_s, process.next_turn_s)
            self._give_turn(process)
        self.now_s = to_s

    def lose_node(self, node: Node, *, cut_off_s: float) -> None:
        """`cut_off_s`: how long its processes go on, unseen."""
        node.is_lost = True
        for process in self.all:
            if process.is_alive and process.cut_off_until_s is None and node in process.nodes:
                process.cut_off_until_s = self.now_s + cut_off_s
                self._set_ended(process, "node died")
                if cut_off_s == 0:
                    self._bury(process)

    def find_node(self, node: Node) -> None:
        node.is_lost = False
        self._place_pending()

    def kill(self, process: Process) -> None:
        self._set_ended(process, "exit code 137")
        self._bury(process)

    def forget_all(self) -> None:
        for process in self.known.values():
            if process.cut_off_until_s is None and process.is_alive:
                self._bury(process)
        self.known.clear()

    def alive(self) -> list[Process]:
        return [process for process in self.all if process.is_alive]

    def _give_turn(self, process: Process) -> None:
        process.next_turn_s = self.now_s + process.pace_s
        is_killed = process.stop_asked_s is not None and self.now_s >= process.stop_asked_s + STOP_GRACE_S
        is_over = process.cut_off_until_s is not None and self.now_s >= process.cut_off_until_s
        if is_killed or is_over:
            self.kill(process)
            return
        try:
            next(process.life)
        except StopIteration:
            process.has_finished = True
            self._set_ended(process, "exit code 0")
            self._bury(process)
        except TrainerDied as death:
            self._set_ended(process, str(death))
            self._bury(process)

    def _set_ended(self, process: Process, detail: str) -> None:
        if process.status is RUNNING:
            process.status = RunStatus(RunState.ENDED, detail)

    def _bury(self, process: Process) -> None:
        process.is_alive = False
        process.ended_s = self.now_s
        process.nodes = []
        self._place_pending()

    def _place_pending(self) -> None:
        for process in self.known.values():
            if process.status is PENDING:
                self._place(process)

    def _place(self, process: Process) -> None:
        alive = [node for node in self.nodes if not node.is_lost]
        free = {id(node): node.gpus for node in alive}
        for other in self.all:
            for node in other.nodes if other.is_alive and other.gpus else []:
                if id(node) in free:
                    free[id(node)] -= 1
        places = [node for node in alive for _ in range(free[id(node)])][: process.gpus]
        if not alive or len(places) < process.gpus:
            return
        process.nodes = places or alive[:1]
        process.status, process.is_alive = RUNNING, True
        process.started_s = self.now_s
        process.next_turn_s = self.now_s + process.pace_s

    def _answer(self) -> None:
        if self.is_away:
            raise BackendUnavailable("the simulated cluster is away")
