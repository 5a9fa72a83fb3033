"""Database and object store, opened and tried: what cannot be used is told before anything runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util import CommandError
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from service.db.engine import Database
from service.db.migrate import upgrade
from service.serve.start_errors import StartError
from service.storage.object_store import ObjectStore, StoreError, UnknownStorageUrl
from service.storage.open_store import open_store


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """Raises: StartError."""
    try:
        database = Database(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise StartError(f"DPO_DATABASE_URL cannot be used ({error}); give an SQLAlchemy URL.") from error
    try:
        _upgrade(database)
        yield database
    finally:
        database.close()


def _upgrade(database: Database) -> None:
    try:
        upgrade(database.engine)
    except (DBAPIError, CommandError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        where = database.engine.url.render_as_string(hide_password=True)
        raise StartError(
            f"The database {where} cannot be brought to this version's schema ({cause}); check that it is reachable, "
            "has room, and is not of a newer dpo-service."
        ) from error


def open_service_store(url: str, *, s3_endpoint_url: str | None) -> ObjectStore:
    """Raises: StartError."""
    try:
        store = open_store(url, s3_endpoint_url=s3_endpoint_url)
        store.check_writable()
    except UnknownStorageUrl as error:
        raise StartError(f"DPO_STORAGE_URL: {error}.") from error
    except StoreError as error:
        raise StartError(f"The object store {url} cannot be used ({error.strerror}); {error.remedy}.") from error
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise StartError(
            f"The object store {url} cannot be written ({cause}); give another in DPO_STORAGE_URL."
        ) from error
    return store
