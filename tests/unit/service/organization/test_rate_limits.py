"""Rate limits under requests at once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime

import pytest

from schemas.ids import KeyId
from schemas.organization import ProjectRateLimit, UpdateRateLimitRequest
from service.clock import utc_now
from service.db.engine import Database
from service.organization.organization import Organization
from service.organization.rate_limits import update_rate_limit
from tests.postgres import PostgresDatabases, wait_until_held_up
from tests.unit.service.db.rows import add_project


@pytest.fixture
def database(postgres: PostgresDatabases) -> Iterator[Database]:
    """PostgreSQL, which runs writers beside each other."""
    with closing(Database(postgres.new_url())) as opened:
        yield opened


@pytest.mark.slow  # PostgreSQL
def test_two_first_updates_at_once_both_count(database: Database) -> None:
    project_id, others = add_project(database), list[Future[ProjectRateLimit]]()

    def update(organization: Organization, **limits: int) -> ProjectRateLimit:
        return update_rate_limit(organization, project_id, "rl-m", UpdateRateLimitRequest(**limits), ["m"])

    def update_meanwhile() -> datetime:
        """The time of the audit entry: the row has been written by then."""
        others.append(pool.submit(update, Organization(database, utc_now, KeyId("key_2")), max_requests_per_1_day=2))
        wait_until_held_up(database, others[0])
        return utc_now()

    with ThreadPoolExecutor(1) as pool:
        update(Organization(database, update_meanwhile, KeyId("key_1")), max_requests_per_1_minute=1)
        after = others[0].result()
    assert (after.max_requests_per_1_minute, after.max_requests_per_1_day) == (1, 2)
