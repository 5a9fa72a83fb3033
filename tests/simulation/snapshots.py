"""What the database says at one moment, read beside the service's own code, over SQLite and PostgreSQL alike."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Engine


class Job(NamedTuple):
    id: str
    project_id: str
    status: str
    attempt: int
    version: int
    event_count: int
    priority: int
    gpus: int
    lease_owner: str | None
    finished_at: object
    error_code: str | None
    error_message: str | None
    result_file_ids: object
    training_file_id: str


class Run(NamedTuple):
    id: str
    job_id: str
    attempt: int
    gpus: int
    created_at: Any
    submitted_at: Any
    ended_at: Any
    end_reason: str | None


class Event(NamedTuple):
    job_id: str
    seq: int
    key: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    jobs: dict[str, Job]
    runs: dict[str, Run]
    gpus_noted: int
    """The most that the service knows the cluster to have had."""

    def open_runs(self) -> list[Run]:
        return [run for run in self.runs.values() if run.ended_at is None]


class Reader:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def snapshot(self) -> Snapshot:
        jobs = self._rows(f"SELECT {', '.join(Job._fields)} FROM jobs ORDER BY id")
        runs = self._rows(f"SELECT {', '.join(Run._fields)} FROM runs ORDER BY id")
        noted = self._rows("SELECT gpus FROM cluster_capacity")
        return Snapshot(
            {row[0]: Job(*row) for row in jobs},
            {row[0]: Run(*row) for row in runs},
            gpus_noted=noted[0][0] if noted else 0,
        )

    def events_after(self, job_id: str, seq: int) -> list[Event]:
        columns = ", ".join(Event._fields)
        where = f"job_id = '{job_id}' AND seq > {seq}"
        return [Event(*row) for row in self._rows(f"SELECT {columns} FROM run_events WHERE {where} ORDER BY seq")]

    def result_keys(self, job_id: str) -> list[str]:
        """Object keys of the job's result files, and of the adapter under its own name."""
        adapter = f"SELECT adapter_key FROM models WHERE job_id = '{job_id}' AND archive_file_id IS NOT NULL"
        files = f"SELECT object_key FROM files WHERE object_key LIKE 'runs/{job_id}/%'"
        return [row[0] for row in self._rows(f"{adapter} UNION ALL {files}")]

    def names_in_run_folders(self) -> list[str]:
        """Object keys of files and models, an adapter's folder once for each of its names."""
        files = "SELECT object_key FROM files WHERE object_key LIKE 'runs/%'"
        return [row[0] for row in self._rows(f"SELECT adapter_key FROM models UNION ALL {files}")]

    def checkpoint_steps(self, job_id: str) -> list[int]:
        return [row[0] for row in self._rows(f"SELECT step FROM checkpoints WHERE job_id = '{job_id}' ORDER BY step")]

    def _rows(self, query: str) -> list[Any]:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            rows = cursor.fetchall()
            cursor.close()
            connection.rollback()
            return list(rows)
        finally:
            connection.close()
