"""How many jobs of each project wait and run: what a scrape asks, on the indexes of what is at work alone.

The statuses are written as literals, as in `service.db.queue`: a partial index serves no bound parameter.
"""

from dataclasses import dataclass

from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from service.db.tables import JobRow


@dataclass(frozen=True, slots=True)
class ProjectFigures:
    project_id: str
    status: str
    jobs: int
    oldest_id: str | None
    """Of those that wait; ids carry the time."""


def count_waiting(session: Session) -> list[ProjectFigures]:
    """By project and status: being validated, or queued."""
    waiting = JobRow.status.in_([literal_column("'validating_files'"), literal_column("'queued'")])
    query = select(JobRow.project_id, JobRow.status, func.count(), func.min(JobRow.id)).where(waiting)
    rows = session.execute(query.group_by(JobRow.project_id, JobRow.status))
    return [ProjectFigures(project_id, status, jobs, oldest) for project_id, status, jobs, oldest in rows]


def count_running(session: Session) -> list[ProjectFigures]:
    """By project."""
    query = select(JobRow.project_id, func.count()).where(JobRow.status == literal_column("'running'"))
    rows = session.execute(query.group_by(JobRow.project_id))
    return [ProjectFigures(project_id, "running", jobs, None) for project_id, jobs in rows]
