"""`/v1/files`."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from schemas.files import FileDeleted, FileObject
from schemas.ids import FileId, ProjectId
from schemas.pages import BoundedPage
from schemas.run_layout import file_key
from service.api.auth import Project
from service.api.dependencies import App, Parts
from service.api.file_responses import send_download
from service.api.idempotency import IdempotencyKey, once_per
from service.api.openapi import FILE_CONTENT, RANGE_ERROR, UPLOAD_BODY
from service.api.pages import FilesPage
from service.files import catalog
from service.files.receiving import FORM_BYTES, ReceivedUpload, receive_upload
from service.files.stored_bytes import StorageRoom, capped, find_storage_room
from service.files.upload_form import too_large
from service.identifiers import new_file_id

router = APIRouter(prefix="/files", tags=["files"])


@router.post("", openapi_extra=UPLOAD_BODY)
async def upload_file(project: Project, app: App, key: IdempotencyKey, request: Request) -> FileObject:
    """Upload preference pairs as JSON Lines; the body streams to the store."""
    file_id = new_file_id()
    room = await run_in_threadpool(find_storage_room, project, key, database=app.database, clock=app.clock)
    upload = await _receive(request, app, file_id, room)
    return await run_in_threadpool(_add_file, app, project, file_id, upload, key)


@router.get("")
def list_files(project: Project, app: App, query: FilesPage) -> BoundedPage[FileObject]:
    """List the project's files, newest first unless `order=asc`."""
    return catalog.list_files(project, query, database=app.database, clock=app.clock)


@router.get("/{file_id}")
def get_file(file_id: str, project: Project, app: App) -> FileObject:
    return catalog.find_file(project, file_id, database=app.database, clock=app.clock)


@router.delete("/{file_id}")
async def delete_file(file_id: str, project: Project, app: App) -> FileDeleted:
    """Delete a file. A job that still waits for it fails and says so."""
    return await app.delete_lane.run(
        partial(catalog.delete_file, project, file_id, database=app.database, store=app.store, clock=app.clock)
    )


@router.get("/{file_id}/content", response_class=Response, responses=FILE_CONTENT | RANGE_ERROR)
def get_content(
    file_id: str, project: Project, app: App, range_header: Annotated[str | None, Header(alias="range")] = None
) -> Response:
    """Download the bytes, or go where they lie."""
    download = catalog.open_download(
        project, file_id, range_header=range_header, database=app.database, store=app.store, clock=app.clock
    )
    return send_download(download)


async def _receive(request: Request, app: Parts, file_id: FileId, room: StorageRoom | None) -> ReceivedUpload:
    with capped(app.max_file_bytes, room, param="file") as max_bytes:
        if int(request.headers.get("content-length", "0")) > max_bytes + FORM_BYTES:
            raise too_large(max_bytes)
        return await receive_upload(
            request.headers.get("content-type", ""),
            request.stream(),
            store=app.store,
            object_key=file_key(file_id),
            max_bytes=max_bytes,
        )


def _add_file(app: Parts, project: ProjectId, file_id: FileId, upload: ReceivedUpload, key: str | None) -> FileObject:
    return catalog.add_file(
        project,
        file_id,
        upload,
        once_per=once_per(project, key, request_sha256=catalog.upload_fingerprint(upload)),
        database=app.database,
        store=app.store,
        clock=app.clock,
    )
