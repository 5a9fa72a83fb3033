"""API keys: 256 random bits, shown once, kept as their SHA-256.

A key that is all entropy needs no slow hash, and looking its digest up leaks no timing about the key itself.
"""

import hashlib
import secrets

PREFIX = "sk-dpo-"
ADMIN_PREFIX = "sk-admin-dpo-"
SHOWN_CHARACTERS = 4


def new_api_key() -> str:
    return f"{PREFIX}{secrets.token_urlsafe(32)}"


def new_admin_key() -> str:
    return f"{ADMIN_PREFIX}{secrets.token_urlsafe(32)}"


def last_characters(key: str) -> str:
    """What people may see of a key."""
    return key[-SHOWN_CHARACTERS:]


def hash_api_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
