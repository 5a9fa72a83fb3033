"""Of an ended job's runs there stay their records and what has a name; as long as it may go on, everything."""

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
from service.retention.run_folders import KEPT, sweep_run_folders
from service.storage.folder import FolderStore
from tests.model_rows import add_model_row
from tests.sqlite import new_sqlite_url
from tests.unit.service.db.rows import NOW, add_job, add_project, add_run

MODEL, KEPT_CHECKPOINT = "ft:m", "ft:m:ckpt-step-2"
LATER = NOW + KEPT
RECORD = {SPEC, OUTCOME, event_chunk(1), event_chunk(2)}
ADAPTERS = {f"{checkpoint_prefix(step)}/adapter/adapter_model.safetensors" for step in (2, 4)}
RESULTS = {METRICS_CSV, ADAPTER_ARCHIVE}
UNNAMED = {
    f"{checkpoint_prefix(2)}/optimizer.safetensors",
    f"{checkpoint_prefix(3)}/adapter/adapter_model.safetensors",
    f"{checkpoint_prefix(4)}/manifest.json",
    f"{checkpoint_prefix(1, under=SFT_CHECKPOINTS)}/adapter/adapter_model.safetensors",
    REFERENCE_AT_START,
    "results/adapter/adapter_config.json",
    f"results/{EVENTS}/x",
}


class AwayStore(FolderStore):
    """A store that can be told to delete nothing."""

    is_away = False

    def delete(self, key: str) -> None:
        if self.is_away:
            raise OSError("the store is away")
        super().delete(key)


class House:
    """A job whose one run has told all that it could, and two names for what it made."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(new_sqlite_url(folder / "db.sqlite3"))
        self.store = AwayStore(folder / "objects")
        self.project_id: ProjectId = add_project(self.database)
        self.job_id: JobId = add_job(self.database, self.project_id, status="running")
        self.run_id = RunId(f"{self.job_id}-1")
        self.prefix = run_prefix(self.job_id, self.run_id)
        for path in RECORD | ADAPTERS | RESULTS | UNNAMED:
            self.store.write(f"{self.prefix}/{path}", [b"x"])
        with self.database.write() as session:
            add_run(session, self.job_id)

    def end_job(self, *, status: JobStatus = "succeeded", now: datetime = NOW) -> list[FileId]:
        """Give what it made its names, as the dispatcher does; return the files."""
        file_ids = [self._add_file(path, now=now) for path in sorted(RESULTS)]
        for name, step in ((MODEL, 4), (KEPT_CHECKPOINT, 2)):
            key = f"{self.prefix}/{checkpoint_prefix(step)}/adapter"
            add_model_row(self.database, self.project_id, self.job_id, name, adapter_key=key)
        changes = {"finished_at": now, "result_file_ids": file_ids}
        with self.database.write() as session:
            assert JobRepository(session).advance(self.job_id, seen="running", to=status, changes=changes)
        return file_ids

    def close_run(self) -> None:
        with self.database.write() as session:
            assert RunRepository(session).mark_ended(self.run_id, now=NOW, reason="ended")

    def paths(self) -> set[str]:
        return {key.removeprefix(f"{self.prefix}/") for key in self.store.list_keys("")}

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
    built = House(tmp_path)
    yield built
    built.database.close()


def test_an_ended_job_keeps_its_record_and_what_has_a_name(house: House) -> None:
    house.end_job()
    house.close_run()
    assert house.sweep(LATER - timedelta(seconds=1)) == 0
    assert house.sweep() == len(UNNAMED)
    assert house.paths() == RECORD | ADAPTERS | RESULTS
    assert house.sweep(LATER + timedelta(days=1)) == 0
    with house.database.read() as session:
        job = session.get_one(JobRow, house.job_id)
        assert job.leftovers_since is None
        assert job.version == 1, "no user sees a change"


def test_a_job_that_may_go_on_keeps_everything(house: House) -> None:
    house.close_run()
    assert house.sweep(LATER + timedelta(days=400)) == 0
    assert house.paths() == RECORD | ADAPTERS | RESULTS | UNNAMED


def test_a_run_whose_processes_may_still_write_is_waited_for(house: House) -> None:
    house.end_job(status="cancelled")
    assert house.sweep(LATER + timedelta(days=400)) == 0
    house.close_run()
    assert house.sweep() == len(UNNAMED)


def test_another_job_is_not_touched(house: House) -> None:
    other = f"runs/{house.job_id}0/{house.job_id}0-1/{checkpoint_prefix(2)}/optimizer.safetensors"
    house.store.write(other, [b"x"])
    house.end_job()
    house.close_run()
    house.sweep()
    assert other in house.store.list_keys("")


def test_what_deletes_could_not_remove_goes_once_the_store_is_back(house: House) -> None:
    file_ids = house.end_job()
    house.close_run()
    house.sweep()
    house.store.is_away = True
    for file_id in file_ids:
        assert delete_file(
            house.project_id, file_id, database=house.database, store=house.store, clock=lambda: LATER
        ).deleted
    assert delete_model(
        house.project_id, MODEL, database=house.database, registry={}, store=house.store, clock=lambda: LATER
    ).deleted
    assert house.paths() == RECORD | ADAPTERS | RESULTS
    with pytest.raises(OSError, match="the store is away"):
        house.sweep(LATER + KEPT)
    house.store.is_away = False
    assert house.sweep(LATER + KEPT) == 3
    assert house.paths() == RECORD | {f"{checkpoint_prefix(2)}/adapter/adapter_model.safetensors"}


def test_what_is_deleted_during_a_sweep_is_swept_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    [metrics, _] = sorted(house.end_job())
    house.close_run()
    list_keys = house.store.list_keys

    def delete_meanwhile(prefix: str) -> list[str]:
        house.store.is_away = True
        delete_file(house.project_id, metrics, database=house.database, store=house.store, clock=lambda: LATER)
        house.store.is_away = False
        return list_keys(prefix)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(house.store, "list_keys", delete_meanwhile)
        assert house.sweep() == len(UNNAMED)
    assert house.sweep(LATER + KEPT) == 1
    assert len(house.paths()) == len(RECORD | ADAPTERS | RESULTS) - 1
