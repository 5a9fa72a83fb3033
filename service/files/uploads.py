"""Receive an upload: the body streams through the form's parser into the store, memory flat in the file's size."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from schemas.files import UploadPurpose
from service.files.multipart import MultipartReader
from service.files.store_writer import StoreWriter
from service.files.upload_errors import UploadError
from service.files.upload_form import UploadFields, UploadForm, too_large
from service.storage.object_store import ObjectStore

FORM_BYTES = 64 * 1024
"""What a body may have beside the file: boundaries, headers, small fields."""


@dataclass(frozen=True, slots=True)
class ReceivedUpload:
    filename: str
    purpose: UploadPurpose
    size_bytes: int
    sha256: str
    expires_after_s: int | None
    object_key: str


async def receive_upload(
    content_type: str, body: AsyncIterator[bytes], *, store: ObjectStore, object_key: str, max_bytes: int
) -> ReceivedUpload:
    """Store the file of a multipart body under `object_key`; on any error nothing is left there.

    Raises: UploadError; whatever `body` raises when the client goes away.
    """
    reader = MultipartReader(content_type)
    form = UploadForm(max_file_bytes=max_bytes)
    async with StoreWriter(store, object_key) as writer:
        fields = await _read_form(body, reader, form, writer, max_body_bytes=max_bytes + FORM_BYTES)
        stored = await writer.commit()
    return ReceivedUpload(
        filename=fields.filename,
        purpose=fields.purpose,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        expires_after_s=fields.expires_after_s,
        object_key=stored.key,
    )


async def _read_form(
    body: AsyncIterator[bytes], reader: MultipartReader, form: UploadForm, writer: StoreWriter, *, max_body_bytes: int
) -> UploadFields:
    body_bytes = 0
    async for chunk in body:
        body_bytes += len(chunk)
        for event in reader.feed(chunk):
            data = form.accept(event)
            if data:
                await writer.send(data)
        if body_bytes > max_body_bytes:
            raise too_large(max_body_bytes - FORM_BYTES)
    if not reader.is_complete:
        raise UploadError("The request body ended before the form's closing boundary; send it again.", param="file")
    return form.finish()
