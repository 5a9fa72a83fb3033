"""What replicas must be told, because each would otherwise make up its own."""

from service.registry import Registry
from service.serve.base_models import load_registry
from service.serve.start_errors import StartError
from service.settings import Settings
from service.webhooks.signing import WebhookSigner


def load_shared_registry(settings: Settings) -> Registry:
    """Raises: StartError."""
    if settings.models_file is None:
        raise StartError(
            "DPO_MODELS_FILE is not set: replicas share one registry of models that the cluster can read (TOML, see "
            "service/registry.py); `dpo-service serve` alone makes a default model."
        )
    return load_registry(settings.resolved_data_dir, settings.models_file)


def shared_signer(settings: Settings) -> WebhookSigner:
    """Raises: StartError."""
    if settings.webhook_key is None:
        raise StartError(
            "DPO_WEBHOOK_KEY is not set: the secrets of webhooks are derived from it, by every replica alike. Give all "
            "of them the same 32 random characters or more (`openssl rand -hex 32`)."
        )
    return WebhookSigner(settings.webhook_key.get_secret_value().encode())
