"""What replicas must be told, because each would otherwise make up its own."""

from dataclasses import dataclass

from service.registry import Registry
from service.serve.base_models import load_registry
from service.serve.start_errors import StartError
from service.settings import Settings
from service.webhooks.signing import WebhookSigner

SHARED = {
    "DPO_DATABASE_URL": "one database",
    "DPO_STORAGE_URL": "one object store, a bucket or a folder that every machine has under this path",
    "DPO_MODELS_FILE": "one registry of models that the cluster can read",
    "DPO_WEBHOOK_KEY": "the key of webhook secrets, 32 random characters or more (`openssl rand -hex 32`)",
}


@dataclass(frozen=True, slots=True)
class Shared:
    database_url: str
    storage_url: str
    registry: Registry
    signer: WebhookSigner


def load_shared(settings: Settings) -> Shared:
    """Raises: StartError."""
    given, key = settings, settings.webhook_key
    if given.database_url is None or given.storage_url is None or given.models_file is None or key is None:
        missing = [f"{name} ({what})" for name, what in SHARED.items() if not _is_given(settings, name)]
        raise StartError(
            f"Not set: {'; '.join(missing)}. Replicas share what these name, and none can make up its own, as "
            "`dpo-service serve` does."
        )
    registry = load_registry(given.resolved_data_dir, given.models_file)
    return Shared(given.database_url, given.storage_url, registry, WebhookSigner(key.get_secret_value().encode()))


def _is_given(settings: Settings, name: str) -> bool:
    return getattr(settings, name.removeprefix("DPO_").lower()) is not None
