"""The gradient and the loss of maximum likelihood against torch's own cross entropy, row by row."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tiny_runs import DPO
from tests.unit.trainers.dpo.test_step import CPU, PAIRS, layout, moved_policy
from trainers.data.chat_tokens import PairTokens
from trainers.dpo.objective import Objective
from trainers.sft.step import TokenSums, accumulate_gradients, demonstrations, predicted_tokens

WITHOUT_PROMPT = PairTokens((), (57, 58, 2), (65, 2), line=4, row_id=None)


def naive_nats(pair: PairTokens, model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.tensor([pair.prompt + pair.chosen])
    begins_at = max(1, len(pair.prompt))
    return cross_entropy(model(input_ids=tokens).logits[0, begins_at - 1 : -1], tokens[0, begins_at:], reduction="sum")


@pytest.mark.parametrize("name", ["padded", "packed"])
@pytest.mark.parametrize("cuts", [((0, 1, 2, 3),), ((2,), (0, 3), (1,))], ids=["one pass", "three passes"])
def test_the_loss_and_its_gradient_are_cross_entropys(name: str, cuts: tuple[tuple[int, ...], ...]) -> None:
    policy = moved_policy()
    pairs = [*PAIRS, WITHOUT_PROMPT]
    step_tokens = predicted_tokens(pairs)
    assert step_tokens == 3 + 2 + 5 + 2
    naive = torch.stack([naive_nats(pair, policy.model) for pair in pairs]).sum() / step_tokens
    expected = torch.autograd.grad(naive, policy.parameters())

    rows = demonstrations(pairs)
    passes = [[rows[index] for index in part] for part in cuts]
    objective = Objective(policy, layout(name, policy), DPO, CPU)
    sums = TokenSums(*accumulate_gradients(objective, passes, step_tokens=step_tokens).tolist())
    assert sums.nats / sums.weights == pytest.approx(naive.item(), rel=1e-5)
    assert sums.tokens == sums.weights == step_tokens
    assert sums.trained_tokens == sum(len(pair.prompt) + len(pair.chosen) for pair in pairs)
    for parameter, gradient in zip(policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["padded", "packed"])
def test_the_rejected_sides_are_not_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = moved_policy()
    seen: list[int] = []
    forward = policy.causal_lm().base_model.forward

    def counting(*arguments: object, **options: object) -> object:
        seen.append(options["input_ids"].numel())  # type: ignore[attr-defined]
        return forward(*arguments, **options)

    monkeypatch.setattr(policy.causal_lm().base_model, "forward", counting)
    accumulate_gradients(Objective(policy, layout(name, policy), DPO, CPU), [demonstrations(PAIRS[:1])], step_tokens=3)
    assert seen == [len(PAIRS[0].prompt) + len(PAIRS[0].chosen)]


@pytest.mark.parametrize("name", ["padded", "packed"])
@pytest.mark.parametrize("cuts", [((0, 1, 2),), ((2,), (0, 1))], ids=["one pass", "two passes"])
def test_a_rows_weight_multiplies_its_part_of_the_gradient(name: str, cuts: tuple[tuple[int, ...], ...]) -> None:
    policy, weights = moved_policy(), (0.5, 2.0, 0.25)
    nats = torch.stack([naive_nats(pair, policy.model) * weight for pair, weight in zip(PAIRS, weights, strict=True)])
    expected = torch.autograd.grad(nats.sum() / (3 + 2 + 5), policy.parameters())

    rows = demonstrations([replace(pair, weight=weight) for pair, weight in zip(PAIRS, weights, strict=True)])
    passes = [[rows[index] for index in part] for part in cuts]
    objective = Objective(policy, layout(name, policy), DPO, CPU)
    sums = TokenSums(*accumulate_gradients(objective, passes, step_tokens=predicted_tokens(rows)).tolist())
    for parameter, gradient in zip(policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
    assert sums.weights == 0.5 * 3 + 2.0 * 2 + 0.25 * 5
    assert sums.nats == pytest.approx(nats.sum().item(), rel=1e-5)
    assert sums.tokens == 3 + 2 + 5
