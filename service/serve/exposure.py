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
    if not is_loopback(settings.host):
        _refuse_open(settings, f"DPO_HOST is {settings.host}, which others can reach")


def refuse_exposed_elsewhere(settings: Settings) -> None:
    """Of a process that does not listen: the APIs that share its database may, and where cannot be seen from here.

    Raises: StartError.
    """
    refuse_exposed(settings)
    if settings.database_url is not None:
        _refuse_open(settings, "DPO_DATABASE_URL is set: others may reach the APIs that share it")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_open(settings: Settings, reach: str) -> None:
    for name, key in _given_keys(settings).items():
        if _is_guessable(key):
            raise StartError(
                f"{name} can be guessed, and {reach}. Give {MIN_KEY_CHARACTERS} random characters or more "
                "(`openssl rand -hex 32`)."
            )
    if settings.webhook_allow_loopback:
        raise StartError(
            f"DPO_WEBHOOK_ALLOW_LOOPBACK is for tests, and {reach}. Their webhooks could then call what listens on "
            "this machine alone; unset one of the two."
        )


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
