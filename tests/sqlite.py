"""Migrated SQLite databases for tests: each is a copy of one, since to migrate a new one costs a fifth of a second."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from service.db.engine import Database
from service.db.migrate import upgrade


def new_sqlite_url(path: Path) -> str:
    """The URL of a migrated database, in a file that is not there yet."""
    with path.open("xb") as file:
        file.write(_migrated())
    return f"sqlite:///{path}"


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "migrated.sqlite3"
        database = Database(f"sqlite:///{path}")
        upgrade(database.engine)
        database.close()
        assert [each.name for each in Path(folder).iterdir()] == [path.name], "its log must have been merged into it"
        return path.read_bytes()
