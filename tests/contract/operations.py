"""What the app's own OpenAPI document says can be asked of it: the security tests are made from this list.

A new route is tested by being there; what cannot be derived, an id of a new kind or a body of a new type, fails with
the name of the table below that wants it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from fastapi import FastAPI

from service.api.app import create_app
from service.db.engine import Database
from service.storage.folder import FolderStore
from tests.contract.rows import PAIR
from tests.contract.server import POSTER, REGISTRY, SIGNER

PROJECT_KEY = "ProjectKey"
ADMIN_KEY = "AdminKey"
JSON = "application/json"
FORM = "multipart/form-data"

Document = dict[str, Any]

VALID_BODIES: dict[str, Document] = {
    "CreateJobRequest": {"model": "tiny-llama", "training_file": "file-1"},
    "CreateUploadRequest": {"bytes": 1, "filename": "a", "mime_type": "text/jsonl", "purpose": "fine-tune"},
    "CompleteUploadRequest": {"part_ids": ["part_1"]},
    "CreateWebhookEndpointRequest": {
        "event_types": ["fine_tuning.job.failed"],
        "name": "hooks",
        "url": "https://hooks.example.com",
    },
    "UpdateWebhookEndpointRequest": {"name": "other"},
    "RotateWebhookSecretRequest": {},
    "WebhookSampleRequest": {"event_type": "fine_tuning.job.failed"},
    "CreateProjectRequest": {"name": "team", "quotas": {"max_gpus": 8}},
    "UpdateProjectRequest": {"name": "team", "quotas": {"max_stored_bytes": None}},
    "CreateServiceAccountRequest": {"name": "ci"},
    "UpdateServiceAccountRequest": {"name": "ci"},
    "CreateServiceAccountKeyRequest": {},
    "UpdateApiKeyRequest": {"scopes": []},
    "UpdateRateLimitRequest": {"max_requests_per_1_day": 1000},
    "CreateAdminKeyRequest": {"name": "second"},
}
VALID_PARAMETERS: Document = {"start_time": 1_790_000_000}
"""Of a query, where the route will not do without them."""
FORM_FIELDS: dict[str, dict[str, tuple[str | None, bytes]]] = {
    "/v1/files": {"purpose": (None, b"fine-tune"), "file": ("pairs.jsonl", PAIR)},
    "/v1/uploads/{upload_id}/parts": {"data": ("part", PAIR)},
}


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    template: str
    described: Document

    def __str__(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def key_kind(self) -> str | None:
        [kind] = [name for scheme in self.described.get("security", []) for name in scheme] or [None]
        return kind

    @property
    def changes_something(self) -> bool:
        return self.method != "GET"

    @property
    def body_type(self) -> str | None:
        return next(iter(self.described.get("requestBody", {}).get("content", {})), None)

    @property
    def body_model(self) -> str:
        """Of a JSON body: the name of its schema."""
        reference: str = self.described["requestBody"]["content"][JSON]["schema"]["$ref"]
        return reference.rpartition("/")[2]

    def valid_body(self) -> dict[str, Any]:
        """Keyword arguments of a client's request."""
        match self.body_type:
            case None:
                return {}
            case "application/json":
                return {"json": VALID_BODIES[self.body_model]}
            case _:
                return {"files": FORM_FIELDS[self.template]}

    def valid_query(self) -> Document:
        """No more than must be there."""
        described = self.described.get("parameters", [])
        names = [each["name"] for each in described if each["in"] == "query" and each.get("required")]
        return {name: VALID_PARAMETERS[name] for name in names}

    def parameters(self, place: str) -> dict[str, Document]:
        """Schemas by name of those in the `path` or the `query`."""
        described = self.described.get("parameters", [])
        return {each["name"]: each["schema"] for each in described if each["in"] == place}

    def path(self, ids: Mapping[str, str]) -> str:
        return self.template.format(**{name: quote(ids[name], safe="") for name in self.parameters("path")})


def new_app() -> FastAPI:
    """For its routes alone: it has nothing beneath it."""
    return create_app(
        database=cast(Database, None), store=cast(FolderStore, None), registry=REGISTRY, signer=SIGNER, poster=POSTER
    )


DOCUMENT: Document = new_app().openapi()
OPERATIONS = [
    Operation(method.upper(), template, described)
    for template, methods in DOCUMENT["paths"].items()
    for method, described in methods.items()
]
GUARDED = [operation for operation in OPERATIONS if operation.key_kind is not None]
OF_PROJECTS = [operation for operation in GUARDED if operation.key_kind == PROJECT_KEY]
OF_ADMINS = [operation for operation in GUARDED if operation.key_kind == ADMIN_KEY]
WITH_JSON = [operation for operation in GUARDED if operation.body_type == JSON]
WITH_FORM = [operation for operation in GUARDED if operation.body_type == FORM]
