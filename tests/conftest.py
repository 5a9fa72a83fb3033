"""The real servers that tests ask for, each started with the first test that does: PostgreSQL and S3."""

import gc
from collections.abc import Iterator
from uuid import uuid4

import pytest
import structlog

from tests.buckets import Bucket
from tests.postgres import PostgresDatabases, postgres_databases
from tests.swift_server import S3Server, swift_server

gc.disable()  # collecting tests is mostly importing, and a quarter of that collecting garbage that is none


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a test configures may write to its own captured output, which is closed for the next one."""
    former = structlog.get_config()
    yield
    structlog.configure(**former)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with swift_server() as server:
        Bucket(server, "").make()
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A place of the test's own in the session's bucket; the environment names the server and its key."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(s3_server, f"{uuid4().hex}/with space")
