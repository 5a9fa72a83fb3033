"""How many jobs a project may create on a base model in a minute and in a day, counted in the table of jobs itself."""

import math
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.projects import ProjectRepository
from service.db.rate_limits import RateLimitRepository
from service.errors import TooManyRequests

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def check_job_rate(session: Session, project_id: ProjectId, base_model: str, *, now: datetime) -> None:
    """Raises: TooManyRequests."""
    limits = RateLimitRepository(session)
    row = limits.find(project_id, base_model)
    if row is None:
        return
    ProjectRepository(session).lock(project_id)  # two requests at once must not both take the last place
    for most, window, noun in (
        (row.max_requests_per_1_minute, MINUTE, "minute"),
        (row.max_requests_per_1_day, DAY, "day"),
    ):
        if most is None:
            continue
        created = limits.newest_jobs(project_id, base_model, since=now - window, limit=most)
        if len(created) == most:
            raise TooManyRequests(
                f"The project may create {most} job(s) a {noun} on {base_model} and has created as many; try again "
                "later, or ask the operator for more",
                param="model",
                retry_after_s=max(1, math.ceil((created[-1] + window - now).total_seconds())),
            )
