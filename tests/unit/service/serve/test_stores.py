from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.serve.start_errors import StartError
from service.serve.stores import open_database, open_service_store
from service.storage.folder import FolderStore
from tests.file_rows import add_file_row
from tests.sqlite import new_sqlite_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(new_sqlite_url(tmp_path / "db.sqlite3"))
    yield database
    database.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url", "DPO_DATABASE_URL cannot be used"),
        ("oracle+nothing://x", "DPO_DATABASE_URL cannot be used"),
        ("sqlite:////no/such/folder/db", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_used_is_told(url: str, said: str) -> None:
    with pytest.raises(StartError, match=said), open_database(url):
        pass


def test_a_database_of_a_newer_service_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    with open_database(url) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartError, match="newer dpo-service"), open_database(url):
        pass


def test_a_store_that_cannot_be_used_is_told(tmp_path: Path, database: Database) -> None:
    with pytest.raises(StartError, match="DPO_STORAGE_URL"):
        open_service_store("ftp://host/x", s3_endpoint_url=None, database=database)
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be written"):
        open_service_store(str(tmp_path / "file" / "objects"), s3_endpoint_url=None, database=database)


@pytest.mark.parametrize("is_there", [True, False], ids=["a bare mount point", "no mount point"])
def test_a_start_while_the_mount_is_away_is_refused_and_leaves_its_place_bare(
    tmp_path: Path, database: Database, is_there: bool
) -> None:
    root, mounted = tmp_path / "store", tmp_path / "elsewhere"
    open_service_store(str(root), s3_endpoint_url=None, database=database).write("files/a", [b"x"])
    add_file_row(database)
    root.rename(mounted)
    if is_there:
        root.mkdir()

    with pytest.raises(StartError, match=r"folder is gone\); mount .*/store again"):
        open_service_store(str(root), s3_endpoint_url=None, database=database)

    assert not FolderStore(root).is_written()
    if is_there:
        root.rmdir()
    mounted.rename(root)
    store = open_service_store(str(root), s3_endpoint_url=None, database=database)
    assert store.read("files/a") == b"x"
