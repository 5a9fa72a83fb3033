"""Bytes and their rows where the database or the store fails between the two: never a row without bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from schemas.files import FileObject
from schemas.ids import FileId, PartId, ProjectId, UploadId
from schemas.run_layout import file_key
from schemas.uploads import CompleteUploadRequest, CreateUploadRequest, UploadObject, UploadPart
from service.clock import utc_now
from service.db.engine import Database
from service.db.projects import ProjectRepository
from service.db.tables import ProjectRow
from service.files import assembly, catalog, uploads
from service.files.receiving import ReceivedUpload
from service.files.stored_bytes import StoredBytesExceeded
from service.files.uploads import UploadEnded
from service.identifiers import new_file_id, new_part_id
from service.storage.folder import FolderStore
from service.storage.object_store import StoreError
from tests.sqlite import new_sqlite_url
from tests.stored_parts import store_part

PROJECT = ProjectId("proj_1")
REQUEST = CreateUploadRequest(bytes=3, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")
CONTENT = b"abc"


class FailingDatabase(Database):
    """Its connection may break at a transaction's end, before the commit or after it."""

    loses_commits = loses_answers = False

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            if self.loses_commits:
                raise OperationalError("COMMIT", None, ConnectionError())
        if self.loses_answers:
            raise OperationalError("COMMIT", None, ConnectionError())


class FailingStore(FolderStore):
    keeps_all = False

    def delete(self, key: str) -> None:
        if self.keeps_all:
            raise StoreError(5, "the object store does not answer", remedy="-")
        super().delete(key)


class House:
    def __init__(self, folder: Path) -> None:
        self.database = FailingDatabase(new_sqlite_url(folder / "db.sqlite3"))
        self.store = FailingStore(folder / "objects")
        with self.database.write() as session:
            ProjectRepository(session).add(ProjectRow(id=PROJECT, name="default", created_at=utc_now()))

    def add_file(self, file_id: FileId) -> FileObject:
        stored = self.store.write(file_key(file_id), [CONTENT])
        upload = ReceivedUpload("a.jsonl", "fine-tune", stored.size_bytes, stored.sha256, None, stored.key)
        return catalog.add_file(
            PROJECT, file_id, upload, once_per=None, database=self.database, store=self.store, clock=utc_now
        )

    def begin_upload(self) -> UploadId:
        created = uploads.create_upload(PROJECT, REQUEST, once_per=None, database=self.database, clock=utc_now)
        return UploadId(created.id)

    def add_part(self, upload_id: UploadId, part_id: PartId) -> UploadPart:
        return store_part(PROJECT, upload_id, part_id, CONTENT, database=self.database, store=self.store)

    def complete(self, upload_id: UploadId, part_id: PartId) -> UploadObject:
        completion = assembly.Completion(PROJECT, upload_id, CompleteUploadRequest(part_ids=[part_id]), None)
        return assembly.complete_upload(completion, database=self.database, store=self.store, clock=utc_now)

    def cancel(self, upload_id: UploadId) -> UploadObject:
        return uploads.cancel_upload(PROJECT, upload_id, database=self.database, store=self.store, clock=utc_now)

    def download(self, file_id: str) -> bytes:
        found = catalog.open_download(
            PROJECT, file_id, range_header=None, database=self.database, store=self.store, clock=utc_now
        )
        return b"".join(found.chunks)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path)
    yield built
    built.database.close()


@contextmanager
def lost_answer(database: FailingDatabase) -> Iterator[None]:
    database.loses_answers = True
    with pytest.raises(OperationalError):
        yield
    database.loses_answers = False


def test_a_file_whose_commit_was_not_answered_has_its_bytes(house: House) -> None:
    file_id = new_file_id()
    with lost_answer(house.database):
        house.add_file(file_id)
    assert house.download(file_id) == CONTENT


def test_an_upload_whose_commits_were_not_answered_becomes_a_file_with_its_bytes(house: House) -> None:
    upload_id, part_id = house.begin_upload(), new_part_id()
    with lost_answer(house.database):
        house.add_part(upload_id, part_id)
    with lost_answer(house.database):
        house.complete(upload_id, part_id)
    again = house.complete(upload_id, part_id)
    assert again.file is not None
    assert house.download(again.file.id) == CONTENT


def test_bytes_of_a_commit_that_failed_are_left_to_retention(house: House) -> None:
    house.database.loses_commits = True
    with pytest.raises(OperationalError):
        house.add_file(new_file_id())
    assert len(house.store.list_keys("files/")) == 1


def test_bytes_of_a_row_that_was_refused_go_at_once(house: House) -> None:
    with house.database.write() as session:
        ProjectRepository(session).get(PROJECT).max_stored_bytes = 0
    with pytest.raises(StoredBytesExceeded):
        house.add_file(new_file_id())
    assert house.store.list_keys("") == []


def test_a_refusal_is_told_though_the_store_fails_to_delete(house: House) -> None:
    upload_id = house.begin_upload()
    house.cancel(upload_id)
    house.store.keeps_all = True
    with pytest.raises(UploadEnded):
        house.add_part(upload_id, new_part_id())


def test_a_delete_is_done_though_the_store_fails_to_delete(house: House) -> None:
    file_id, upload_id = new_file_id(), house.begin_upload()
    house.add_file(file_id)
    house.add_part(upload_id, new_part_id())
    house.store.keeps_all = True
    assert house.cancel(upload_id).status == "cancelled"
    assert catalog.delete_file(PROJECT, file_id, database=house.database, store=house.store, clock=utc_now).deleted
