"""Created once for a key."""

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from schemas.files import FileDeleted
from schemas.ids import ProjectId
from service.db.engine import Database
from service.db.once import IdempotencyKeyReused, OncePer, create_once
from tests.unit.service.db.rows import NOW


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _session: Session) -> FileDeleted:
        self.calls += 1
        return FileDeleted(id=f"file-{self.calls}", object="file", deleted=True)


def once(database: Database, key: OncePer | None, create: Callable[[Session], FileDeleted]) -> FileDeleted:
    return create_once(database, key, create, answer_type=FileDeleted, now=NOW)


def test_the_first_answer_is_told_again(database: Database, project_id: ProjectId) -> None:
    key, create = OncePer(project_id, "k", "hash"), Counter()
    assert once(database, key, create) == once(database, key, create)
    assert create.calls == 1


def test_without_a_key_each_creates(database: Database) -> None:
    create = Counter()
    assert once(database, None, create) != once(database, None, create)


def test_another_request_under_the_key_is_refused(database: Database, project_id: ProjectId) -> None:
    create = Counter()
    once(database, OncePer(project_id, "k", "hash"), create)
    with pytest.raises(IdempotencyKeyReused):
        once(database, OncePer(project_id, "k", "other"), create)
    assert create.calls == 1


def test_an_error_is_not_kept(database: Database, project_id: ProjectId) -> None:
    key = OncePer(project_id, "k", "hash")

    def fail(_session: Session) -> FileDeleted:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once(database, key, fail)
    assert once(database, key, Counter()).id == "file-1"
