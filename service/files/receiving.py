"""Receive a form with one file: the body streams through the parser into the store, memory flat in the file's size."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from schemas.files import UploadPurpose
from service.files.multipart import MultipartReader, PartEvent
from service.files.part_form import PartForm
from service.files.store_writer import StoreWriter
from service.files.upload_errors import UploadError, UploadTooLarge
from service.files.upload_form import UploadForm
from service.storage.object_store import ObjectStore, StoredObject

FORM_BYTES = 64 * 1024
"""What a body may have beside the file: boundaries, headers, small fields."""

Fields = TypeVar("Fields", covariant=True)


class Form(Protocol[Fields]):
    file_field: str

    def accept(self, event: PartEvent) -> bytes:
        """Return the bytes of the file in this event, if any. Raises: UploadError."""

    def finish(self) -> Fields:
        """Raises: UploadError when something is missing."""

    def too_large(self) -> UploadTooLarge:
        """What a body over the cap is told."""


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
    reader, form = MultipartReader(content_type), UploadForm(max_file_bytes=max_bytes)
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


async def receive_part(
    content_type: str, body: AsyncIterator[bytes], *, store: ObjectStore, object_key: str, max_bytes: int
) -> StoredObject:
    """Store the bytes of one part of an upload; on any error nothing is left there. Raises: as `receive_upload`."""
    reader, form = MultipartReader(content_type), PartForm(max_bytes=max_bytes)
    async with StoreWriter(store, object_key) as writer:
        await _read_form(body, reader, form, writer, max_body_bytes=max_bytes + FORM_BYTES)
        return await writer.commit()


async def _read_form(
    body: AsyncIterator[bytes], reader: MultipartReader, form: Form[Fields], writer: StoreWriter, *, max_body_bytes: int
) -> Fields:
    body_bytes = 0
    async for chunk in body:
        body_bytes += len(chunk)
        for event in reader.feed(chunk):
            data = form.accept(event)
            if data:
                await writer.send(data)
        if body_bytes > max_body_bytes:
            raise form.too_large()
    if not reader.is_complete:
        raise UploadError(
            "The request body ended before the form's closing boundary; send it again.", param=form.file_field
        )
    return form.finish()
