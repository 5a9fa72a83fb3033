"""Every loss and option = TRL 1.16's, on one batch with an adapter that has moved: loss, gradients, metrics.

TRL's trainer is made once a model; its `_compute_loss` is then asked with each of the options. Not here, since TRL
itself raises there: WPO with `hinge` and with `sft`, whose values it multiplies in place. And `sigmoid` with label
smoothing, which is cDPO here and ignored there.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import DPOTrainer

from schemas.run_spec import DpoParameters
from tests.integration.trl_runs import (
    MAX_LENGTH,
    WARNINGS,
    Choice,
    Weights,
    adapter_of,
    file_name,
    load_adapter,
    make_trl_trainer,
)
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import DPO
from trainers.data.chat_tokens import PairTokens
from trainers.distributed import Workers
from trainers.dpo.coupled_step import accumulate_coupled_gradients
from trainers.dpo.layout import choose_layout
from trainers.dpo.loss import LOSSES
from trainers.dpo.objective import Objective
from trainers.dpo.packed_batch import PackedLayout
from trainers.dpo.reference import ReferenceTable
from trainers.dpo.step import accumulate_gradients
from trainers.metrics import PairSums, from_vector
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.lora import Policy, add_lora

CPU = torch.device("cpu")
BATCH = 8
OF_THE_MARGIN = ("sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop")
CHOICES = [
    *({"loss_type": name} for name in LOSSES if name != "exo_pair"),
    *({"loss_type": name, "label_smoothing": 0.1} for name in ("exo_pair", "robust", "aot", "aot_unpaired")),
    {"loss_type": {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}},
    {"loss_type": {"aot": 0.7, "sigmoid_norm": 0.5, "sft": 0.2}},
    {"loss_type": "discopop", "discopop_tau": 0.7},
    {"loss_type": dict.fromkeys(OF_THE_MARGIN, 0.5), "label_smoothing": 0.1, "f_divergence": "js_divergence"},
    *({"f_divergence": divergence} for divergence in ("forward_kl", "js_divergence", "alpha_divergence")),
    {"f_divergence": "alpha_divergence", "f_alpha_divergence_coef": 1.7, "loss_type": {"ipo": 1.0, "sft": 0.5}},
    {"f_divergence": "alpha_divergence", "f_alpha_divergence_coef": 1.0},
    *({"ld_alpha": alpha, "loss_type": {"sigmoid": 1.0, "ipo": 0.1, "sft": 0.5}} for alpha in (0.0, 0.4, 1.0)),
    {"ld_alpha": 0.4, "loss_type": "aot"},
    *({"use_weighting": True, "loss_type": name} for name in ("sigmoid", "bco_pair", "apo_zero")),
    {"use_weighting": True, "ld_alpha": 0.4, "loss_type": {"sigmoid": 0.5, "ipo": 0.5}},
    {"beta": 0.7, "loss_type": "sppo_hard"},
]


@dataclass(frozen=True, slots=True)
class BothSides:
    trainer: DPOTrainer
    policy: Policy
    layout: PackedLayout
    pairs: list[PairTokens]
    inputs: dict[str, Any]
    """TRL's batch of these pairs."""


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BothSides:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    model, choice = save_tiny_model(folder / "model", architecture=request.param), Choice()
    trainer = make_trl_trainer(model, folder / "trl", choice, use_weighting=True)  # or its head never sums squares
    rows = [trainer.train_dataset[number] for number in range(BATCH)]
    base = AutoModelForCausalLM.from_pretrained(model).eval()
    policy = add_lora(base, choice.parameters, initial=None, reference="initial", seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    load_adapter(trainer, policy.adapter_weights())
    fuse_lora_layers(policy.model)
    pairs = [pair_of(row, line) for line, row in enumerate(rows, 1)]
    layout = choose_layout(policy, pairs, device=CPU).layout
    assert isinstance(layout, PackedLayout)
    return BothSides(trainer, policy, layout, pairs, trainer.data_collator(rows))


def pair_of(row: dict[str, Any], line: int) -> PairTokens:
    room = MAX_LENGTH - len(row["prompt_ids"])
    sides = (tuple(row[name][:room]) for name in ("chosen_ids", "rejected_ids"))
    return PairTokens(tuple(row["prompt_ids"]), *sides, line=line, row_id=None)


@pytest.mark.filterwarnings(*WARNINGS)
@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_a_batchs_loss_gradients_and_metrics_are_trls(both: BothSides, options: dict[str, Any]) -> None:
    loss, their_gradients, metrics = theirs(both, Choice(options))
    sums, our_gradients = ours(both, options)
    assert sums.mean_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    for name, total in (
        ("rewards/chosen", sums.rewards_chosen),
        ("rewards/rejected", sums.rewards_rejected),
        ("rewards/accuracies", sums.ranked_right),
        ("logps/chosen", sums.logps_chosen),
        ("logps/rejected", sums.logps_rejected),
    ):
        assert total / BATCH == pytest.approx(metrics[name], rel=1e-4, abs=1e-5), name
    assert sums.mean_token_accuracy == pytest.approx(metrics["mean_token_accuracy"])
    assert our_gradients.keys() == their_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in their_gradients.values())
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-3, atol=2e-5 * largest, msg=name)


def theirs(both: BothSides, choice: Choice) -> tuple[float, Weights, dict[str, float]]:
    trainer, options = both.trainer, {"label_smoothing": 0.0, "ld_alpha": None, "beta": 0.1} | choice.trl
    options = {"f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, "use_weighting": False} | options
    trainer.args.discopop_tau = options.pop("discopop_tau", 0.05)
    trainer.loss_types = options.pop("loss_type")
    for name, value in options.items():
        assert hasattr(trainer, name)
        setattr(trainer, name, value)
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, dict(both.inputs), False)
    loss.backward()
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    return loss.item(), gradients_of(adapter_of(trainer)), metrics


def ours(both: BothSides, options: dict[str, Any]) -> tuple[PairSums, Weights]:
    objective = Objective(both.policy, both.layout, DpoParameters.model_validate(DPO.model_dump() | options), CPU)
    accumulate = accumulate_gradients
    if objective.loss.is_coupled:
        accumulate = partial(accumulate_coupled_gradients, workers=Workers(0, 1, CPU))
    both.policy.model.zero_grad()
    passes = [[0, 3, 5], [1, 2], [4, 6, 7]]
    sums = accumulate(objective, passes, both.pairs, ReferenceTable(BATCH), step=range(BATCH))
    learning = both.policy.model.named_parameters()
    named = {file_name(name): parameter for name, parameter in learning if parameter.requires_grad}
    return from_vector(sums.tolist()), gradients_of(named)


def gradients_of(parameters: Weights) -> Weights:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in parameters.items()
    }
