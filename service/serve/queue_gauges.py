"""Gauges that are asked of the database at each scrape: what waits and runs, by project, and which webhooks are due.

Every process tells the same figures, so that they are told as long as one of them lives: take their `max`, not their
`sum`. While the database is away there are none but `dpo_database_up`.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from service.clock import Clock
from service.db.engine import Database
from service.db.queue_figures import ProjectFigures, count_running, count_waiting
from service.db.webhooks import Backlog, DeliveryRepository
from service.identifiers import made_at

MAX_PROJECTS = 100
"""Told by name, those with the most jobs; the others are summed up as one."""
OTHERS = "others"


class QueueGauges(Collector):
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask the database what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        now = self._clock()
        try:
            with self._database.read() as session:
                figures = [*count_waiting(session), *count_running(session)]
                backlog = DeliveryRepository(session).backlog(now=now)
        except SQLAlchemyError:
            yield _gauge("dpo_database_up", "Whether the database answered this scrape.", 0)
            return
        yield _gauge("dpo_database_up", "Whether the database answered this scrape.", 1)
        yield from _queue_gauges(figures, now=now)
        yield from _backlog_gauges(backlog, now=now)


def _queue_gauges(figures: list[ProjectFigures], *, now: datetime) -> Iterator[Metric]:
    shown = _largest_projects(figures)
    jobs: dict[tuple[str, str], int] = {}
    oldest_s: dict[tuple[str, str], float] = {}
    for each in figures:
        labels = (each.project_id if each.project_id in shown else OTHERS, each.status)
        jobs[labels] = jobs.get(labels, 0) + each.jobs
        since = made_at(each.oldest_id) if each.oldest_id else None
        if since is not None:
            oldest_s[labels] = max(oldest_s.get(labels, 0.0), (now - since).total_seconds())
    names = ("project", "status")
    depth = GaugeMetricFamily("dpo_queue_jobs", "Jobs that wait or run, by project.", labels=names)
    age = GaugeMetricFamily("dpo_queue_oldest_seconds", "Since the oldest of these was created.", labels=names)
    for labels, count in jobs.items():
        depth.add_metric(labels, count)
    for labels, seconds in oldest_s.items():
        age.add_metric(labels, seconds)
    yield depth
    yield age


def _largest_projects(figures: list[ProjectFigures]) -> set[str]:
    sizes: dict[str, int] = {}
    for each in figures:
        sizes[each.project_id] = sizes.get(each.project_id, 0) + each.jobs
    return set(sorted(sizes, key=lambda project: (-sizes[project], project))[:MAX_PROJECTS])


def _backlog_gauges(backlog: Backlog, *, now: datetime) -> Iterator[Metric]:
    waits_s = 0.0 if backlog.since is None else (now - backlog.since).total_seconds()
    yield _gauge("dpo_webhook_backlog", "Webhooks that are due and not yet sent.", backlog.due)
    yield _gauge("dpo_webhook_backlog_oldest_seconds", "For how long one of them has been due.", waits_s)


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, value=value)
