"""Service accounts under requests at once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from itertools import count

import pytest

from schemas.ids import KeyId
from schemas.organization import (
    CreateServiceAccountKeyRequest,
    CreateServiceAccountRequest,
    ServiceAccountDeleted,
)
from service.api_keys import hash_api_key
from service.clock import utc_now
from service.db.engine import Database
from service.db.projects import ProjectRepository
from service.organization.organization import Organization
from service.organization.service_accounts import create_key, create_service_account, delete_service_account
from tests.postgres import PostgresDatabases, wait_until_held_up
from tests.unit.service.db.rows import add_project


@pytest.fixture
def organization(postgres: PostgresDatabases) -> Iterator[Organization]:
    """Over PostgreSQL, which runs writers beside each other."""
    with closing(Database(postgres.new_url())) as database:
        yield Organization(database, utc_now, KeyId("key_1"))


@pytest.mark.slow  # PostgreSQL
def test_a_key_made_while_its_account_is_deleted_opens_nothing(organization: Organization) -> None:
    database, project_id = organization.database, add_project(organization.database)
    request = CreateServiceAccountRequest(name="ci", create_service_account_only=True)
    account = create_service_account(organization, project_id, request, once_per=None)
    asked = count(1)
    deletes: list[Future[ServiceAccountDeleted]] = []

    def delete_meanwhile() -> datetime:
        """The time that a key is made, and then that of its audit entry: the account has been found by then."""
        if next(asked) == 2:
            deletes.append(pool.submit(delete_service_account, organization, project_id, account.id))
            wait_until_held_up(database, deletes[0])
        return utc_now()

    with ThreadPoolExecutor(1) as pool:
        interrupted = Organization(database, delete_meanwhile, organization.actor)
        key = create_key(interrupted, project_id, account.id, CreateServiceAccountKeyRequest(), once_per=None)
        assert deletes[0].result().deleted
    with database.read() as session:
        assert ProjectRepository(session).find_open_keys([hash_api_key(key.value)], now=utc_now()) == {}
