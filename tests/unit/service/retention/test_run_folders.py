"""Of an ended job's runs there stay their records and what has a name; as long as it may go on, everything."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from schemas.fine_tuning import JobStatus
from schemas.ids import FileId, JobId, ProjectId, RunId
from schemas.run_layout import (
    ADAPTER_ARCHIVE,
    EVENTS,
    METRICS_CSV,
    OUTCOME,
    REFERENCE_AT_START,
    SFT_CHECKPOINTS,
    SPEC,
    checkpoint_prefix,
    event_chunk,
    run_prefix,
)
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.runs import RunRepository
from service.db.tables import FileRow, JobRow
from service.files.catalog import delete_file
from service.identifiers import new_file_id
from service.jobs.model_catalog import delete_model
from service.retention.run_folders import KEPT, KEPT_OF_FAILED, sweep_run_folders
from service.storage.folder import FolderStore
from tests.model_rows import add_model_row
from tests.sqlite import new_sqlite_url
from tests.unit.service.db.rows import NOW, add_job, add_project, add_run

LATER = NOW + KEPT
RECORD = {SPEC, OUTCOME, event_chunk(1), event_chunk(2)}
ADAPTERS = {f"{checkpoint_prefix(step)}/adapter/adapter_model.safetensors" for step in (2, 4)}
RESULTS = {METRICS_CSV, ADAPTER_ARCHIVE}
KEPT_PATHS = RECORD | ADAPTERS | RESULTS
UNNAMED = {
    f"{checkpoint_prefix(2)}/optimizer.safetensors",
    f"{checkpoint_prefix(3)}/adapter/adapter_model.safetensors",
    f"{checkpoint_prefix(4)}/manifest.json",
    f"{checkpoint_prefix(1, under=SFT_CHECKPOINTS)}/adapter/adapter_model.safetensors",
    REFERENCE_AT_START,
    "results/adapter/adapter_config.json",
    f"results/{EVENTS}/x",
    f"{checkpoint_prefix(2)}/adapter/.adapter_model.safetensors.0a1b2c3d",
    f"{EVENTS}/.00000003.jsonl.0a1b2c3d",
}


class FailingStore(FolderStore):
    """A store that can be told what not to delete."""

    locked = "nothing"

    def delete(self, key: str) -> None:
        if self.locked in key:
            raise PermissionError(f"{key} is locked")
        super().delete(key)


class House:
    """A job whose one run has told all that it could, and two names for what it made."""

    def __init__(self, database: Database, store: FailingStore) -> None:
        self.database = database
        self.store = store
        self.project_id: ProjectId = add_project(self.database)
        self.job_id: JobId = add_job(self.database, self.project_id, status="running")
        self.run_id = RunId(f"{self.job_id}-1")
        self.model = f"ft:m:{self.job_id}"
        self.prefix = run_prefix(self.job_id, self.run_id)
        for path in RECORD | ADAPTERS | RESULTS | UNNAMED:
            self.store.write(f"{self.prefix}/{path}", [b"x"])
        with self.database.write() as session:
            add_run(session, self.job_id)

    def end_job(self, *, status: JobStatus = "succeeded", now: datetime = NOW) -> list[FileId]:
        """Give what it made its names, as the dispatcher does; return the files."""
        file_ids = [self._add_file(path, now=now) for path in sorted(RESULTS)]
        for name, step in ((self.model, 4), (f"{self.model}:ckpt-step-2", 2)):
            key = f"{self.prefix}/{checkpoint_prefix(step)}/adapter"
            add_model_row(self.database, self.project_id, self.job_id, name, adapter_key=key)
        changes = {"finished_at": now, "result_file_ids": file_ids}
        with self.database.write() as session:
            assert JobRepository(session).advance(self.job_id, seen="running", to=status, changes=changes)
        return file_ids

    def close_run(self, now: datetime = NOW) -> None:
        with self.database.write() as session:
            assert RunRepository(session).mark_ended(self.run_id, now=now, reason="ended")

    def paths(self) -> set[str]:
        return {key.removeprefix(f"{self.prefix}/") for key in self.store.list_keys(f"{self.prefix}/")}

    def delete_file(self, file_id: FileId) -> None:
        assert delete_file(
            self.project_id, file_id, database=self.database, store=self.store, clock=lambda: LATER
        ).deleted

    def sweep(self, now: datetime = LATER) -> int:
        return sweep_run_folders(self.database, self.store, now=now)

    def _add_file(self, path: str, *, now: datetime) -> FileId:
        row = FileRow(
            id=new_file_id(),
            project_id=self.project_id,
            filename=path,
            purpose="fine-tune-results",
            object_key=f"{self.prefix}/{path}",
            size_bytes=1,
            sha256="0" * 64,
            created_at=now,
        )
        with self.database.write() as session:
            FileRepository(session).add(row)
            return FileId(row.id)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    database = Database(new_sqlite_url(tmp_path / "db.sqlite3"))
    yield House(database, FailingStore(tmp_path / "objects"))
    database.close()


def test_an_ended_job_keeps_its_record_and_what_has_a_name(house: House) -> None:
    house.end_job()
    house.close_run()
    assert house.sweep(LATER - timedelta(seconds=1)) == 0
    assert house.sweep() == 1
    assert house.paths() == KEPT_PATHS
    assert house.sweep(LATER + timedelta(days=400)) == 0
    with house.database.read() as session:
        assert session.get_one(JobRow, house.job_id).version == 1, "no user sees a change"


def test_a_job_that_may_go_on_keeps_everything(house: House) -> None:
    house.close_run()
    assert house.sweep(LATER + timedelta(days=400)) == 0
    assert house.paths() == KEPT_PATHS | UNNAMED


def test_a_failed_job_keeps_everything_for_a_week(house: House) -> None:
    """An outcome that the service could not read may have come with an adapter."""
    house.end_job(status="failed")
    house.close_run()
    assert house.sweep(LATER + timedelta(days=6)) == 0
    assert house.sweep(NOW + KEPT_OF_FAILED) == 1
    assert house.paths() == KEPT_PATHS


def test_what_processes_wrote_after_their_jobs_end_goes_too(house: House) -> None:
    house.end_job(status="cancelled")
    assert house.sweep(LATER + timedelta(days=400)) == 0, "they may still write"
    closed_at = NOW + timedelta(hours=3)
    house.close_run(closed_at)
    assert house.sweep(closed_at + timedelta(minutes=1)) == 0, "the cluster may not know that they go on"
    late = f"{house.prefix}/{checkpoint_prefix(5)}/optimizer.safetensors"
    house.store.write(late, [b"x"])
    assert house.sweep(closed_at + KEPT) == 1
    assert house.paths() == KEPT_PATHS


def test_another_job_is_not_touched(house: House) -> None:
    other = f"runs/{house.job_id}0/{house.job_id}0-1/{checkpoint_prefix(2)}/optimizer.safetensors"
    house.store.write(other, [b"x"])
    house.end_job()
    house.close_run()
    house.sweep()
    assert other in house.store.list_keys("")


def test_what_cannot_be_removed_holds_up_nothing_else_and_is_tried_again(house: House) -> None:
    houses = [house, House(house.database, house.store)]
    for each in houses:
        each.end_job()
        each.close_run()
    stuck = f"{house.prefix}/{checkpoint_prefix(2)}/optimizer.safetensors"
    house.store.locked = stuck
    assert house.sweep() == 2
    assert [each.paths() for each in houses] == [KEPT_PATHS | {stuck.removeprefix(f"{house.prefix}/")}, KEPT_PATHS]
    house.store.locked = "nothing"
    assert house.sweep(LATER + timedelta(minutes=59)) == 0
    assert house.sweep(LATER + KEPT) == 1
    assert house.paths() == KEPT_PATHS


@pytest.mark.parametrize("is_bare_mount_point", [True, False])
def test_a_folder_that_is_away_is_gone_through_once_it_is_back(
    house: House, tmp_path: Path, *, is_bare_mount_point: bool
) -> None:
    house.end_job()
    house.close_run()
    (tmp_path / "objects").rename(tmp_path / "elsewhere")
    if is_bare_mount_point:
        (tmp_path / "objects").mkdir()
    assert house.sweep() == 1
    if is_bare_mount_point:
        (tmp_path / "objects").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "objects")
    assert house.sweep(LATER + KEPT) == 1
    assert house.paths() == KEPT_PATHS


def test_what_a_folder_cannot_tell_is_asked_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.end_job()
    house.close_run()
    scan = os.scandir

    def scan_most(path: Path) -> object:
        if str(path).endswith("checkpoints"):
            raise PermissionError(f"{path} cannot be read")
        return scan(path)

    with monkeypatch.context() as unreadable:
        unreadable.setattr(os, "scandir", scan_most)
        assert house.sweep() == 1
    assert house.sweep(LATER + KEPT) == 1
    assert house.paths() == KEPT_PATHS


def test_what_deletes_could_not_remove_goes_once_the_store_is_back(house: House) -> None:
    file_ids = house.end_job()
    house.close_run()
    house.sweep()
    house.store.locked = ""
    for file_id in file_ids:
        house.delete_file(file_id)
    assert delete_model(
        house.project_id, house.model, database=house.database, registry={}, store=house.store, clock=lambda: LATER
    ).deleted
    assert house.paths() == KEPT_PATHS
    house.store.locked = "nothing"
    assert house.sweep(LATER + KEPT) == 1
    assert house.paths() == RECORD | {f"{checkpoint_prefix(2)}/adapter/adapter_model.safetensors"}


def test_what_is_deleted_during_a_sweep_is_swept_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted, _ = house.end_job()
    house.close_run()
    list_keys = house.store.list_keys

    def delete_meanwhile(prefix: str) -> list[str]:
        house.store.locked = ""
        house.delete_file(deleted)
        house.store.locked = "nothing"
        return list_keys(prefix)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(house.store, "list_keys", delete_meanwhile)
        assert house.sweep() == 1
    assert house.paths() == KEPT_PATHS
    assert house.sweep(LATER + KEPT) == 1
    assert len(house.paths()) == len(KEPT_PATHS) - 1
