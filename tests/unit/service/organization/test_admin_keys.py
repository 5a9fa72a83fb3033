"""Admin keys that revoke each other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.ids import KeyId
from schemas.organization import CreateAdminKeyRequest
from service.clock import utc_now
from service.db.admin_keys import AdminKeyRepository
from service.db.engine import Database
from service.errors import Unauthorized
from service.organization.admin_keys import admin_key_row, create_admin_key, list_admin_keys, revoke_admin_key
from service.organization.organization import Organization
from tests.sqlite import new_sqlite_url


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Organization]:
    database = Database(new_sqlite_url(tmp_path / "dpo.sqlite3"))
    row = admin_key_row("first", "sk-admin-dpo-first", now=utc_now())
    with database.write() as session:
        AdminKeyRepository(session).add(row)
    yield Organization(database, utc_now, KeyId(row.id))
    database.close()


def test_of_two_that_revoke_each_other_at_once_one_is_left(first: Organization) -> None:
    """Both requests have passed the door before either key is revoked."""
    made = create_admin_key(first, CreateAdminKeyRequest(name="second"), once_per=None)
    second = Organization(first.database, utc_now, KeyId(made.id))
    revoke_admin_key(first, second.actor)
    with pytest.raises(Unauthorized, match="was revoked"):
        revoke_admin_key(second, first.actor)
    assert [key.id for key in list_admin_keys(first, after=None, limit=9, newest_first=True).data] == [first.actor]
