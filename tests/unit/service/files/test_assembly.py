"""Putting an upload together through kills, outages and rivals: one file or none, and every repeat comes to an end."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from schemas.ids import PartId, ProjectId, UploadId
from schemas.uploads import CompleteUploadRequest, CreateUploadRequest, UploadObject
from service.clock import utc_now
from service.db.engine import Database
from service.db.projects import ProjectRepository
from service.db.tables import FileRow, ProjectRow
from service.errors import Unavailable
from service.files import uploads
from service.files.assembly import Completion, complete_upload
from service.files.uploads import UploadEnded
from service.identifiers import new_part_id
from service.storage.folder import FolderStore
from service.storage.object_store import ObjectStore, StoredObject
from tests.sqlite import new_sqlite_url
from tests.stored_parts import store_part

PROJECT = ProjectId("proj_1")
PIECES = (b"one", b"two", b"three")
REQUEST = CreateUploadRequest(bytes=11, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")


class Killed(BaseException):
    """As sudden as a SIGKILL: no handler of ours runs for it but `finally`."""


class BreakingStore(FolderStore):
    """Fails where it is told to."""

    kill_after_write = kill_at_delete = False
    refuse_write = False

    def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        if self.refuse_write:
            raise OSError(28, "No space left on device")
        stored = super().write(key, chunks)
        if self.kill_after_write:
            raise Killed
        return stored

    def delete(self, key: str) -> None:
        if self.kill_at_delete:
            raise Killed
        super().delete(key)


class Scene:
    def __init__(self, folder: Path) -> None:
        self.database = Database(new_sqlite_url(folder / "db.sqlite3"))
        self.store = BreakingStore(folder / "objects")
        with self.database.write() as session:
            ProjectRepository(session).add(ProjectRow(id=PROJECT, name="default", created_at=utc_now()))
        created = uploads.create_upload(PROJECT, REQUEST, once_per=None, database=self.database, clock=utc_now)
        self.upload_id = UploadId(created.id)
        self.part_ids = [self.add_part(piece) for piece in PIECES]

    def add_part(self, piece: bytes) -> PartId:
        part_id = new_part_id()
        store_part(PROJECT, self.upload_id, part_id, piece, database=self.database, store=self.store)
        return part_id

    def complete(self, *, store: ObjectStore | None = None, part_ids: list[PartId] | None = None) -> UploadObject:
        request = CompleteUploadRequest(part_ids=[*(part_ids or self.part_ids)])
        completion = Completion(PROJECT, self.upload_id, request, None)
        return complete_upload(completion, database=self.database, store=store or self.store, clock=utc_now)

    def file_ids(self) -> list[str]:
        with self.database.read() as session:
            return [row.id for row in session.query(FileRow)]

    def content(self, upload: UploadObject) -> bytes:
        assert upload.file is not None
        return self.store.read(f"files/{upload.file.id}")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    built = Scene(tmp_path)
    yield built
    built.database.close()


def test_a_kill_between_bytes_and_rows_leaves_the_upload_to_be_completed_again(scene: Scene) -> None:
    scene.store.kill_after_write = True
    with pytest.raises(Killed):
        scene.complete()
    scene.store.kill_after_write = False
    assert scene.file_ids() == []
    again = scene.complete()
    assert scene.content(again) == b"onetwothree"
    assert again.file is not None
    assert scene.file_ids() == [again.file.id]


def test_a_kill_after_the_rows_changes_nothing_of_the_answer(scene: Scene) -> None:
    scene.store.kill_at_delete = True
    with pytest.raises(Killed):
        scene.complete()
    scene.store.kill_at_delete = False
    [file_id] = scene.file_ids()
    again = scene.complete()
    assert again.file is not None
    assert again.file.id == file_id
    assert scene.content(again) == b"onetwothree"


def test_a_full_store_is_told_and_the_upload_stays(scene: Scene) -> None:
    scene.store.refuse_write = True
    with pytest.raises(Unavailable, match="No space left"):
        scene.complete()
    scene.store.refuse_write = False
    assert scene.store.list_keys("files/") == []
    assert scene.content(scene.complete()) == b"onetwothree"


class RivalStore(FolderStore):
    """Lets another request come first, once, while the first part is read."""

    def __init__(self, root: Path, rival: "Rival") -> None:
        super().__init__(root)
        self._rival: Rival | None = rival

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        rival, self._rival = self._rival, None
        if rival:
            rival()
        return super().stream(key, start=start, end=end)


class Rival:
    def __init__(self, scene: Scene, *, cancels: bool) -> None:
        self._scene = scene
        self._cancels = cancels
        self.answer: UploadObject | None = None

    def __call__(self) -> None:
        scene = self._scene
        if self._cancels:
            uploads.cancel_upload(PROJECT, scene.upload_id, database=scene.database, store=scene.store, clock=utc_now)
        else:
            self.answer = scene.complete()


def test_the_slower_of_two_gets_the_fasters_file(scene: Scene, tmp_path: Path) -> None:
    rival = Rival(scene, cancels=False)
    assert scene.complete(store=RivalStore(tmp_path / "objects", rival)) == rival.answer
    assert len(scene.file_ids()) == 1
    assert scene.store.list_keys("") == [f"files/{scene.file_ids()[0]}"]


def test_a_cancel_meanwhile_wins(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(UploadEnded, match="is cancelled"):
        scene.complete(store=RivalStore(tmp_path / "objects", Rival(scene, cancels=True)))
    assert scene.file_ids() == []
    assert scene.store.list_keys("") == []


def test_another_order_after_the_end_is_refused(scene: Scene) -> None:
    scene.complete()
    with pytest.raises(UploadEnded, match="is completed"):
        scene.complete(part_ids=scene.part_ids[::-1])
