"""The migrations make the tables that the code speaks of, and take them away again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect

from service.db import migrate
from service.db.tables import Table


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = create_engine(f"sqlite:///{tmp_path / 'dpo.sqlite3'}")
    yield opened
    opened.dispose()


def test_migrated_tables_equal_the_declared_ones(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_constraints_have_their_names(engine: Engine) -> None:
    migrate.upgrade(engine)
    found = inspect(engine)
    assert found.get_pk_constraint("jobs")["name"] == "pk_jobs"
    assert [each["name"] for each in found.get_check_constraints("jobs")] == ["ck_jobs_status"]
    assert {each["name"] for each in found.get_unique_constraints("run_events")} == {
        "uq_run_events_job_id_key",
        "uq_run_events_job_id_seq",
    }


def test_migrating_twice_changes_nothing(engine: Engine) -> None:
    migrate.upgrade(engine)
    before = inspect(engine).get_table_names()
    migrate.upgrade(engine)
    assert inspect(engine).get_table_names() == before


def test_every_migration_can_be_taken_back(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
