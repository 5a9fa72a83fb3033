"""What has expired and what is orphaned goes; everything else stays."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from schemas.ids import FileId, PartId, ProjectId, UploadId
from schemas.run_layout import file_key, part_key
from schemas.uploads import CompleteUploadRequest, CreateUploadRequest
from service.clock import utc_now
from service.db.engine import Database
from service.db.idempotency import ORGANIZATION, IdempotencyKeyOwner
from service.db.once import OncePer
from service.db.projects import ProjectRepository
from service.db.tables import FileRow, ProjectRow
from service.files import catalog, uploads
from service.files.assembly import Completion, complete_upload
from service.files.receiving import ReceivedUpload
from service.files.uploads import PARTS_REMOVED_AT_ONCE, UploadEnded, UploadNotFound
from service.identifiers import made_at, new_file_id, new_part_id
from service.retention.sweeper import Sweeper
from service.storage.folder import FolderStore
from service.storage.incoming import SUFFIX
from service.storage.object_keys import RESERVED_SEGMENT
from tests.sqlite import new_sqlite_url
from tests.stored_parts import store_part

PROJECT = ProjectId("proj_1")
REQUEST = CreateUploadRequest(bytes=2, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")


class House:
    """A database and a store with a clock that can be moved, and the sweeper over them."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(new_sqlite_url(folder / "db.sqlite3"))
        self.store = FolderStore(folder / "objects")
        self.now = utc_now()
        self.sweeper = Sweeper(self.database, self.store, self.clock)
        with self.database.write() as session:
            ProjectRepository(session).add(ProjectRow(id=PROJECT, name="default", created_at=self.now))

    def clock(self) -> datetime:
        return self.now

    def sweep_after(self, **time: int) -> None:
        self.now += timedelta(**time)
        self.sweeper.sweep_due()

    def keys(self) -> set[str]:
        return set(self.store.list_keys(""))

    def files(self) -> set[str]:
        """Keys of their bytes."""
        return set(self.store.list_keys("files/"))

    def add_file(self, *, expires_after_s: int | None) -> FileId:
        file_id = new_file_id()
        stored = self.store.write(file_key(file_id), [b"{}"])
        upload = ReceivedUpload("a.jsonl", "fine-tune", 2, stored.sha256, expires_after_s, stored.key)
        catalog.add_file(
            PROJECT, file_id, upload, once_per=None, database=self.database, store=self.store, clock=self.clock
        )
        return file_id

    def begin_upload(self, *, size_bytes: int = 2) -> UploadId:
        request = REQUEST.model_copy(update={"bytes": size_bytes})
        created = uploads.create_upload(PROJECT, request, once_per=None, database=self.database, clock=self.clock)
        return UploadId(created.id)

    def end_upload(self, upload_id: UploadId, part_ids: list[PartId], *, to: str) -> None:
        if to == "cancelled":
            uploads.cancel_upload(PROJECT, upload_id, database=self.database, store=self.store, clock=self.clock)
            return
        completion = Completion(PROJECT, upload_id, CompleteUploadRequest(part_ids=[*part_ids]), None)
        complete_upload(completion, database=self.database, store=self.store, clock=self.clock)

    def add_part(self, upload_id: UploadId) -> PartId:
        part_id = new_part_id()
        store_part(PROJECT, upload_id, part_id, b"{}", database=self.database, store=self.store, clock=self.clock)
        return part_id


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path)
    yield built
    built.database.close()


def test_an_expired_file_goes_with_its_bytes_and_the_others_stay(house: House) -> None:
    short, kept = house.add_file(expires_after_s=3_600), house.add_file(expires_after_s=None)
    house.sweep_after(minutes=59)
    assert house.keys() == {file_key(short), file_key(kept)}
    house.sweep_after(minutes=1)
    assert house.keys() == {file_key(kept)}
    with house.database.read() as session:
        assert [row.id for row in session.query(FileRow)] == [kept]


def test_an_expired_upload_is_closed_and_its_parts_go(house: House) -> None:
    upload_id = house.begin_upload()
    part_id = house.add_part(upload_id)
    house.sweep_after(minutes=90)
    assert house.keys() == {part_key(upload_id, part_id)}, "a request that completes it may still read"
    house.sweep_after(minutes=31)
    assert house.keys() == set()
    found = uploads.find_upload(PROJECT, upload_id, database=house.database, clock=house.clock)
    assert found.status == "expired"
    with pytest.raises(UploadEnded):
        house.add_part(upload_id)
    assert house.keys() == set()


