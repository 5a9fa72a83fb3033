"""The database: reachable, and of this version's schema."""

from collections.abc import Iterator

from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from service.db.engine import Database
from service.db.files import FileRepository
from service.db.migrate import SchemaNotCurrent, check_current
from service.doctor.finding import Finding
from service.settings import Settings

PART = "database"
FORM = "give DPO_DATABASE_URL as postgresql+psycopg://USER:PASSWORD@HOST/NAME"


def examine_database(settings: Settings) -> Iterator[Finding]:
    if _is_not_made(settings):
        yield Finding(PART, "ok", "SQLite in the data folder, made at the first start")
        return
    try:
        database = Database(settings.resolved_database_url)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        yield Finding(PART, "failed", f"DPO_DATABASE_URL cannot be used ({error})", FORM)
        return
    except ValueError:  # its text may be a piece of a password
        yield Finding(PART, "failed", "DPO_DATABASE_URL cannot be read", f"{FORM}, its password percent-encoded")
        return
    try:
        yield _examine_schema(database)
    finally:
        database.close()


def has_files(settings: Settings) -> bool | None:
    """Whether something was ever written to the store; None where the database cannot tell."""
    if _is_not_made(settings):
        return False
    try:
        database = Database(settings.resolved_database_url)
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        return None
    try:
        with database.read() as session:
            return FileRepository(session).has_any()
    except DBAPIError:
        return None
    finally:
        database.close()


def _is_not_made(settings: Settings) -> bool:
    return settings.database_url is None and not (settings.resolved_data_dir / "dpo.sqlite3").exists()


def _examine_schema(database: Database) -> Finding:
    where = database.engine.url.render_as_string(hide_password=True)
    try:
        check_current(database.engine)
    except SchemaNotCurrent as error:
        remedy = "run `dpo-service migrate` of this version; a newer schema needs the newer dpo-service"
        return Finding(PART, "failed", f"{where}: {error}", remedy)
    except DBAPIError as error:
        cause = str(error.orig).strip().splitlines()[0]
        remedy = "check that it runs, that it can be reached from here, and DPO_DATABASE_URL"
        return Finding(PART, "failed", f"{where} cannot be used: {cause}", remedy)
    return Finding(PART, "ok", f"{where}: reachable, of this version's schema")
