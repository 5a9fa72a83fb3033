"""What an administrator can ask for that is not there, or cannot be done.

NotFound 404: ProjectNotFound, ServiceAccountNotFound, ApiKeyNotFound, AdminKeyNotFound, RateLimitNotFound
Conflict 409: ProjectArchived, ApiKeyExpired, OwnAdminKey, SecretToldBefore
"""

from service.errors import Conflict, NotFound


class ProjectNotFound(NotFound):
    code = "project_not_found"


class ServiceAccountNotFound(NotFound):
    code = "service_account_not_found"


class ApiKeyNotFound(NotFound):
    code = "api_key_not_found"


class AdminKeyNotFound(NotFound):
    code = "admin_api_key_not_found"


class RateLimitNotFound(NotFound):
    code = "rate_limit_not_found"


class ProjectArchived(Conflict):
    code = "project_archived"


class ApiKeyExpired(Conflict):
    code = "api_key_expired"


class OwnAdminKey(Conflict):
    """Were it the last one, nobody could make another."""

    code = "own_admin_api_key"


class SecretToldBefore(Conflict):
    """A repeat of an `Idempotency-Key` whose first answer had a key's value, which is told once and not kept."""

    code = "secret_told_before"

    def __init__(self, made_id: str, *, path: str) -> None:
        super().__init__(
            f"This Idempotency-Key came before and created {made_id}, whose secret value was told then and is not "
            f"kept; if it did not arrive, DELETE {path}/{made_id} and create another under a new Idempotency-Key"
        )
