"""Database and object store, opened and tried: what cannot be used is told before anything runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alembic.util import CommandError
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from service.db.engine import Database
from service.db.files import FileRepository
from service.db.migrate import SchemaNotCurrent, check_current, upgrade
from service.serve.start_errors import StartError
from service.storage.folder import FolderStore
from service.storage.object_store import ObjectStore, StoreError, UnknownStorageUrl
from service.storage.open_store import open_store
from service.telemetry.facts import Tell, tell_nobody


@contextmanager
def open_database(url: str, *, tell: Tell = tell_nobody) -> Iterator[Database]:
    """The database, brought to this version's schema. Raises: StartError."""
    with _open_database(url, _upgrade, tell) as database:
        yield database


@contextmanager
def open_current_database(url: str, *, tell: Tell = tell_nobody) -> Iterator[Database]:
    """The database, of this version's schema already: replicas do not migrate behind each other's back.

    Raises: StartError.
    """
    with _open_database(url, _check_current, tell) as database:
        yield database


@contextmanager
def _open_database(url: str, prepare: Callable[[Database], None], tell: Tell) -> Iterator[Database]:
    try:
        database = Database(url, tell=tell)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise StartError(
            f"DPO_DATABASE_URL cannot be used ({error}); give postgresql+psycopg://USER:PASSWORD@HOST/NAME."
        ) from error
    except ValueError:
        # Without the cause: where a password has a `/` or an `@`, the parser complains about a piece of it.
        raise StartError(
            "DPO_DATABASE_URL cannot be read; give postgresql+psycopg://USER:PASSWORD@HOST/NAME, with special "
            "characters of the password percent-encoded."
        ) from None
    try:
        prepare(database)
        yield database
    finally:
        database.close()


def _upgrade(database: Database) -> None:
    try:
        upgrade(database.engine)
    except (DBAPIError, CommandError) as error:
        raise StartError(
            f"The database {_where(database)} cannot be brought to this version's schema ({_cause(error)}); check that "
            "it is reachable, has room, and is not of a newer dpo-service."
        ) from error


def _check_current(database: Database) -> None:
    try:
        check_current(database.engine)
    except DBAPIError as error:
        raise StartError(
            f"The database {_where(database)} cannot be used ({_cause(error)}); check DPO_DATABASE_URL."
        ) from error
    except SchemaNotCurrent as error:
        raise StartError(
            f"The database {_where(database)} cannot be used: {error}. Run `dpo-service migrate` of this version "
            "once, before any `api` or `dispatcher`; a database of a newer version needs the newer dpo-service."
        ) from error


def _where(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=True)


def _cause(error: Exception) -> str:
    """In one line: libpq tells each address that it tried in one of its own."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split())


def open_service_store(url: str, *, s3_endpoint_url: str | None, database: Database) -> ObjectStore:
    """Make a folder for it where the database knows of no file yet: later it would be made where a mount is away.

    Raises: StartError.
    """
    with database.read() as session:
        has_files = FileRepository(session).has_any()
    try:
        store = open_store(url, s3_endpoint_url=s3_endpoint_url)
        if has_files and isinstance(store, FolderStore):
            store.check_written()
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
