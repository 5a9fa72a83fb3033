"""`/metrics` has a port of its own, or none."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.serve.metrics_endpoint import metrics_endpoint
from service.serve.start_errors import StartError
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.exposition import scrape
from tests.sqlite import new_sqlite_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(new_sqlite_url(tmp_path / "db.sqlite3"))
    yield database
    database.close()


def test_scrapes_are_answered_until_the_end(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics()
    with metrics_endpoint(Settings(metrics_port=0), metrics, database):
        url = capsys.readouterr().out.removeprefix("Metrics are at ").strip()
        metrics.dispatcher_leases.set(3)
        assert scrape(url).value("dpo_dispatcher_leases") == 3
    with pytest.raises(OSError, match="refused"):
        scrape(url)


def test_without_a_port_nothing_is_told(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_endpoint(Settings(metrics_port=None), Metrics(), database):
        assert capsys.readouterr().out == ""


def test_a_taken_port_is_told(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(metrics_port=taken.getsockname()[1])
        with (
            pytest.raises(StartError, match="choose others in DPO_METRICS_HOST and DPO_METRICS_PORT"),
            metrics_endpoint(settings, Metrics(), database),
        ):
            pass
