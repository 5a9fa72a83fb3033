"""Reference log-probabilities in the object store, shared between jobs: one entry a key, and the key says everything
that the numbers follow from.

An entry is never trusted: it carries a hash over its key and its numbers, and what does not match is no entry.
D = pairs of the training set.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.run_folder import RunFolder

KERNEL_VERSION = 3
"""Raise it with every change of the layouts, the attention or the head that changes their numbers."""
ENTRY_DTYPES = (torch.float32, torch.uint8)


class DamagedEntry(Exception):
    """An entry is there and is not what its key promises."""


@dataclass(frozen=True, slots=True)
class ReferenceIdentity:
    """Everything that changes a pair's two numbers."""

    base_weights_sha256: tuple[str, ...]
    base_config_sha256: str
    reference_sha256: str | None
    """Of the frozen adapter; None: the bare base."""
    pairs_sha256: str
    max_length: int
    dtype: str
    device: str
    layout: str
    gpu_kernels: str | None = None
    quantization: str | None = None
    ld_alpha: float | None = None
    kernel_version: int = KERNEL_VERSION

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def hash_pairs(pairs: Sequence[PairTokens]) -> str:
    """Return the sha256 of every pair's token ids, in the order of the training file."""
    digest = hashlib.sha256()
    for pair in pairs:
        sides = (pair.prompt, pair.chosen, pair.rejected)
        digest.update(array("I", [*map(len, sides), *pair.prompt, *pair.chosen, *pair.rejected]).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class ReferenceEntry:
    """One table under one name of a folder."""

    folder: RunFolder
    name: str
    key: str
    pairs: int

    def read(self) -> Tensor | None:
        """Return the table (D, 2), NaN where it knows nothing; None when there is none.

        Raises: DamagedEntry; OSError, when the store does not answer.
        """
        try:
            content = self.folder.read(self.name)
        except FileNotFoundError:
            return None
        try:
            tensors = load(content)
        except (SafetensorError, ValueError) as reason:
            raise DamagedEntry(f"it cannot be read: {reason}") from reason
        return self._checked(tensors)

    def read_whole(self) -> Tensor | None:
        """Return the table when it knows every pair. Raises: DamagedEntry; OSError."""
        log_probs_D2 = self.read()
        if log_probs_D2 is not None and not log_probs_D2.isfinite().all():
            raise DamagedEntry("it holds numbers that are not finite")
        return log_probs_D2

    def write(self, log_probs_D2: Tensor) -> None:
        """Raises: OSError."""
        sha256 = torch.tensor(list(_digest(self.key, log_probs_D2)), dtype=torch.uint8)
        self.folder.write(self.name, save({"log_probs": log_probs_D2, "sha256": sha256}))

    def delete(self) -> None:
        self.folder.delete(self.name)

    def _checked(self, tensors: dict[str, Tensor]) -> Tensor:
        log_probs_D2, sha256 = tensors.get("log_probs"), tensors.get("sha256")
        if log_probs_D2 is None or sha256 is None or (log_probs_D2.dtype, sha256.dtype) != ENTRY_DTYPES:
            raise DamagedEntry("it is no table of log-probabilities")
        if log_probs_D2.shape != (self.pairs, 2):
            raise DamagedEntry(f"it has the shape {tuple(log_probs_D2.shape)}, not {(self.pairs, 2)}")
        if sha256.numpy().tobytes() != _digest(self.key, log_probs_D2):
            raise DamagedEntry("its numbers do not match its sha256")
        return log_probs_D2


def _digest(key: str, log_probs_D2: Tensor) -> bytes:
    return hashlib.sha256(key.encode() + log_probs_D2.numpy().tobytes()).digest()
