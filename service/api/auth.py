"""Who asks: the bearer key's project, or an administrator. Runs before a request's body is read."""

from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from schemas.ids import KeyId, ProjectId
from schemas.organization import Scope
from service.api.dependencies import App, Parts
from service.api.lookups import Lookup
from service.api_keys import hash_api_key
from service.db.admin_keys import AdminKeyRepository
from service.db.projects import OpenKey
from service.errors import Forbidden, Unauthorized
from service.organization.organization import Organization

READ_ONLY: Scope = "api.all.read"
ProjectBearer = HTTPBearer(scheme_name="ProjectKey", auto_error=False, description="An API key of a project.")
AdminBearer = HTTPBearer(scheme_name="AdminKey", auto_error=False, description="An admin key of the organization.")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sent a key that nobody has looked up yet."""

    key: str
    request: Request
    app: Parts

    async def open_project(self) -> ProjectId:
        """The key's project. Raises: Unauthorized, TooManyRequests, Forbidden."""
        found = await self.app.lookups.find(Lookup(hash_api_key(self.key)))
        return self._enter(found.key)

    async def open_project_of_job(self, job_id: str) -> tuple[ProjectId, int | None]:
        """The key's project, and the version of its job, or None where it has no such. Raises: as `open_project`."""
        found = await self.app.lookups.find(Lookup(hash_api_key(self.key), job_id))
        return self._enter(found.key), found.job_version

    def _enter(self, key: OpenKey | None) -> ProjectId:
        if key is None:
            raise Unauthorized("The API key is not known, was revoked or has expired; give one of your project's keys")
        # The request's log lines name it from here on.
        structlog.contextvars.bind_contextvars(project_id=key.project_id)
        self.app.request_rate.count(key)
        if READ_ONLY in key.scopes and self.request.method != "GET":
            raise Forbidden("The API key may only read; give one with all permissions to change something")
        return key.project_id


async def _asker_of(
    request: Request, app: App, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(ProjectBearer)]
) -> Asker:
    """Raises: Unauthorized."""
    if credentials is None:
        raise _no_key(request.headers.get("authorization"))
    return Asker(credentials.credentials, request, app)


ProjectAsker = Annotated[Asker, Depends(_asker_of)]
"""For who looks the key up together with a job."""


async def _project_of_key(asker: ProjectAsker) -> ProjectId:
    return await asker.open_project()


def _organization_of(
    request: Request, app: App, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(AdminBearer)]
) -> Organization:
    """Raises: Unauthorized."""
    if credentials is None:
        raise _no_key(request.headers.get("authorization"))
    with app.database.read() as session:
        key = AdminKeyRepository(session).find_open(hash_api_key(credentials.credentials), now=app.clock())
    if key is None:
        raise Unauthorized("This needs an admin key that is neither revoked nor expired; a project's key is none")
    return Organization(app.database, app.clock, KeyId(key.id))


Project = Annotated[ProjectId, Depends(_project_of_key)]
Org = Annotated[Organization, Depends(_organization_of)]
"""What an admin key opens."""


def _no_key(header: str | None) -> Unauthorized:
    if header is None:
        return Unauthorized('The request has no API key; send the header "Authorization: Bearer KEY"')
    return Unauthorized('The Authorization header is malformed; send "Authorization: Bearer KEY"')
