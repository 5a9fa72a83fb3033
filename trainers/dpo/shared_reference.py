"""A job's reference table between jobs: taken from the cache at its start, given to the cache once it is whole.

A job begins with the same table in each attempt, whatever the cache has by then: another job's numbers, computed in
other passes, differ in their last digits, and a resumed run must tell the numbers of the unbroken one.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from schemas.run_layout import REFERENCE_AT_START
from schemas.run_spec import RunSpec
from trainers.distributed import Workers
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import Progress
from trainers.dpo.reference import PRECISION_TOLERANCE, ReferenceTable, reference_log_probs
from trainers.dpo.reference_cache import DamagedEntry, ReferenceEntry, ReferenceIdentity
from trainers.events import EventLog, message, warning
from trainers.models.weight_hashes import BaseWeights
from trainers.run_folder import RunFolder

COMPARED_PAIRS = 2


@dataclass(slots=True)
class SharedReference:
    """Without a cache in the spec it does nothing. Worker 0 alone reads and writes."""

    folder: RunFolder
    spec: RunSpec
    workers: Workers
    events: EventLog
    _is_from_cache: bool = field(default=False, init=False)
    _lies_in_cache: bool = field(default=False, init=False)
    _key: str = field(default="", init=False)
    _pairs: int = field(default=0, init=False)

    def open(
        self, prepared: Prepared, model_folder: Path, base_weights: BaseWeights | None, progress: Progress
    ) -> None:
        """Give the job the table it begins with; a checkpoint has one of its own."""
        if self.spec.reference_cache is None:
            return
        self._pairs = len(prepared.pairs)
        if base_weights is not None:
            self._key = _identify(self.spec, prepared, model_folder, base_weights, progress.pairs_sha256).key
        if progress.step > 0:
            return
        begun_with = self.workers.from_first(self._table_at_start() if self.workers.writes else None)
        if begun_with is None:
            return
        progress.reference.log_probs_D2.copy_(begun_with)
        self._is_from_cache = progress.reference.is_whole
        if self._is_from_cache:
            self._lies_in_cache = True
            self.events.tell(message("reference", f"Reference log-probs: {self._pairs} pairs from the cache"))
        if self._is_from_cache and not prepared.objective.policy.starts_at_reference:
            self._compare(prepared, progress.reference)

    def keep(self, table: ReferenceTable) -> None:
        """Give the cache a table that has become whole, unless another job was first."""
        if self.spec.reference_cache is None or self._lies_in_cache or not table.is_whole:
            return
        self._lies_in_cache = True
        if self.workers.writes:
            self._write(table)

    def distrust(self, table: ReferenceTable) -> bool:
        """Throw away a table that came from the cache. False: it did not, so there is nothing better to be had."""
        if not self._is_from_cache:
            return False
        self._is_from_cache = self._lies_in_cache = False
        table.forget()
        if self.workers.writes:
            self._at_start(self.folder).write(table.log_probs_D2)
            with suppress(OSError):
                self._cached().delete()
        self.events.tell(
            warning(
                "reference:wrong", "The cached reference log-probs are not this reference's; they are computed anew"
            )
        )
        return True

    def _table_at_start(self) -> Tensor:
        """What an earlier attempt began with, else the cache's, else one that knows nothing."""
        earlier = [RunFolder(self.folder.resolve(uri)) for uri in self.spec.resume_from]
        for folder in [self.folder, *earlier]:
            with suppress(DamagedEntry):
                begun_with = self._at_start(folder).read()
                if begun_with is not None:
                    return begun_with
        cached = self._read_cached()
        table = ReferenceTable(self._pairs).log_probs_D2 if cached is None else cached
        self._at_start(self.folder).write(table)
        return table

    def _read_cached(self) -> Tensor | None:
        try:
            return self._cached().read_whole()
        except DamagedEntry as reason:
            told = f"The cached reference log-probs are damaged ({reason}); they are computed anew"
        except OSError as reason:
            told = f"The reference cache cannot be read ({reason}); this job computes its own reference log-probs"
        self.events.tell(warning("reference:unusable", told))
        return None

    def _write(self, table: ReferenceTable) -> None:
        entry = self._cached()
        try:
            with suppress(DamagedEntry):
                if entry.read_whole() is not None:
                    return
            entry.write(table.log_probs_D2)
        except OSError as reason:
            told = f"The reference log-probs could not be cached ({reason}); the next job computes its own"
            self.events.tell(warning("reference:not-kept", told))
            return
        told = f"Reference log-probs: {self._pairs} pairs computed during the first epoch and cached"
        self.events.tell(message("reference:kept", told))

    def _compare(self, prepared: Prepared, table: ReferenceTable) -> None:
        """The first step's contract cannot see a wrong reference when the policy starts elsewhere; some pairs can."""
        shortest = sorted(range(self._pairs), key=lambda index: prepared.pairs[index].packed_length)[:COMPARED_PAIRS]
        policy, layout = prepared.objective.policy, prepared.objective.layout
        compared, ld_alpha = [prepared.pairs[index] for index in shortest], self.spec.dpo.ld_alpha
        computed_B2 = reference_log_probs(policy, layout, compared, ld_alpha).cpu()
        tolerance = PRECISION_TOLERANCE[self.spec.precision]
        if not torch.allclose(table.log_probs_D2[shortest], computed_B2, rtol=tolerance, atol=tolerance):
            self.distrust(table)

    def _cached(self) -> ReferenceEntry:
        assert self.spec.reference_cache is not None
        cache = RunFolder(self.folder.resolve(self.spec.reference_cache))
        return ReferenceEntry(cache, f"{self._key}.safetensors", self._key, self._pairs)

    def _at_start(self, folder: RunFolder) -> ReferenceEntry:
        return ReferenceEntry(folder, REFERENCE_AT_START, self._key, self._pairs)


def _identify(
    spec: RunSpec, prepared: Prepared, model_folder: Path, base_weights: BaseWeights, pairs_sha256: str
) -> ReferenceIdentity:
    objective = prepared.objective
    return ReferenceIdentity(
        base_weights_sha256=tuple(file.sha256 for file in base_weights.hashed()),
        base_config_sha256=hashlib.sha256((model_folder / "config.json").read_bytes()).hexdigest(),
        reference_sha256=objective.policy.reference_sha256(),
        pairs_sha256=pairs_sha256,
        max_length=spec.dpo.max_length,
        dtype=str(objective.policy.causal_lm().dtype),
        device=objective.device.type,
        layout=type(objective.layout).__name__,
        gpu_kernels=prepared.gpu_kernels,
        quantization=spec.quantization,
        ld_alpha=spec.dpo.ld_alpha,
    )
