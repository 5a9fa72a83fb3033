"""The webhook key: the operator's, or one that stays."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.serve.start_errors import StartError
from service.serve.webhook_key import KEY_NAME, resolve_webhook_key
from service.settings import Settings


def test_the_operators_key_is_taken(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "webhook_key": "k" * 32})
    assert resolve_webhook_key(settings) == b"k" * 32
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "webhook.part").write_bytes(b"left by a kill")
    key = resolve_webhook_key(settings)
    assert len(key) >= 32
    assert resolve_webhook_key(settings) == key
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]
    assert (tmp_path / KEY_NAME).stat().st_mode & 0o777 == 0o600


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="webhook_key"):
        Settings.model_validate({"webhook_key": "secret"})


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / KEY_NAME).mkdir()
    with pytest.raises(StartError, match="DPO_WEBHOOK_KEY"):
        resolve_webhook_key(Settings(data_dir=tmp_path))
