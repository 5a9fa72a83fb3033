"""Secrets and signatures, held against the stock client's own verification."""

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from service.clock import unix_seconds, utc_now
from service.webhooks.signing import SigningKeyChanged, WebhookSigner

BODY = b'{"type":"fine_tuning.job.succeeded"}'
SIGNER = WebhookSigner(b"one key")


def verify(headers: dict[str, str], secret: str, body: bytes = BODY) -> None:
    with OpenAI(api_key="k") as client:
        client.webhooks.verify_signature(body, headers, secret=secret)


def signed(seeds: list[str]) -> dict[str, str]:
    return SIGNER.headers("whe_1", seeds, message_id="wh_1", sent_at=unix_seconds(utc_now()), body=BODY)


def test_the_stock_client_verifies_what_is_signed() -> None:
    seed = SIGNER.new_seed()
    verify(signed([seed]), SIGNER.secret("whe_1", seed))


def test_during_a_rotation_both_secrets_verify() -> None:
    new, old = SIGNER.new_seed(), SIGNER.new_seed()
    for seed in (new, old):
        verify(signed([new, old]), SIGNER.secret("whe_1", seed))


def test_another_body_secret_or_endpoint_does_not_verify() -> None:
    seed = SIGNER.new_seed()
    headers = signed([seed])
    with pytest.raises(InvalidWebhookSignatureError):
        verify(headers, SIGNER.secret("whe_1", seed), body=BODY + b" ")
    for secret in (SIGNER.secret("whe_1", SIGNER.new_seed()), SIGNER.secret("whe_2", seed)):
        with pytest.raises(InvalidWebhookSignatureError):
            verify(headers, secret)


def test_a_seed_tells_nothing_and_signs_under_its_own_key_alone() -> None:
    seed, other = SIGNER.new_seed(), WebhookSigner(b"another key")
    assert seed not in SIGNER.secret("whe_1", seed)
    with pytest.raises(SigningKeyChanged, match="rotate the secret"):
        other.headers("whe_1", [seed], message_id="wh_1", sent_at=0, body=BODY)
    assert other.hint("whe_1", seed) is None
    assert SIGNER.hint("whe_1", seed) == f"whsec_…{SIGNER.secret('whe_1', seed)[-4:]}"
