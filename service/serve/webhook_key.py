"""The key that the secrets of webhooks are derived from: the operator's, or one made once for this data folder."""

import os
import secrets
from pathlib import Path

from service.serve.start_errors import StartError
from service.settings import Settings

KEY_NAME = "webhook.key"


def resolve_webhook_key(settings: Settings) -> bytes:
    """Raises: StartError."""
    if settings.webhook_key is not None:
        return settings.webhook_key.get_secret_value().encode()
    path = settings.resolved_data_dir / KEY_NAME
    try:
        return path.read_bytes() if path.exists() else _make_key(path)
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise StartError(
            f"The webhook key {path} cannot be read or made ({cause}); mend that, or give one in DPO_WEBHOOK_KEY."
        ) from error


def _make_key(path: Path) -> bytes:
    """The data folder is held by one service at a time; a kill leaves no half of a key."""
    key = secrets.token_urlsafe(32).encode()
    half = path.with_suffix(".part")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    return key
