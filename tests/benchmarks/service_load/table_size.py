"""What a claim, a page and a poll cost, on a table of any size: to be the same on all of them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2

from schemas.ids import JobId
from service.db.engine import Database
from service.db.tables import JobRow
from service.dispatcher.claim import claim_jobs
from service.storage.folder import FolderStore
from tests.benchmarks.service_load.populate import KEY, put_claimed_jobs_back
from tests.benchmarks.service_load.simulated_cluster import SimulatedCluster, dispatch_context

REPEATS = 200
CLAIM_REPEATS = 30
PAGE_SIZE = 20


@dataclass(frozen=True, slots=True)
class Costs:
    """Medians, seconds."""

    claim_s: float
    """Of one job: some are claimed at once."""
    first_page_s: float
    last_page_s: float
    """The oldest jobs of the project."""
    poll_s: float


def measure_costs(database: Database, folder: Path, url: str, job_id: JobId) -> Costs:
    with httpx2.Client(base_url=f"{url}/v1/fine_tuning", headers={"Authorization": f"Bearer {KEY}"}) as http:
        oldest = _oldest(database, job_id)
        return Costs(
            claim_s=_claim_cost(database, folder),
            first_page_s=_median(lambda: _get(http, f"/jobs?limit={PAGE_SIZE}"), REPEATS),
            last_page_s=_median(lambda: _get(http, f"/jobs?limit={PAGE_SIZE}&after={oldest}"), REPEATS),
            poll_s=_median(lambda: _get(http, f"/jobs/{job_id}"), REPEATS),
        )


def _claim_cost(database: Database, folder: Path) -> float:
    context = dispatch_context(database, FolderStore(folder), folder, SimulatedCluster())
    costs = []
    for _ in range(CLAIM_REPEATS):
        began = time.perf_counter()
        claim_jobs(context)
        seconds = time.perf_counter() - began
        costs.append(seconds / put_claimed_jobs_back(database))
    return statistics.median(costs)


def _oldest(database: Database, job_id: JobId) -> str:
    """The one after which only a page of older ones is left; the newest where there are no more than that."""
    with database.read() as session:
        project_id = session.get_one(JobRow, job_id).project_id
        ids = session.query(JobRow.id).filter_by(project_id=project_id).order_by(JobRow.id).limit(PAGE_SIZE + 1)
        return str(ids.all()[-1][0])


def _median(step: Callable[[], None], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _get(http: httpx2.Client, path: str) -> None:
    assert http.get(path).status_code == 200
