"""Uploads under requests at once: each ends once, and nothing is added to one that has ended."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest

from schemas.ids import ProjectId, UploadId
from schemas.uploads import CompleteUploadRequest, CreateUploadRequest, UploadObject
from service.clock import utc_now
from service.db.engine import Database
from service.db.tables import FileRow, UploadPartRow, UploadRow
from service.db.uploads import UploadRepository
from service.files import uploads
from service.files.assembly import Completion, complete_upload
from service.files.uploads import UploadEnded
from service.identifiers import new_part_id
from service.storage.folder import FolderStore
from tests.stored_parts import store_part

AT_ONCE = 6
REQUEST = CreateUploadRequest(bytes=6, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")


class OneUpload:
    def __init__(self, database: Database, project_id: ProjectId, store: FolderStore) -> None:
        self.database, self.project_id, self.store = database, project_id, store
        created = uploads.create_upload(project_id, REQUEST, once_per=None, database=database, clock=utc_now)
        self.id = UploadId(created.id)

    def add_part(self) -> str:
        part_id = new_part_id()
        store_part(self.project_id, self.id, part_id, b"abc", database=self.database, store=self.store)
        return part_id

    def complete(self, part_ids: list[str]) -> UploadObject:
        completion = Completion(self.project_id, self.id, CompleteUploadRequest(part_ids=part_ids), None)
        return complete_upload(completion, database=self.database, store=self.store, clock=utc_now)

    def cancel(self) -> UploadObject:
        return uploads.cancel_upload(self.project_id, self.id, database=self.database, store=self.store, clock=utc_now)

    def rows_and_keys(self) -> tuple[int, int, list[str]]:
        """Files, parts, objects."""
        with self.database.read() as session:
            files, parts = session.query(FileRow).count(), session.query(UploadPartRow).count()
        return files, parts, self.store.list_keys("")


@pytest.fixture
def upload(database: Database, project_id: ProjectId, tmp_path: Path) -> OneUpload:
    return OneUpload(database, project_id, FolderStore(tmp_path / "objects"))


def at_once(acts: list[Callable[[], object]]) -> list[object]:
    """Begin all together; what one raises is its result."""
    barrier = Barrier(len(acts))

    def wait_and_act(act: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return act()
        except UploadEnded as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(wait_and_act, acts))


def test_completes_at_once_make_one_file_and_give_one_answer(upload: OneUpload) -> None:
    part_ids = [upload.add_part() for _ in range(2)]
    answers = at_once([lambda: upload.complete(part_ids) for _ in range(AT_ONCE)])
    assert all(answer == answers[0] for answer in answers)
    files, parts, keys = upload.rows_and_keys()
    assert (files, parts, len(keys)) == (1, 0, 1)


def test_completes_of_different_orders_at_once_have_one_winner(upload: OneUpload) -> None:
    one, two = upload.add_part(), upload.add_part()
    answers = at_once([lambda: upload.complete([one, two]), lambda: upload.complete([two, one])])
    assert sorted(type(answer).__name__ for answer in answers) == ["UploadEnded", "UploadObject"]
    files, parts, keys = upload.rows_and_keys()
    assert (files, parts, len(keys)) == (1, 0, 1)


def test_a_complete_and_a_cancel_at_once_have_one_winner(upload: OneUpload) -> None:
    part_ids = [upload.add_part() for _ in range(2)]
    answers = at_once([lambda: upload.complete(part_ids), upload.cancel])
    [won] = [answer for answer in answers if isinstance(answer, UploadObject)]
    files, parts, keys = upload.rows_and_keys()
    assert (files, parts, len(keys)) == ((1, 0, 1) if won.status == "completed" else (0, 0, 0))


def test_no_part_slips_into_an_upload_that_is_being_cancelled(upload: OneUpload) -> None:
    at_once([*[upload.add_part] * AT_ONCE, upload.cancel])
    assert upload.rows_and_keys() == (0, 0, [])


def test_of_the_uploads_that_are_old_those_that_have_ended_go_and_a_batch_at_once(
    upload: OneUpload, database: Database, project_id: ProjectId
) -> None:
    others = [OneUpload(database, project_id, upload.store) for _ in range(3)]
    upload.add_part()
    for other in others:
        other.add_part()
        other.cancel()
    much_later = utc_now() + timedelta(days=1)
    removed = []
    for before in (utc_now(), much_later, much_later, much_later):
        with database.write() as session:
            removed.append(UploadRepository(session).delete_ended(before=before, limit=2))
    assert removed == [0, 2, 1, 0]
    with database.read() as session:
        assert [row.id for row in session.query(UploadRow)] == [upload.id]


def test_parts_are_removed_of_uploads_that_have_ended_and_a_batch_at_once(
    upload: OneUpload, database: Database, project_id: ProjectId
) -> None:
    pending = OneUpload(database, project_id, upload.store)
    kept, removed = pending.add_part(), []
    for _ in range(3):
        upload.add_part()
    with database.write() as session:
        UploadRepository(session).close(upload.id, to="expired")
        assert UploadRepository(session).delete_ended(before=utc_now() + timedelta(days=1), limit=9) == 0
    for _ in range(3):
        with database.write() as session:
            removed.append(len(UploadRepository(session).remove_parts_of_ended(limit=2)))
    assert removed == [2, 1, 0]
    with database.read() as session:
        assert [part.id for part in session.query(UploadPartRow)] == [kept]
