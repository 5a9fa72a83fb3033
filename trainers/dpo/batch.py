"""Padded batches: the plain layout, one row a side, that every causal model can run.

B = pairs, T = tokens of the longest row, N = predicted completion tokens, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.log_probs import log_collisions, token_log_probs
from trainers.models.lora import Policy

PADDING = 0
"""The id in every vocabulary: a tokenizer's own padding token may have been added to the tokenizer alone."""


@dataclass(frozen=True, slots=True)
class PaddedSide:
    token_ids_BT: Tensor
    attention_mask_BT: Tensor
    """True where a token is, False on padding."""
    completion_mask_BT: Tensor

    def to(self, device: torch.device) -> "PaddedSide":
        return PaddedSide(
            self.token_ids_BT.to(device), self.attention_mask_BT.to(device), self.completion_mask_BT.to(device)
        )


@dataclass(frozen=True, slots=True)
class PreferenceBatch:
    chosen: PaddedSide
    rejected: PaddedSide


@dataclass(frozen=True, slots=True)
class LogitStates:
    lengths: Tensor
    targets: Tensor
    logits_NV: Tensor

    def log_probs(self) -> tuple[Tensor, Tensor]:
        return token_log_probs(self.logits_NV, self.targets)

    def log_probs_and_collisions(self) -> tuple[Tensor, Tensor, Tensor]:
        return *self.log_probs(), log_collisions(self.logits_NV)

    def logits(self, start: int, end: int) -> Tensor:
        return self.logits_NV[start:end]


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    policy: Policy
    device: torch.device

    @property
    def pads(self) -> bool:
        return True

    def states(self, pairs: Sequence[PairTokens]) -> LogitStates:
        batch = pad_pairs(pairs)
        chosen = self._side_states(batch.chosen)
        if not any(pair.rejected for pair in pairs):
            return LogitStates(
                torch.cat([chosen.lengths, torch.zeros_like(chosen.lengths)]), chosen.targets, chosen.logits_NV
            )
        return _join(chosen, self._side_states(batch.rejected))

    def _side_states(self, side_on_host: PaddedSide) -> LogitStates:
        side = side_on_host.to(self.device)
        output = self.policy.causal_lm()(
            input_ids=side.token_ids_BT, attention_mask=side.attention_mask_BT, use_cache=False
        )
        mask_BS = side.completion_mask_BT[:, 1:]
        return LogitStates(mask_BS.sum(dim=1), side.token_ids_BT[:, 1:][mask_BS], output.logits[:, :-1][mask_BS])


def pad_pairs(pairs: Sequence[PairTokens]) -> PreferenceBatch:
    chosen = [(pair.prompt, pair.chosen) for pair in pairs]
    rejected = [(pair.prompt, pair.rejected) for pair in pairs]
    return PreferenceBatch(_pad(chosen), _pad(rejected))


def _pad(rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> PaddedSide:
    """Pad on the right: the positions of tokens are then those of an unpadded row."""
    longest = max(len(prompt) + len(completion) for prompt, completion in rows)
    shape = (len(rows), longest)
    token_ids = torch.full(shape, PADDING, dtype=torch.long)
    attention = torch.zeros(shape, dtype=torch.bool)
    completions = torch.zeros(shape, dtype=torch.bool)
    for number, (prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion)
        token_ids[number, :length] = torch.tensor(prompt + completion, dtype=torch.long)
        attention[number, :length] = True
        completions[number, len(prompt) : length] = True
    return PaddedSide(token_ids, attention, completions)


def _join(chosen: LogitStates, rejected: LogitStates) -> LogitStates:
    return LogitStates(
        torch.cat([chosen.lengths, rejected.lengths]),
        torch.cat([chosen.targets, rejected.targets]),
        torch.cat([chosen.logits_NV, rejected.logits_NV]),
    )
