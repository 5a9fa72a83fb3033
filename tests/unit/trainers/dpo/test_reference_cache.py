"""Entries of the reference cache: what is read is what was written, or nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.reference_cache import DamagedEntry, ReferenceEntry, ReferenceIdentity, hash_pairs
from trainers.run_folder import RunFolder

TABLE = torch.tensor([[-1.5, -2.5], [-3.25, -4.0], [-0.125, -9.0]])
NO_HASH = torch.zeros(32, dtype=torch.uint8)
IDENTITY = ReferenceIdentity(("a" * 64,), "b" * 64, None, "c" * 64, 128, "torch.float32", "cpu", "PackedLayout")


@pytest.fixture
def entry(tmp_path: Path) -> ReferenceEntry:
    return ReferenceEntry(RunFolder(str(tmp_path)), "k.safetensors", "k", pairs=3)


def test_what_was_written_is_read_to_the_last_bit(entry: ReferenceEntry) -> None:
    assert entry.read_whole() is None
    entry.write(TABLE)
    found = entry.read_whole()
    assert found is not None
    assert torch.equal(found, TABLE)
    entry.delete()
    assert entry.read_whole() is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b"\x00" * 64, "cannot be read", id="zeros"),
        pytest.param(save({"other": TABLE}), "no table", id="foreign tensors"),
        pytest.param(save({"log_probs": TABLE.double(), "sha256": NO_HASH}), "no table", id="another dtype"),
        pytest.param(save({"log_probs": TABLE[:2], "sha256": NO_HASH}), r"\(2, 2\), not \(3, 2\)", id="another shape"),
        pytest.param(save({"log_probs": TABLE, "sha256": NO_HASH}), "sha256", id="another hash"),
        pytest.param(save({"log_probs": TABLE, "sha256": NO_HASH.float()}), "no table", id="a hash of floats"),
    ],
)
def test_what_is_no_entry_is_told(entry: ReferenceEntry, content: bytes, told: str) -> None:
    entry.folder.write(entry.name, content)
    with pytest.raises(DamagedEntry, match=told):
        entry.read()


def test_every_flipped_bit_and_every_cut_is_noticed(entry: ReferenceEntry) -> None:
    entry.write(TABLE)
    whole = entry.folder.read(entry.name)
    for place in range(len(whole)):
        entry.folder.write(entry.name, whole[:place])
        with pytest.raises(DamagedEntry):
            entry.read()
    for place in range(len(whole) - TABLE.nbytes - 32, len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        entry.folder.write(entry.name, bytes(flipped))
        with pytest.raises(DamagedEntry):
            entry.read()


def test_numbers_under_another_key_are_no_entry(entry: ReferenceEntry) -> None:
    replace(entry, key="other").write(TABLE)
    with pytest.raises(DamagedEntry, match="sha256"):
        entry.read()


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_table_that_is_not_whole_serves_a_resume_and_no_other_job(entry: ReferenceEntry, number: float) -> None:
    table = TABLE.clone()
    table[1, 0] = number
    entry.write(table)
    found = entry.read()
    assert found is not None
    assert torch.equal(found, table) or found.isnan().any()
    with pytest.raises(DamagedEntry, match="not finite"):
        entry.read_whole()


@pytest.mark.parametrize(
    "change",
    [
        {"base_weights_sha256": ("d" * 64,)},
        {"base_config_sha256": "d" * 64},
        {"reference_sha256": "d" * 64},
        {"pairs_sha256": "d" * 64},
        {"max_length": 129},
        {"dtype": "torch.bfloat16"},
        {"device": "cuda"},
        {"layout": "PaddedLayout"},
        {"quantization": "nf4"},
        {"ld_alpha": 0.5},
        {"kernel_version": -1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_changes_the_numbers_changes_the_key(change: dict[str, object]) -> None:
    assert replace(IDENTITY, **change).key != IDENTITY.key  # type: ignore[arg-type]
    assert replace(IDENTITY).key == IDENTITY.key


def test_pairs_are_told_apart_by_tokens_sides_and_order() -> None:
    def pair(*sides: tuple[int, ...], line: int = 1) -> PairTokens:
        return PairTokens(*sides, line=line, row_id=None)

    first, second = pair((1, 2), (3,), (4,)), pair((1,), (2, 3), (4,))
    hashes = [[first], [second], [first, second], [second, first], [pair((1, 2), (4,), (3,))], [pair((1, 2), (3,), ())]]
    assert len({hash_pairs(pairs) for pairs in hashes}) == len(hashes)
    assert hash_pairs([first]) == hash_pairs([pair((1, 2), (3,), (4,), line=9)])
