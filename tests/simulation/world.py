"""The world of one history: a database, a store, a cluster, dispatchers that may die, users, and clocks that may jump.

What is simulated: store, cluster, trainers, time. What is real: dispatcher, lifecycle, queue, leases, repositories, and
what a request does to a job.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from sqlalchemy.exc import OperationalError

from schemas.fine_tuning import CreateJobRequest
from schemas.ids import DispatcherId, FileId, JobId, ProjectId
from schemas.run_layout import file_key
from service.backends.backend import RunRequest
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.projects import ProjectRepository
from service.db.tables import FileRow, JobRow, ProjectRow
from service.dispatcher.context import DispatchContext
from service.errors import ServiceError
from service.files.catalog import delete_file
from service.identifiers import new_dispatcher_id, new_file_id
from service.jobs.control import cancel_job, pause_job, resume_job
from service.jobs.model_catalog import delete_model
from service.jobs.submission import Submission, submit_job
from service.registry import BaseModelEntry
from service.retention.run_folders import sweep_run_folders
from tests.simulation.cluster import Cluster, Node
from tests.simulation.database import deterministic_ids, empty, listening
from tests.simulation.dispatchers import Process
from tests.simulation.faults import Crash, Faults
from tests.simulation.layout import Layout, Place, project_id, short
from tests.simulation.observer import USER, InvariantBroken, Observer
from tests.simulation.snapshots import Reader
from tests.simulation.store import MemoryStore
from tests.simulation.trainer import Trainer, Training

MODEL = "tiny"
ENTRY = BaseModelEntry(uri="/models/tiny", max_length=512, base_learning_rate=1e-3, precision="fp32", gpus=0)
START = datetime(2030, 1, 1, tzinfo=UTC)
LEASE_S = 30.0
GOOD_FILE = b'{"prompt": "P?", "chosen": "Yes.", "rejected": "No."}\n' * 4
BAD_FILE = GOOD_FILE + b"not json\n"


@dataclass(slots=True)
class World:
    database: Database
    layout: Layout
    faults: Faults
    rng: Random
    store: MemoryStore = field(default_factory=MemoryStore)
    now_s: float = 0.0
    api_offset_s: float = 0.0
    trainings: dict[str, Training] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    deleted_files: set[str] = field(default_factory=set)
    logs: list[dict[str, object]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    clocks_have_jumped: bool = False
    swept_after: timedelta = timedelta()
    """Longer with each sweep: one that failed is due again."""
    cluster: Cluster = field(init=False)
    observer: Observer = field(init=False)
    places: list[Place] = field(init=False)
    reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        nodes = [Node(gpus) for gpus in self.layout.node_gpus]
        self.cluster = Cluster(nodes, self._start_trainer)
        self.reader = Reader(self.database.engine)
        quotas = {project_id(number): quota for number, quota in enumerate(self.layout.quotas)}
        self.observer = Observer(self.reader, quotas, gpus=sum(self.layout.node_gpus))
        self.places = [Place(f"dispatcher-{number}") for number in range(self.layout.dispatchers)]
        with self.database.write() as session:
            for identifier, quota in quotas.items():
                row = ProjectRow(id=identifier, name=identifier, created_at=START)
                row.max_running_jobs, row.max_queued_jobs = quota.running, quota.queued
                ProjectRepository(session).add(row)

    # What the service's processes do.

    def start(self, place: Place) -> None:
        name = DispatcherId(place.name) if self.layout.keeps_ids else new_dispatcher_id()
        context = DispatchContext(
            database=self.database,
            store=self.store,  # type: ignore[arg-type]  # as much of one as a dispatcher needs
            validate_file=lambda _: None,  # type: ignore[arg-type,return-value]  # the process brings its own
            backend=self.cluster,
            registry={MODEL: ENTRY},
            clock=lambda: self.wall_clock(place.offset_s),
            max_attempts=self.layout.max_attempts,
            dispatcher_id=name,
            lease_s=LEASE_S,
        )
        place.process = Process(context, faults=self.faults, observer=self.observer, cluster=self.cluster)

    def go_on(self, place: Place) -> None:
        """Let a dispatcher go on, or start one where there is none."""
        if place.process is None:
            self.start(place)
        assert place.process is not None
        try:
            place.process.go_on()
        except Crash:
            self.note(f"{place.name} crashed")
            self.kill(place)
        except Exception as error:  # noqa: BLE001  # as Dispatcher.run does: the tick is tried again
            self._check_explained(error)
        self.check()

    def kill(self, place: Place) -> None:
        if place.process is not None:
            place.process.die()
            place.process = None

    def give_back(self, place: Place) -> None:
        """End a dispatcher as SIGTERM does."""
        process = place.process
        if process is None or process.is_suspended:
            return
        try:
            process.run(process.dispatcher.give_back)
        except Crash:
            self.note(f"{place.name} crashed while it gave back")
        self.kill(place)

    def restart_with_cluster(self, place: Place) -> None:
        """End and start the service together with its own cluster, as the embedded default does."""
        process = place.process
        if process is None or process.is_suspended or not self.layout.keeps_ids or len(self.places) > 1:
            return
        self.cluster.forget_all()
        try:
            process.run(process.dispatcher.interrupt_runs)
        except (Crash, OperationalError):
            self.note(f"{place.name} ended before it had interrupted its runs")
        self.kill(place)
        self.check()

    def renew_leases(self) -> None:
        owners = {job.lease_owner for job in self.observer.seen.jobs.values()}
        for place in self.places:
            if place.process is not None and place.process.id in owners:
                try:
                    place.process.renew()
                except Crash:
                    self.kill(place)
                except Exception as error:  # noqa: BLE001  # as the thread for leases does
                    self._check_explained(error)

    # What users do.

    def submit(
        self, project: int, training: Training, *, gpus: int = 0, content: bytes = GOOD_FILE, priority: int = 0
    ) -> str | None:
        owner = project_id(project)
        file_id = new_file_id()
        stored = self.store.objects[file_key(file_id)] = content
        with self.database.write() as session:
            FileRepository(session).add(_file_row(owner, file_id, len(stored), self.wall_clock(self.api_offset_s)))
        self.files[file_id] = content
        wanted = {
            "model": MODEL,
            "training_file": file_id,
            "seed": 1,
            "resources": {"gpus": gpus},
            "priority": priority,
        }
        request = CreateJobRequest.model_validate(wanted)
        try:
            job = submit_job(
                Submission(owner, request, None), database=self.database, registry={MODEL: ENTRY}, clock=self._api_clock
            )
        except ServiceError as refused:
            self.note(f"submit refused: {refused.code}")
            return None
        self.trainings[job.id] = training
        self.note(f"submitted {short(job.id)} for {gpus} GPUs: {training}")
        self.observer.look(USER)
        return job.id

    def ask(self, what: str, job_id: str) -> bool:
        """Cancel, pause or resume. False: refused."""
        act = {"cancel": cancel_job, "pause": pause_job, "resume": resume_job}[what]
        owner = ProjectId(self.observer.seen.jobs[job_id].project_id)
        try:
            act(owner, job_id, database=self.database, clock=self._api_clock)
        except ServiceError as refused:
            self.note(f"{what} {short(job_id)} refused: {refused.code}")
            return False
        self.note(f"{what} {short(job_id)}")
        self.observer.look(USER)
        return True

    def delete_file_of(self, job_id: str) -> None:
        job = self.observer.seen.jobs[job_id]
        if job.training_file_id in self.deleted_files or self.store.is_away:
            return
        self.note(f"file of {short(job_id)} deleted")
        self.deleted_files.add(job.training_file_id)
        delete_file(
            ProjectId(job.project_id),
            job.training_file_id,
            database=self.database,
            store=self.store,  # type: ignore[arg-type]
            clock=self._api_clock,
        )

    def delete_results_of(self, job_id: str) -> None:
        """Its files and its model, not those of its checkpoints."""
        job = JobId(job_id)
        with self.database.read() as session:
            row = session.get_one(JobRow, job)
        owner, store, clock = ProjectId(row.project_id), self.store, self._api_clock
        for file_id in row.result_file_ids:
            delete_file(owner, file_id, database=self.database, store=store, clock=clock)  # type: ignore[arg-type]
        delete_model(owner, row.fine_tuned_model, database=self.database, registry={}, store=store, clock=clock)  # type: ignore[arg-type]
        self.note(f"results of {short(job_id)} deleted")

    def sweep(self) -> int:
        """As the sweeper does long afterwards, by whichever clock: what may go then may go at once. Returns jobs."""
        self.swept_after += timedelta(days=10)
        now = self._api_clock() + self.swept_after
        count = sweep_run_folders(self.database, self.store, now=now)  # type: ignore[arg-type]
        self.note(f"run folders of {count} jobs swept")
        return count

    # What happens around them.

    def advance(self, *, seconds: float) -> None:
        """Let time pass, in which no dispatcher acts: of the leases' renewals meanwhile the last one counts."""
        self.now_s += seconds
        self.cluster.advance(to_s=self.now_s)
        self.renew_leases()
        self.check()

    def jump(self, place: Place, *, seconds: float) -> None:
        place.offset_s = seconds
        self.clocks_have_jumped = True
        self.note(f"clock of {place.name} is off by {seconds:.0f} s")

    def wall_clock(self, offset_s: float) -> datetime:
        return START + timedelta(seconds=self.now_s + offset_s)

    def check(self) -> None:
        """Raises: InvariantBroken, also one that the service's own tops have caught and logged."""
        if self.observer.broken is not None:
            raise self.observer.broken
        for entry in self.logs:
            error = entry.get("exc_info")
            if isinstance(error, Exception):
                self._check_explained(error)
        self.logs.clear()
        self._check_cluster()

    def _check_cluster(self) -> None:
        """One run of a job at a time, but for those that nobody could know of."""
        seen: set[str] = set()
        for process in self.cluster.alive():
            if process.cut_off_until_s is None and not process.was_late:
                job_id = process.request.run_id.rpartition("-")[0]
                if job_id in seen:
                    raise InvariantBroken(f"{job_id} runs twice at once")
                seen.add(job_id)

    def _check_explained(self, error: Exception) -> None:
        if not isinstance(error, OSError) and "simulated" not in str(error) and "no answer" not in str(error):
            raise InvariantBroken(f"a step raised {error!r}") from error

    def _api_clock(self) -> datetime:
        return self.wall_clock(self.api_offset_s)

    def _start_trainer(self, request: RunRequest) -> tuple[Trainer, float]:
        training = self.trainings[request.run_id.rpartition("-")[0]]
        pace_s = self.rng.uniform(1.0, 6.0)
        self.note(f"{short(request.run_id)} started")
        return Trainer(self.store, request.run_folder_uri, training, self.rng), pace_s

    def note(self, what: str) -> None:
        self.trace.append(f"{self.now_s:7.1f} {what}")


@contextmanager
def open_world(database: Database, layout: Layout, faults: Faults, rng: Random) -> Iterator[World]:
    empty(database)
    logs: list[dict[str, object]] = []
    with deterministic_ids(), listening(logs):
        world = World(database, layout, faults, rng, logs=logs)
        try:
            yield world
        finally:
            for place in world.places:
                world.kill(place)


def _file_row(owner: ProjectId, file_id: FileId, size_bytes: int, now: datetime) -> FileRow:
    return FileRow(
        id=file_id,
        project_id=owner,
        filename="pairs.jsonl",
        purpose="fine-tune",
        object_key=file_key(file_id),
        size_bytes=size_bytes,
        sha256="e" * 64,
        created_at=now,
        expires_at=None,
    )
