"""A part of an upload as a request leaves it: its bytes in the store, then its row."""

from schemas.ids import PartId, ProjectId, UploadId
from schemas.run_layout import part_key
from schemas.uploads import UploadPart
from service.clock import Clock, utc_now
from service.db.engine import Database
from service.files import uploads
from service.storage.object_store import ObjectStore


def store_part(
    project_id: ProjectId,
    upload_id: UploadId,
    part_id: PartId,
    content: bytes,
    *,
    database: Database,
    store: ObjectStore,
    clock: Clock = utc_now,
) -> UploadPart:
    stored = store.write(part_key(upload_id, part_id), [content])
    return uploads.add_part(
        project_id, upload_id, part_id, stored, once_per=None, database=database, store=store, clock=clock
    )