@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_of_very_many_parts_the_request_deletes_a_hundred_and_the_sweeper_the_others(house: House, end: str) -> None:
    upload_id, parts = house.begin_upload(size_bytes=500), 250
    part_ids = [house.add_part(upload_id) for _ in range(parts)]
    house.end_upload(upload_id, part_ids, to=end)
    assert len(house.keys() - house.files()) == parts - PARTS_REMOVED_AT_ONCE
    while house.sweeper.sweep_due():
        pass
    assert house.keys() == house.files()


@pytest.mark.parametrize("end", ["completed", "cancelled", "expired"])
def test_an_upload_that_has_ended_is_told_of_for_a_month(house: House, end: str) -> None:
    upload_id = house.begin_upload()
    part_id = house.add_part(upload_id)
    if end != "expired":
        house.end_upload(upload_id, [part_id], to=end)
    files = house.files()
    house.sweep_after(days=30)
    assert uploads.find_upload(PROJECT, upload_id, database=house.database, clock=house.clock).status == end
    house.sweep_after(hours=2)
    with pytest.raises(UploadNotFound):
        uploads.find_upload(PROJECT, upload_id, database=house.database, clock=house.clock)
    assert house.keys() == files, "the File is another thing"


@pytest.mark.parametrize("owner", [PROJECT, ORGANIZATION])
def test_first_answers_are_forgotten_after_a_week(house: House, owner: IdempotencyKeyOwner) -> None:
    once_per = OncePer(owner, "key", "0" * 64)
    create = partial(uploads.create_upload, PROJECT, REQUEST, once_per=once_per, database=house.database)
    first = create(clock=house.clock).id
    house.sweep_after(days=6)
    assert create(clock=house.clock).id == first
    house.sweep_after(days=1, minutes=1)
    assert create(clock=house.clock).id != first


def test_bytes_without_a_row_go_after_a_day(house: House) -> None:
    kept, upload_id = house.add_file(expires_after_s=None), house.begin_upload()
    house.store.write(file_key(new_file_id()), [b"left by a kill"])
    house.store.write(part_key(upload_id, new_part_id()), [b"left by a kill"])
    house.sweep_after(hours=23)
    assert len(house.keys()) == 3
    house.sweep_after(hours=6)
    assert house.keys() == {file_key(kept)}


def test_what_is_not_of_the_sweepers_is_left_alone(house: House) -> None:
    others = {"runs/ftjob-1/ftjob-1-1/outcome.json", "references/proj_1/x", "files/notes.txt", "filesystem/a"}
    for key in others:
        house.store.write(key, [b"x"])
    house.sweep_after(days=400)
    assert house.keys() == others


def test_a_sweep_that_fails_stops_neither_the_others_nor_its_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add_file(expires_after_s=3_600)
    upload_id = house.begin_upload()
    house.add_part(upload_id)
    with monkeypatch.context() as broken:
        broken.setattr(house.store, "delete", _refuse)
        house.sweep_after(days=1)
    assert len(house.keys()) == 2, "the rows went, the bytes are orphans now"
    house.sweep_after(days=2)
    assert house.keys() == set()


def test_a_clock_that_is_set_back_does_not_keep_the_sweeper_from_its_work(house: House) -> None:
    house.sweep_after(days=2)
    house.sweep_after(days=-2)
    house.add_file(expires_after_s=3_600)
    house.sweep_after(minutes=61)
    assert house.keys() == set()


@pytest.mark.parametrize("text", ["file-1", "notes", "file-" + "g" * 32, "file-01a212225cce42da8a9f9f32b14397da"])
def test_only_ids_of_ours_have_an_age(text: str) -> None:
    assert made_at(text) is None
    made = made_at(new_file_id())
    assert made is not None
    assert abs(made - datetime.now(UTC)) < timedelta(seconds=5)


def _refuse(_key: str) -> None:
    raise OSError("the store is away")


def test_what_a_killed_writer_left_half_written_goes(house: House, tmp_path: Path) -> None:
    half_written = tmp_path / "objects" / RESERVED_SEGMENT / f"killed{SUFFIX}"
    half_written.parent.mkdir(parents=True)
    half_written.write_bytes(b"half")

    house.sweeper.sweep_due()

    assert not half_written.exists()
