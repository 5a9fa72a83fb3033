"""Packed batches: `[shared | chosen | rejected]` end to end, no padding, the head only at completions.

Shared are the prompt and the completions' common first tokens: computed once, they predict for both sides.

M = predicted completion tokens: the chosen sides of all pairs, then the rejected ones, end to end. N = packed tokens.
U = tokens that predict one or two. D = hidden size, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.completion_head import score_tokens
from trainers.host_numbers import to_device
from trainers.models.last_layer import last_layer_only_at
from trainers.models.lora import Policy
from trainers.models.packed_attention import attend_packed
from trainers.models.packed_segments import Segment


@dataclass(frozen=True, slots=True)
class PackedRow:
    token_ids_N: Tensor
    position_ids_N: Tensor
    """Rejected tokens count on from the shared ones, as if no chosen ones lay between."""
    predictor_M: Tensor
    """Index of the token whose hidden state predicts: a side's first token is predicted by the prompt's last."""
    target_M: Tensor
    predicting_U: Tensor
    lengths: Tensor
    """Predicted tokens of each side: the chosen ones, then the rejected ones."""
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class HiddenStates:
    lengths: Tensor
    targets: Tensor
    hidden_MD: Tensor
    head_weight_VD: Tensor

    def log_probs(self) -> tuple[Tensor, Tensor]:
        scores = score_tokens(self.hidden_MD, self.head_weight_VD, self.targets)
        return scores.log_probs_M, scores.is_argmax_M

    def log_probs_and_collisions(self) -> tuple[Tensor, Tensor, Tensor]:
        scores = score_tokens(self.hidden_MD, self.head_weight_VD, self.targets, with_collisions=True)
        return scores.log_probs_M, scores.is_argmax_M, scores.log_collisions_M

    def logits(self, start: int, end: int) -> Tensor:
        return self.hidden_MD[start:end] @ self.head_weight_VD.T


@dataclass(frozen=True, slots=True)
class PackedLayout:
    policy: Policy
    device: torch.device
    longest_row: int
    """Prompt and longer side of the job's longest pair: a model that looks back less far is refused at once."""

    @property
    def pads(self) -> bool:
        return False

    def states(self, pairs: Sequence[PairTokens]) -> HiddenStates:
        row = pack_pairs(pairs, device=self.device)
        model = self.policy.causal_lm()
        with attend_packed(model), last_layer_only_at(model, row.predicting_U):
            output = model.base_model(
                input_ids=row.token_ids_N[None],
                position_ids=row.position_ids_N[None],
                use_cache=False,
                segments=row.segments,
                longest_row=self.longest_row,
            )
        hidden_MD = output.last_hidden_state[0, row.predictor_M]
        return HiddenStates(row.lengths, row.target_M, hidden_MD, _head_weight(self.policy))


def pack_pairs(pairs: Sequence[PairTokens], *, device: torch.device) -> PackedRow:
    """Lay pairs end to end. A side's token without a token before it (an empty prompt) is not predicted."""
    token_ids: list[int] = []
    position_ids: list[int] = []
    segments: list[Segment] = []
    chosen, rejected = _Side(), _Side()
    for pair in pairs:
        start, common, prompt = len(token_ids), pair.common_tokens, len(pair.prompt)
        segment = Segment(prompt + common, len(pair.chosen) - common, len(pair.rejected) - common)
        token_ids += pair.prompt + pair.chosen + pair.rejected[common:]
        position_ids += [*range(prompt + len(pair.chosen)), *range(segment.shared, prompt + len(pair.rejected))]
        after_shared, after_chosen = start + segment.shared, start + prompt + len(pair.chosen)
        segments.append(segment)
        chosen.add(pair.chosen, [*range(start, after_chosen)])
        rejected.add(pair.rejected, [*range(start, after_shared), *range(after_chosen, len(token_ids))])
    return PackedRow(
        to_device(token_ids, device),
        to_device(position_ids, device),
        to_device(chosen.predictors + rejected.predictors, device),
        to_device(chosen.targets + rejected.targets, device),
        to_device(sorted({*chosen.predictors, *rejected.predictors}), device),
        to_device(chosen.lengths + rejected.lengths, device),
        tuple(segments),
    )


class _Side:
    """The chosen or the rejected completions of a batch, collected pair by pair."""

    def __init__(self) -> None:
        self.predictors: list[int] = []
        self.targets: list[int] = []
        self.lengths: list[int] = []

    def add(self, completion: tuple[int, ...], places: list[int]) -> None:
        """`places`: where the prompt and the completion lie in the packed row; each token predicts the next."""
        predictors = places[:-1][-len(completion) :] if completion else []
        self.predictors += predictors
        self.targets += completion[len(completion) - len(predictors) :]
        self.lengths.append(len(predictors))


def _head_weight(policy: Policy) -> Tensor:
    head = policy.causal_lm().get_output_embeddings()  # type: ignore[no-untyped-call]
    if type(head) is not nn.Linear or head.bias is not None:
        raise TypeError("the packed layout needs a plain linear head without bias")
    return head.weight
