"""Base weights are hashed once, while something else is done."""

import hashlib
from pathlib import Path

from trainers.models.weight_hashes import hashing_weights


def test_every_weights_file_is_hashed_by_name_and_nothing_else(tmp_path: Path) -> None:
    shards = {f"model-{number}.safetensors": bytes([number]) * (3 * 2**20 + number) for number in range(6)}
    for name, content in (shards | {"config.json": b"{}"}).items():
        (tmp_path / name).write_bytes(content)
    with hashing_weights(tmp_path) as weights:
        hashed = weights.hashed()
    assert [(file.path, file.sha256, file.bytes) for file in hashed] == [
        (name, hashlib.sha256(content).hexdigest(), len(content)) for name, content in shards.items()
    ]


def test_a_folder_that_is_not_there_has_no_weights(tmp_path: Path) -> None:
    with hashing_weights(tmp_path / "nowhere") as weights:
        assert weights.hashed() == ()
