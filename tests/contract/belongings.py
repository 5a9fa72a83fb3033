"""A project, with one of everything that a path can name, and the keys to it; and the state of all that is stored."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from service.api_keys import hash_api_key, new_admin_key, new_api_key
from service.clock import utc_now
from service.db.admin_keys import AdminKeyRepository
from service.db.projects import ProjectRepository
from service.db.tables import ApiKeyRow, ProjectRow, Table
from service.identifiers import new_key_id
from service.organization.admin_keys import admin_key_row
from tests.contract.rows import add_checkpoint, add_model, add_step_events, submit, upload
from tests.contract.server import ProjectAccess, Server, new_project, openai_client

MODEL = "ft:tiny-llama:default:mine:0123456789ab"
NOBODY = "http://127.0.0.1:9"
"""Where nothing listens."""


@dataclass(frozen=True, slots=True)
class Belongings:
    project: ProjectAccess
    ids: dict[str, str]
    """By the name of the path's parameter."""


def new_admin(server: Server) -> str:
    """Return the value of a new admin key."""
    key = new_admin_key()
    with server.database.write() as session:
        AdminKeyRepository(session).add(admin_key_row("tests", key, now=utc_now()))
    return key


def new_belongings(server: Server, admin_key: str) -> Belongings:
    project = new_project(server.database)
    client = openai_client(server, project)
    job_id = submit(client)
    add_step_events(server.database, job_id, range(1, 3))
    add_checkpoint(server.database, job_id, 2)
    model = f"{MODEL[:-12]}{job_id[-12:]}"
    add_model(server.database, project, job_id, name=model)
    accounts = server.anonymous.with_options(admin_api_key=admin_key).admin.organization.projects.service_accounts
    account = accounts.create(project.id, name="ci")
    assert account.api_key is not None
    second = server.anonymous.with_options(admin_api_key=admin_key).admin.organization.admin_api_keys.create(name="b")
    ids = {
        "file_id": upload(client),
        "upload_id": client.uploads.create(bytes=9, filename="a", mime_type="text/jsonl", purpose="fine-tune").id,
        "job_id": job_id,
        "model": model,
        "webhook_endpoint_id": client.webhooks.create(
            name="ours", url=NOBODY, event_types=["fine_tuning.job.failed"]
        ).id,
        "project_id": project.id,
        "service_account_id": account.id,
        "api_key_id": account.api_key.id,
        "key_id": second.id,
        "rate_limit_id": "rl-tiny-llama",
    }
    return Belongings(project, ids)


def unknown_ids(ids: dict[str, str]) -> dict[str, str]:
    """The same, but for the last character: nothing has them."""
    return {name: one[:-1] + ("0" if one[-1] != "0" else "1") for name, one in ids.items()}


def key_of_project(server: Server, project: ProjectAccess, *, ended_by: str = "", scopes: tuple[str, ...] = ()) -> str:
    """A further key, revoked or expired since a second when `ended_by` names the column."""
    key, now = new_api_key(), utc_now()
    row = ApiKeyRow(id=new_key_id(), project_id=project.id, sha256=hash_api_key(key), scopes=[*scopes], created_at=now)
    if ended_by:
        setattr(row, ended_by, now - timedelta(seconds=1))
    with server.database.write() as session:
        ProjectRepository(session).add_key(row)
    return key


def ended_admin_key(server: Server, *, ended_by: str) -> str:
    key, now = new_admin_key(), utc_now()
    row = admin_key_row("ended", key, now=now)
    setattr(row, ended_by, now - timedelta(seconds=1))
    with server.database.write() as session:
        AdminKeyRepository(session).add(row)
    return key


def archive(server: Server, project: ProjectAccess) -> None:
    with server.database.write() as session:
        session.get_one(ProjectRow, project.id).archived_at = utc_now()


def everything_stored(server: Server) -> list[str]:
    """Every row of every table, and every object's key."""
    with server.database.read() as session:
        rows = [str(row) for table in Table.metadata.sorted_tables for row in session.execute(select(table))]
    return sorted(rows) + sorted(server.store.list_keys(""))
