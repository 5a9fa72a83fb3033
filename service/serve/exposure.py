"""Whoever lets the network in does not do it with keys that can be guessed, or with what is for tests alone."""

import ipaddress

from pydantic import SecretStr

from service.serve.start_errors import StartError
from service.settings import Settings

MIN_KEY_CHARACTERS = 32
MIN_DIFFERENT_CHARACTERS = 10
"""`changeme`, repeated until it is long enough, has seven."""


def refuse_exposed(settings: Settings) -> None:
    """Raises: StartError, when others than this machine can reach what its settings leave open."""
    _refuse_one_key_for_two(settings)
    if is_loopback(settings.host):
        return
    for name, key in _given_keys(settings).items():
        if _is_guessable(key):
            raise StartError(
                f"{name} can be guessed, and DPO_HOST is {settings.host}, which others can reach: give "
                f"{MIN_KEY_CHARACTERS} random characters or more (`openssl rand -hex 32`)."
            )
    if settings.webhook_allow_loopback:
        raise StartError(
            f"DPO_WEBHOOK_ALLOW_LOOPBACK is for tests, and DPO_HOST is {settings.host}, which others can reach: their "
            "webhooks could then call what listens on this machine alone. Unset one of the two."
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_one_key_for_two(settings: Settings) -> None:
    keys = _given_keys(settings)
    for name, key in keys.items():
        others = [other for other in keys if other < name and keys[other] == key]
        if others:
            raise StartError(
                f"{name} and {others[0]} are the same: who holds one would hold the other. Give each its own."
            )


def _given_keys(settings: Settings) -> dict[str, str]:
    """By the variable's name."""
    keys: dict[str, SecretStr | None] = {
        "DPO_BOOTSTRAP_KEY": settings.bootstrap_key,
        "DPO_BOOTSTRAP_ADMIN_KEY": settings.bootstrap_admin_key,
        "DPO_WEBHOOK_KEY": settings.webhook_key,
    }
    return {name: key.get_secret_value() for name, key in keys.items() if key is not None}


def _is_guessable(key: str) -> bool:
    return len(key) < MIN_KEY_CHARACTERS or len(set(key)) < MIN_DIFFERENT_CHARACTERS
