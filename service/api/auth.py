"""Who asks: the bearer key's project. Runs before a request's body is read."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from schemas.ids import ProjectId
from service.api.dependencies import App
from service.api_keys import hash_api_key
from service.db.projects import ProjectRepository
from service.errors import Unauthorized

Bearer = HTTPBearer(auto_error=False, description="An API key of a project.")


def _project_of_key(
    request: Request, app: App, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(Bearer)]
) -> ProjectId:
    """Raises: Unauthorized."""
    if credentials is None:
        raise _no_key(request.headers.get("authorization"))
    with app.database.read() as session:
        sha256 = hash_api_key(credentials.credentials)
        project_id = ProjectRepository(session).find_project_of_key(sha256, now=app.clock())
    if project_id is None:
        raise Unauthorized("The API key is not known, was revoked or has expired; give one of your project's keys")
    return project_id


Project = Annotated[ProjectId, Depends(_project_of_key)]


def _no_key(header: str | None) -> Unauthorized:
    if header is None:
        return Unauthorized('The request has no API key; send the header "Authorization: Bearer KEY"')
    return Unauthorized('The Authorization header is malformed; send "Authorization: Bearer KEY"')
