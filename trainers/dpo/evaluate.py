"""The policy on the validation pairs: the training metrics, and the exact KL from the reference at every position.

The reference never changes: what it makes of a pass is kept, so that later evaluations need the policy's pass alone.
B = pairs of a pass, M = predicted completion tokens, D = hidden size.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from schemas.run_spec import DpoParameters
from trainers.data.chat_tokens import PairTokens
from trainers.distributed import Workers
from trainers.dpo.coupled_step import StepTable, step_loss
from trainers.dpo.log_probs import log_collisions, token_divergence, token_log_probs
from trainers.dpo.objective import Objective, StepSizes, pair_losses, score_sums
from trainers.dpo.packed_batch import HiddenStates
from trainers.dpo.plan import micro_batches, shard
from trainers.dpo.rounds import PassShape, make_passes
from trainers.dpo.scores import CompletionStates, PairScores, gather_scores
from trainers.metrics import FIELDS, PairSums, as_vector, from_vector
from trainers.pass_memory import all_fit
from trainers.stop_signal import StopRequested, StopSignal

POSITIONS_AT_ONCE = 128
"""Positions whose logits over the whole vocabulary, of policy and reference, are held at a time."""
KEPT_BYTES = 256 * 2**20
"""Of the reference's hidden states on this worker's host: 116,508 positions of a model of 576 float32 dimensions."""


class ReferenceStates:
    """The reference's states of each pass, its hidden states kept on the host while there is room.

    Padded passes have logits instead, the vocabulary wide: those are computed each time.
    """

    def __init__(self, *, room_bytes: int = KEPT_BYTES) -> None:
        self._all_room_bytes = self._room_bytes = room_bytes
        self._kept: dict[tuple[PairTokens, ...], Tensor] = {}
        self._token_budget = 0

    def knows(self, passes: Sequence[Sequence[PairTokens]]) -> bool:
        return all(tuple(pairs) in self._kept for pairs in passes)

    def fit(self, token_budget: int) -> None:
        """Forget all that was kept under another budget: its passes will not be met again."""
        if token_budget != self._token_budget:
            self.forget()
        self._token_budget = token_budget

    def forget(self) -> None:
        self._room_bytes = self._all_room_bytes
        self._kept.clear()

    def of(self, objective: Objective, pairs: Sequence[PairTokens], policy: CompletionStates) -> CompletionStates:
        """Return the reference's states where `policy` has the policy's."""
        kept_MD = self._kept.get(tuple(pairs))
        if kept_MD is not None and isinstance(policy, HiddenStates):
            return replace(policy, hidden_MD=kept_MD.to(policy.hidden_MD.device))
        with objective.policy.as_reference():
            states = objective.layout.states(pairs)
        if isinstance(states, HiddenStates) and states.hidden_MD.nbytes <= self._room_bytes:
            self._room_bytes -= states.hidden_MD.nbytes
            self._kept[tuple(pairs)] = states.hidden_MD.cpu()
        return states


def evaluate(
    objective: Objective,
    pairs: Sequence[PairTokens],
    workers: Workers,
    reference: ReferenceStates,
    *,
    token_budget: int,
    stop: StopSignal,
) -> PairSums:
    """Return the sums over all validation pairs of all workers; what couples pairs couples all of them.

    Raises: RanOutOfMemory; StopRequested, on all workers when one was asked to stop.
    """
    mine = shard(range(len(pairs)), pairs, rank=workers.rank, world_size=workers.world_size)
    sizes, is_coupled = StepSizes.of(pairs), objective.loss.is_coupled
    table = StepTable(range(len(pairs)), device=objective.device)
    total = torch.zeros(len(FIELDS), dtype=torch.float64, device=objective.device)

    def make(indices: Sequence[int]) -> None:
        if objective.policy.sharded is None and stop.is_requested:
            return  # its passes are nobody else's, and their sums are not asked for any more
        batch = [pairs[index] for index in indices]
        policy, reference_B2, divergence = _compare(objective, batch, reference)
        total.add_(divergence)
        if is_coupled:
            table.keep(indices, policy, reference_B2)
            total.add_(score_sums(policy, reference_B2, batch, objective))
        else:
            total.add_(pair_losses(policy, reference_B2, batch, objective, sizes)[1])

    reference.fit(token_budget)
    passes = micro_batches(mine, pairs, token_budget=token_budget, pads=objective.layout.pads)
    with all_fit(workers), torch.no_grad():
        make_passes(
            objective, passes, make, _shape(objective, [[pairs[i] for i in part] for part in passes], reference)
        )
    if not workers.all(not stop.is_requested):
        raise StopRequested
    summed = workers.sum(total)
    if is_coupled:
        loss = step_loss(*table.gather(workers), pairs, objective)
        summed += as_vector(device=objective.device, loss=loss)
    return from_vector(summed.tolist())


def _shape(objective: Objective, passes: Sequence[Sequence[PairTokens]], reference: ReferenceStates) -> PassShape:
    """With a sharded base the workers make the reference's passes all together, or all find them made."""
    sharded = objective.policy.sharded
    if sharded is None or sharded.workers.all(reference.knows(passes)):
        return PassShape(forwards=1, has_gradient=False)
    reference.forget()
    return PassShape(forwards=2, has_gradient=False)


def _compare(
    objective: Objective, pairs: Sequence[PairTokens], reference: ReferenceStates
) -> tuple[PairScores, Tensor, Tensor]:
    """Return the policy's scores, the reference's log-probs (B, 2) and the vector of KL's sums."""
    policy_states = objective.layout.states(pairs)
    reference_states = reference.of(objective, pairs, policy_states)
    policy, still, kl = _compare_states(policy_states, reference_states, objective.dpo)
    reference_B2 = torch.stack([still.chosen.log_probs_B, still.rejected.log_probs_B], dim=1)
    return policy, reference_B2, as_vector(device=objective.device, kl=kl, kl_positions=policy_states.lengths.sum())


def _compare_states(
    policy: CompletionStates, reference: CompletionStates, dpo: DpoParameters
) -> tuple[PairScores, PairScores, Tensor]:
    """Score both and sum KL(policy || reference) over the positions, some positions at a time."""
    policy_parts, reference_parts, divergences = [], [], []
    positions = len(policy.targets)
    for start in range(0, positions, POSITIONS_AT_ONCE):
        end = min(start + POSITIONS_AT_ONCE, positions)
        policy_logits, reference_logits = policy.logits(start, end), reference.logits(start, end)
        collisions = [log_collisions(policy_logits)] if dpo.use_weighting else []
        policy_parts.append((*token_log_probs(policy_logits, policy.targets[start:end]), *collisions))
        reference_parts.append(token_log_probs(reference_logits, policy.targets[start:end]))
        divergences.append(token_divergence(policy_logits, reference_logits).double().sum())
    return (
        _gather(policy_parts, policy.lengths, dpo),
        _gather(reference_parts, policy.lengths, dpo),
        torch.stack(divergences).sum(),
    )


def _gather(parts: Sequence[tuple[Tensor, ...]], lengths: Tensor, dpo: DpoParameters) -> PairScores:
    return gather_scores(*map(torch.cat, zip(*parts, strict=True)), lengths=lengths, ld_alpha=dpo.ld_alpha)
