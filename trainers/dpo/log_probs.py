"""Log-probabilities of tokens and of whole completions; pure, reduced in float32.

V = vocabulary, N = completion tokens of many sides, end to end.
"""

import torch
from torch import Tensor


def token_log_probs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(target) in float32, and whether the target is the argmax. Logits have one last dimension more."""
    logits_f32 = logits.float()
    target_logits = logits_f32.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return target_logits - logits_f32.logsumexp(-1), logits_f32.argmax(-1) == targets


def log_collisions(logits: Tensor) -> Tensor:
    """Return log Σ p² over the vocabulary in float32, without gradient: the chance that two samples are the same."""
    logits_f32 = logits.detach().float()
    return (2 * logits_f32).logsumexp(-1) - 2 * logits_f32.logsumexp(-1)


def sum_by_side(values_N: Tensor, lengths: Tensor) -> Tensor:
    """Sum consecutive runs of the given lengths; float32. `segment_reduce` adds in one order, on GPUs too.

    Its own check of the lengths would make the host wait for the device.
    """
    return torch.segment_reduce(values_N.float(), "sum", lengths=lengths, initial=0, unsafe=True)


def token_divergence(policy_logits_NV: Tensor, reference_logits_NV: Tensor) -> Tensor:
    """Return the exact KL(policy || reference) at each position, (N,) float32, in nats."""
    policy_NV = policy_logits_NV.float().log_softmax(-1)
    reference_NV = reference_logits_NV.float().log_softmax(-1)
    return (policy_NV.exp() * (policy_NV - reference_NV)).sum(-1)
