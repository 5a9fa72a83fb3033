"""Stop jobs of lower priority for a waiting one of their own project, if that gives it the room that it lacks.

A stopped one goes back to the queue at once; its run leaves a checkpoint, as for a pause, and only then is there room.
Until then, and a little longer, the waiting job goes before all others: the room was its own project's.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId
from service.backends.backend import Capacity
from service.db.events import EventRepository, NewEvent
from service.db.preemption import Candidate, PreemptionRepository
from service.db.projects import ProjectRepository
from service.db.queue import QueueRepository
from service.db.tables import JobRow
from service.dispatcher.requirements import Requirements
from service.dispatcher.room import Shortage, shortage_of
from service.jobs.lifecycle import advance

REST = timedelta(minutes=10)
"""For how long a job that was stopped for another runs undisturbed once it goes on, and how soon a job that had others
stopped in vain may try again."""


def preempt_for(session: Session, job: JobRow, needed: Requirements, capacity: Capacity, *, now: datetime) -> bool:
    """Have jobs stopped so that this one can run.

    False: that is no use, or room is coming already, or somebody is at work on one of them; the next look may do it.
    """
    if job.preempting_since is not None and now - job.preempting_since < REST:
        return False
    preemption = PreemptionRepository(session)
    candidates = preemption.list_candidates(ProjectId(job.project_id), below=job.priority, rested_since=now - REST)
    if not candidates:
        return False
    shortage = _shortage(session, job, needed, capacity)
    if shortage.is_none:
        return False
    chosen = choose_candidates(candidates, shortage)
    if not chosen or not preemption.hold(chosen):
        return False
    for candidate in chosen:
        _stop(session, preemption, candidate, job, now=now)
    preemption.note_preempting(JobId(job.id), now=now)
    return True


def choose_candidates(candidates: Sequence[Candidate], shortage: Shortage) -> list[Candidate]:
    """The first ones that make up for the shortage together, without those that the later ones make needless."""
    chosen: list[Candidate] = []
    for candidate in candidates:
        left = shortage.left_after(chosen)
        if left.is_none:
            break
        if left.is_eased_by(candidate):
            chosen.append(candidate)
    if not shortage.left_after(chosen).is_none:
        return []
    for candidate in reversed(chosen):
        others = [other for other in chosen if other is not candidate]
        if shortage.left_after(others).is_none:
            chosen = others
    return chosen


def _shortage(session: Session, job: JobRow, needed: Requirements, capacity: Capacity) -> Shortage:
    """Of the cluster's room and of the project's quotas together."""
    project_id = ProjectId(job.project_id)
    project, queue = ProjectRepository(session).get(project_id), QueueRepository(session)
    in_cluster = shortage_of(needed, queue.count_staying(), capacity)
    jobs, gpus = 0, in_cluster.gpus
    if project.max_running_jobs is not None:
        jobs = queue.count_running(project_id) + 1 - project.max_running_jobs
    if project.max_gpus is not None and needed.gpus:
        gpus = max(gpus, queue.count_staying(project_id).gpus + needed.gpus - project.max_gpus)
    return Shortage(jobs, gpus, in_cluster.cpu_runs)


def _stop(
    session: Session, preemption: PreemptionRepository, candidate: Candidate, job: JobRow, *, now: datetime
) -> None:
    queued = advance("running", "queued")
    if not preemption.put_back(candidate, for_job=JobId(job.id), status=queued, now=now):
        return
    priorities = f"priority {job.priority} over {candidate.priority}"
    told = f"The job makes room for {job.id} ({priorities}); it goes on from its checkpoint when there is room again"
    made_room = f"Job {candidate.job_id} is stopped to make room for this one ({priorities})"
    events = EventRepository(session)
    events.append(candidate.job_id, [NewEvent(f"run:{candidate.run_id}:preempted", now, "info", told)])
    events.append(JobId(job.id), [NewEvent(f"preempts:{candidate.run_id}", now, "info", made_room)])
