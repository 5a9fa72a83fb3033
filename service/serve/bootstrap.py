"""The first project and its first key, and the first admin key: each made once."""

from service.api_keys import hash_api_key, last_characters, new_api_key
from service.clock import Clock
from service.db.admin_keys import AdminKeyRepository
from service.db.engine import Database
from service.db.locks import Lock, take_lock
from service.db.projects import ProjectRepository
from service.db.tables import ApiKeyRow, ProjectRow
from service.identifiers import new_key_id, new_project_id
from service.organization.admin_keys import admin_key_row
from service.settings import Settings

DEFAULT_PROJECT = "default"


def ensure_first_keys(database: Database, settings: Settings, *, clock: Clock) -> str | None:
    """Those that the settings give, or else a first one; returns a key made just now."""
    ensure_given_keys(database, settings, clock=clock)
    return None if settings.bootstrap_key else ensure_first_key(database, given=None, clock=clock)


def ensure_given_keys(database: Database, settings: Settings, *, clock: Clock) -> None:
    """Those that the settings give, and no others: of many replicas each may do it."""
    if settings.bootstrap_admin_key is not None:
        ensure_first_admin_key(database, settings.bootstrap_admin_key.get_secret_value(), clock=clock)
    if settings.bootstrap_key is not None:
        ensure_first_key(database, given=settings.bootstrap_key.get_secret_value(), clock=clock)


def ensure_first_key(database: Database, *, given: str | None, clock: Clock) -> str | None:
    """Make the project "default" with its key; a key given later is added to it. Returns a key made just now."""
    with database.write() as session:
        take_lock(session, Lock.FIRST_KEY)
        projects = ProjectRepository(session)
        project = projects.find_by_name(DEFAULT_PROJECT)
        is_new = project is None
        if project is None:
            project = ProjectRow(id=new_project_id(), name=DEFAULT_PROJECT, created_at=clock())
            projects.add(project)
        if given is None and not is_new:
            return None
        key = given or new_api_key()
        if not projects.knows_key(hash_api_key(key)):  # a revoked one stays revoked
            projects.add_key(_key_row(project, key, clock=clock))
        return None if given else key


def ensure_first_admin_key(database: Database, given: str, *, clock: Clock) -> None:
    """Let it open `/v1/organization`, unless it was revoked there."""
    with database.write() as session:
        take_lock(session, Lock.FIRST_KEY)
        keys = AdminKeyRepository(session)
        if not keys.knows(hash_api_key(given)):
            keys.add(admin_key_row("bootstrap", given, now=clock()))


def _key_row(project: ProjectRow, key: str, *, clock: Clock) -> ApiKeyRow:
    return ApiKeyRow(
        id=new_key_id(),
        project_id=project.id,
        name="bootstrap",
        sha256=hash_api_key(key),
        last_characters=last_characters(key),
        created_at=clock(),
        expires_at=None,
        revoked_at=None,
    )
