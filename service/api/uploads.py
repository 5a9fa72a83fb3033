"""`/v1/uploads`."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from schemas.ids import PartId, ProjectId, UploadId
from schemas.run_layout import part_key
from schemas.uploads import (
    MAX_PART_BYTES,
    CompleteUploadRequest,
    CreateUploadRequest,
    UploadObject,
    UploadPart,
)
from service.api.auth import Project
from service.api.dependencies import App, Parts
from service.api.idempotency import IdempotencyKey, once_per, once_per_body
from service.api.json_bodies import JsonBody
from service.api.openapi import CONFLICT, PART_BODY, json_body
from service.api.typed_bodies import body_as
from service.files import assembly, uploads
from service.files.part_form import part_too_large
from service.files.receiving import FORM_BYTES, receive_part
from service.files.stored_bytes import StorageRoom, capped, find_room_for_part
from service.identifiers import new_part_id
from service.storage.object_store import StoredObject

PATH = "/uploads"
router = APIRouter(prefix=PATH, tags=["uploads"])

CreateBody = Annotated[CreateUploadRequest, Depends(body_as(CreateUploadRequest))]
CompleteBody = Annotated[CompleteUploadRequest, Depends(body_as(CompleteUploadRequest))]


@router.post("", openapi_extra=json_body(CreateUploadRequest))
def create_upload(project: Project, app: App, key: IdempotencyKey, body: JsonBody, request: CreateBody) -> UploadObject:
    """Begin a file that is sent in parts, within the hour."""
    once = once_per_body(project, key, path=PATH, body=body)
    return uploads.create_upload(project, request, once_per=once, database=app.database, clock=app.clock)


@router.get("/{upload_id}")
def get_upload(upload_id: str, project: Project, app: App) -> UploadObject:
    """Ended ones can be looked at for thirty days."""
    return uploads.find_upload(project, upload_id, database=app.database, clock=app.clock)


@router.post("/{upload_id}/parts", openapi_extra=PART_BODY)
async def add_part(upload_id: str, project: Project, app: App, key: IdempotencyKey, request: Request) -> UploadPart:
    """Send one part; parts may come in parallel and in any order. The body streams to the store."""
    found = await run_in_threadpool(_check_pending, app, project, upload_id)
    part_id = new_part_id()
    room = await run_in_threadpool(find_room_for_part, project, found, key, database=app.database, clock=app.clock)
    stored = await _receive(request, app, part_key(found, part_id), room)
    return await run_in_threadpool(_add_part, app, project, found, part_id, stored, key)


@router.post("/{upload_id}/complete", openapi_extra=json_body(CompleteUploadRequest))
async def complete_upload(
    upload_id: str, project: Project, app: App, key: IdempotencyKey, body: JsonBody, request: CompleteBody
) -> UploadObject:
    """Put the parts together, in the order given, to a File."""
    once = once_per_body(project, key, path=f"{PATH}/{upload_id}/complete", body=body)
    completion = assembly.Completion(project, upload_id, request, once)
    return await app.assembly_lane.run(
        partial(assembly.complete_upload, completion, database=app.database, store=app.store, clock=app.clock)
    )


@router.post("/{upload_id}/cancel", responses=CONFLICT)
async def cancel_upload(upload_id: str, project: Project, app: App) -> UploadObject:
    """Give the upload up; its parts are deleted, of very many the last ones within minutes."""
    return await app.delete_lane.run(
        partial(uploads.cancel_upload, project, upload_id, database=app.database, store=app.store, clock=app.clock)
    )


async def _receive(request: Request, app: Parts, object_key: str, room: StorageRoom | None) -> StoredObject:
    with capped(MAX_PART_BYTES, room, param="data") as max_bytes:
        if int(request.headers.get("content-length", "0")) > max_bytes + FORM_BYTES:
            raise part_too_large(max_bytes)
        return await receive_part(
            request.headers.get("content-type", ""),
            request.stream(),
            store=app.store,
            object_key=object_key,
            max_bytes=max_bytes,
        )


def _check_pending(app: Parts, project: ProjectId, upload_id: str) -> UploadId:
    return uploads.check_pending(project, upload_id, database=app.database, clock=app.clock)


def _add_part(
    app: Parts, project: ProjectId, upload_id: UploadId, part_id: PartId, stored: StoredObject, key: str | None
) -> UploadPart:
    return uploads.add_part(
        project,
        upload_id,
        part_id,
        stored,
        once_per=once_per(project, key, request_sha256=uploads.part_fingerprint(upload_id, stored)),
        database=app.database,
        store=app.store,
        clock=app.clock,
    )
