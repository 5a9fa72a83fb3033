"""Signatures of Standard Webhooks, with secrets that are stored nowhere.

A secret is derived from the service's own webhook key and a seed in the endpoint's row, so the database alone, or a
copy of it, signs nothing. The seed names the key it belongs to: under another key nothing is signed wrongly.
Source: https://www.standardwebhooks.com (v1 signatures).
"""

import base64
import hashlib
import hmac
import secrets

SECRET_PREFIX = "whsec_"  # noqa: S105  # the public part
SECRET_BYTES = 24
"""192 bits; Standard Webhooks asks for 24 to 64 bytes, and 24 need no padding."""
HINT_CHARACTERS = 4


class SigningKeyChanged(Exception):
    """The secret was made under another webhook key than the service has now."""

    def __init__(self) -> None:
        super().__init__("the service's webhook key is not the one this secret was made with; rotate the secret")


class WebhookSigner:
    def __init__(self, key: bytes) -> None:
        self._key = key
        self._fingerprint = hmac.digest(key, b"fingerprint", "sha256").hex()[:16]

    def new_seed(self) -> str:
        return f"{self._fingerprint}.{secrets.token_hex(16)}"

    def secret(self, endpoint_id: str, seed: str) -> str:
        """Return `whsec_…`. Raises: SigningKeyChanged."""
        return SECRET_PREFIX + base64.b64encode(self._derive(endpoint_id, seed)).decode()

    def hint(self, endpoint_id: str, seed: str) -> str | None:
        """Return a masked secret, or None where the key has changed since."""
        return f"{SECRET_PREFIX}…{self.secret(endpoint_id, seed)[-HINT_CHARACTERS:]}" if self.knows(seed) else None

    def knows(self, seed: str) -> bool:
        """Whether it was made under this key."""
        return seed.startswith(f"{self._fingerprint}.")

    def headers(
        self, endpoint_id: str, seeds: list[str], *, message_id: str, sent_at: int, body: bytes
    ) -> dict[str, str]:
        """One signature for each seed, the newest first. Raises: SigningKeyChanged."""
        content = b".".join((message_id.encode(), str(sent_at).encode(), body))
        signatures = [_sign(self._derive(endpoint_id, seed), content) for seed in seeds]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": " ".join(signatures),
        }

    def _derive(self, endpoint_id: str, seed: str) -> bytes:
        if not self.knows(seed):
            raise SigningKeyChanged
        return hmac.digest(self._key, f"secret:{endpoint_id}:{seed}".encode(), "sha256")[:SECRET_BYTES]


def _sign(secret: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
