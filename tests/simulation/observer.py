"""The invariants that hold after every transaction, whoever made it."""

from typing import get_args

from schemas.fine_tuning import JobStatus
from service.jobs.lifecycle import ALLOWED
from tests.simulation.snapshots import Job, Reader, Snapshot

USER = "user"
ENDED = frozenset(status for status in get_args(JobStatus) if not ALLOWED[status])
WAITING = frozenset({"validating_files", "queued"})


class InvariantBroken(AssertionError):
    """The service did what it must never do."""


class Quota:
    """What a project may have."""

    def __init__(self, *, running: int | None, queued: int | None) -> None:
        self.running = running
        self.queued = queued


class Observer:
    def __init__(self, reader: Reader, quotas: dict[str, Quota], *, gpus: int) -> None:
        self._reader = reader
        self._quotas = quotas
        self._gpus = gpus
        self._seen = Snapshot({}, {}, gpus_noted=0)
        self._steps: dict[str, int] = {}
        self.broken: InvariantBroken | None = None
        """The first that was found broken: the service's own tops may have caught it."""

    @property
    def seen(self) -> Snapshot:
        return self._seen

    def look(self, actor: str) -> None:
        """Hold the world against what it was before the actor's transaction. Raises: InvariantBroken."""
        before, now = self._seen, self._reader.snapshot()
        self._seen = now
        try:
            for job in now.jobs.values():
                seen = before.jobs.get(job.id)
                if seen is None:
                    self._check_new_events(job, after=0)
                elif seen != job:
                    self._check_change(seen, job, actor)
            self._check_claims(before, now)
            self._check_quotas(before, now)
            self._check_noted(before, now)
            self._check_runs(before, now)
        except InvariantBroken as broken:
            self.broken = self.broken or broken
            raise

    def _check_change(self, seen: Job, job: Job, actor: str) -> None:
        if seen.status != job.status:
            require(job.status in ALLOWED[seen.status], f"{job.id} went from {seen.status} to {job.status}")  # type: ignore[index]
        if seen.status in ENDED:
            require(seen._replace(lease_owner=job.lease_owner) == job, f"{job.id} had ended: {seen} became {job}")
        require(job.attempt - seen.attempt in (0, 1), f"{job.id} went from attempt {seen.attempt} to {job.attempt}")
        if actor != USER and seen.version != job.version:
            # Turns, what a job waits for and whom it preempts: decided under the queue's lock, not under a lease.
            is_turn = seen.status == "queued" or (seen.status, job.status) == ("running", "queued")
            require(seen.lease_owner == actor or is_turn, f"{actor} wrote to {job.id}, leased by {seen.lease_owner}")
        self._check_new_events(job, after=seen.event_count)
        if job.status == "succeeded" != seen.status:
            self._check_results(job)

    def _check_new_events(self, job: Job, *, after: int) -> None:
        events = self._reader.events_after(job.id, after)
        numbers = [event.seq for event in events]
        require(
            numbers == list(range(after + 1, job.event_count + 1)), f"{job.id} has {after} events and then {numbers}"
        )
        for event in events:
            if event.key.startswith("step:"):
                step = int(event.key.removeprefix("step:"))
                last = self._steps.get(job.id, 0)
                require(step == last + 1, f"{job.id} told step {step} after step {last}")
                self._steps[job.id] = step

    def _check_results(self, job: Job) -> None:
        prefix = f"runs/{job.id}/{job.id}-{job.attempt}/"
        keys = self._reader.result_keys(job.id)
        require(len(keys) == 3, f"{job.id} succeeded with {keys}")
        require(all(key.startswith(prefix) for key in keys), f"{job.id} at attempt {job.attempt} published {keys}")

    def _check_claims(self, before: Snapshot, now: Snapshot) -> None:
        """Within a project the highest priority goes first, then the oldest; one that is refused had its turn, too."""
        held = {run.job_id for run in before.open_runs()}
        claimed: dict[str, set[str]] = {}
        for job in now.jobs.values():
            seen = before.jobs.get(job.id)
            if seen is not None and seen.status == "queued" and job.status == "running":
                claimed.setdefault(job.project_id, set()).add(job.id)
        for project_id, ids in claimed.items():
            waiting = [
                other
                for other in before.jobs.values()
                if other.project_id == project_id
                and other.status == "queued"
                and other.id not in held
                and now.jobs[other.id].status not in ENDED
            ]
            first = sorted(waiting, key=lambda other: (-other.priority, other.id))[: len(ids)]
            require(ids == {job.id for job in first}, f"{ids} were claimed before {first}")

    def _check_quotas(self, before: Snapshot, now: Snapshot) -> None:
        for project_id, quota in self._quotas.items():
            running = sum(job.project_id == project_id and job.status == "running" for job in now.jobs.values())
            require(quota.running is None or running <= quota.running, f"{running} jobs of {project_id} run")
            waiting = {job.id for job in now.jobs.values() if job.project_id == project_id and job.status in WAITING}
            asked = {job_id for job_id in waiting if _was_asked_for(before.jobs.get(job_id))}
            fits = quota.queued is None or len(waiting) <= quota.queued
            require(fits or not asked, f"{sorted(asked)} wait, too, of {project_id}: {len(waiting)} in all")
        gpus = sum(run.gpus for run in now.open_runs())
        require(gpus <= self._gpus, f"open runs hold {gpus} GPUs of {self._gpus}")

    def _check_noted(self, before: Snapshot, now: Snapshot) -> None:
        """What the cluster was seen to have is waited for; only a job that never fitted fails for its size."""
        require(now.gpus_noted >= before.gpus_noted, f"{before.gpus_noted} GPUs that were there of late are forgotten")
        for job in now.jobs.values():
            if job.error_code == "insufficient_resources" and before.jobs[job.id].error_code is None:
                fits = job.gpus <= now.gpus_noted or job.attempt > 0
                require(not fits, f"{job.id} failed for its size, {now.gpus_noted} GPUs were seen: {job}")

    def _check_runs(self, before: Snapshot, now: Snapshot) -> None:
        held = [run.job_id for run in now.open_runs()]
        require(len(held) == len(set(held)), f"a job has two open runs: {held}")
        for run in now.runs.values():
            seen = before.runs.get(run.id)
            require(seen is None or seen.ended_at in (None, run.ended_at), f"{run.id} ended twice")
            require(run.attempt <= now.jobs[run.job_id].attempt, f"{run.id} is ahead of its job")


def _was_asked_for(seen: Job | None) -> bool:
    """Whether a job that waits now was not there or paused: no quota keeps out one that had to make room."""
    return seen is None or seen.status == "paused"


def require(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantBroken(what)
