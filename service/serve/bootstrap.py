"""The first project and its first key, made once."""

from service.api_keys import hash_api_key, new_api_key
from service.clock import Clock
from service.db.engine import Database
from service.db.locks import Lock, take_lock
from service.db.projects import ProjectRepository
from service.db.tables import ApiKeyRow, ProjectRow
from service.identifiers import new_key_id, new_project_id

DEFAULT_PROJECT = "default"


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
        if projects.find_project_of_key(hash_api_key(key), now=clock()) is None:
            projects.add_key(_key_row(project, key, clock=clock))
        return None if given else key


def _key_row(project: ProjectRow, key: str, *, clock: Clock) -> ApiKeyRow:
    return ApiKeyRow(
        id=new_key_id(),
        project_id=project.id,
        sha256=hash_api_key(key),
        created_at=clock(),
        expires_at=None,
        revoked_at=None,
    )
