from pathlib import Path

import pytest

from service.serve.start_errors import StartError
from service.serve.stores import open_database, open_service_store


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


def test_a_store_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="DPO_STORAGE_URL"):
        open_service_store("ftp://host/x", s3_endpoint_url=None)
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be written"):
        open_service_store(str(tmp_path / "file" / "objects"), s3_endpoint_url=None)
