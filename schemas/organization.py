"""`/v1/organization`: projects, their service accounts and API keys, and the admin keys that may see to them."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Request, Response

MAX_LIFETIME_S = 10 * 366 * 86_400
MAX_COUNT = 1_000_000
MAX_STORED_BYTES = 2**60

Name = Annotated[str, Field(min_length=1, max_length=256)]
LifetimeS = Annotated[int, Field(ge=1, le=MAX_LIFETIME_S)]
NO_LIMIT = 2_147_483_647
RequestLimit = Annotated[int, Field(ge=1, le=NO_LIMIT)]
Scope = Literal["api.all.read"]
Scopes = Annotated[list[Scope], Field(max_length=1)]
"""None given: everything that a project may do. `api.all.read`: only what reads."""


class QuotaChanges(Request):
    """What is absent stays as it is; null takes the limit away."""

    max_running_jobs: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """Jobs beyond it wait."""
    max_queued_jobs: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """Jobs beyond it are refused, those whose files are being validated counted too."""
    max_gpus: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """Held at a time; jobs beyond it wait."""
    max_gpu_hours_a_month: Annotated[float, Field(ge=0, le=MAX_COUNT)] | None = None
    """Of a calendar month, UTC. Once they are used up, new jobs on GPUs are refused and waiting ones wait."""
    max_stored_bytes: Annotated[int, Field(ge=0, le=MAX_STORED_BYTES)] | None = None
    """Uploads beyond it are refused; results of jobs never are."""


class CreateProjectRequest(Request):
    name: Name
    quotas: QuotaChanges | None = None


class UpdateProjectRequest(Request):
    name: Name | None = None
    quotas: QuotaChanges | None = None


class CreateServiceAccountRequest(Request):
    name: Name
    create_service_account_only: bool | None = None
    """Without a first API key."""
    expires_in_seconds: LifetimeS | None = None
    """Of that first key, and only with one; absent or null: it does not expire."""


class UpdateServiceAccountRequest(Request):
    name: Name | None = None
    role: Literal["member"] | None = None
    """The only one there is: what a key may do is its scopes' matter."""


class CreateServiceAccountKeyRequest(Request):
    name: Name | None = None
    expires_in_seconds: LifetimeS | None = None
    scopes: Scopes = Field(default_factory=list)


class UpdateApiKeyRequest(Request):
    """What is absent or null stays as it is."""

    expires_in_seconds: LifetimeS | None = None
    """From now."""
    scopes: Scopes | None = None


class CreateAdminKeyRequest(Request):
    name: Name
    expires_in_seconds: LifetimeS | None = None


class UpdateRateLimitRequest(Request):
    """What is absent or null stays as it is; `NO_LIMIT` lifts a limit."""

    max_requests_per_1_minute: RequestLimit | None = None
    max_requests_per_1_day: RequestLimit | None = None
    max_tokens_per_1_minute: Annotated[int, Field(ge=0, le=NO_LIMIT)] | None = None
    """`NO_LIMIT`, which every rate limit shows: tokens are not limited."""


class ProjectQuotas(Response):
    """Null: no limit."""

    max_running_jobs: int | None
    max_queued_jobs: int | None
    max_gpus: int | None
    max_gpu_hours_a_month: float | None
    max_stored_bytes: int | None


class ProjectUsage(Response):
    """What counts against each quota."""

    running_jobs: int
    queued_jobs: int
    """Those whose files are being validated, too."""
    gpus: int
    """Held by runs, also by those that are being stopped."""
    gpu_hours_this_month: float
    stored_bytes: int


class OrganizationProject(Response):
    id: str
    object: Literal["organization.project"]
    name: str
    created_at: int
    """Unix seconds."""
    archived_at: int | None
    """Unix seconds."""
    status: Literal["active", "archived"]
    quotas: ProjectQuotas
    usage: ProjectUsage | None
    """At this moment; null in lists."""


class ServiceAccount(Response):
    id: str
    object: Literal["organization.project.service_account"]
    name: str
    role: Literal["member"]
    created_at: int
    """Unix seconds."""


class ServiceAccountKeyMade(Response):
    """What is kept of the answer to a key's creation."""

    id: str
    object: Literal["organization.project.service_account.api_key"]
    name: str
    created_at: int
    """Unix seconds."""
    expires_at: int | None
    """Unix seconds; null: it does not expire."""


class ServiceAccountKey(ServiceAccountKeyMade):
    value: str
    """Told here and never again."""


class ServiceAccountCreated(ServiceAccount):
    api_key: ServiceAccountKey | None


class ServiceAccountDeleted(Response):
    id: str
    object: Literal["organization.project.service_account.deleted"]
    deleted: bool


class KeyOwnerAccount(Response):
    id: str
    name: str
    role: Literal["member"]
    created_at: int
    """Unix seconds."""


class KeyOwner(Response):
    type: Literal["service_account"]
    service_account: KeyOwnerAccount | None
    """Null for a key that was given to the service at its start."""


class ProjectApiKey(Response):
    id: str
    object: Literal["organization.project.api_key"]
    name: str
    redacted_value: str
    created_at: int
    """Unix seconds."""
    expires_at: int | None
    """Unix seconds; null: it does not expire."""
    last_used_at: None
    """Not kept: it would make every read a write."""
    owner: KeyOwner
    owner_project_access: Literal["active", "inactive"]
    """`inactive` in an archived project."""


class ProjectApiKeyDeleted(Response):
    id: str
    object: Literal["organization.project.api_key.deleted"]
    deleted: bool


class ProjectRateLimit(Response):
    """Of a base model: jobs created on it and on what was tuned from it. Of the model `*`: requests of any kind."""

    id: str
    object: Literal["project.rate_limit"]
    model: str
    max_requests_per_1_minute: int
    """2147483647: no limit."""
    max_requests_per_1_day: int
    """2147483647: no limit."""
    max_tokens_per_1_minute: Literal[2_147_483_647]
    """Tokens are not limited."""


class AdminKeyOwner(Response):
    type: Literal["service_account"]
    object: Literal["organization.service_account"]
    name: str
    role: Literal["owner"]


class AdminKey(Response):
    id: str
    object: Literal["organization.admin_api_key"]
    name: str
    redacted_value: str
    created_at: int
    """Unix seconds."""
    expires_at: int | None
    """Unix seconds; null: it does not expire."""
    last_used_at: None
    """Not kept, as with projects' keys."""
    owner: AdminKeyOwner


class AdminKeyCreated(AdminKey):
    value: str
    """Told here and never again."""


class AdminKeyDeleted(Response):
    id: str
    object: Literal["organization.admin_api_key.deleted"]
    deleted: bool
