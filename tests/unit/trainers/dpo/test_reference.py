"""The contract of the first step, and the table of reference log-probs."""

from dataclasses import replace

import pytest
import torch

from trainers.dpo.loss import LOSSES, LossOptions, LossType, loss_at_reference
from trainers.dpo.reference import ReferenceTable, check_first_step
from trainers.errors import ReferenceContractBroken
from trainers.metrics import PairSums

COMPARING = [name for name in LOSSES if name != "sft"]


def options_of(*losses: LossType) -> LossOptions:
    return LossOptions(terms=dict.fromkeys(losses, 1.0), beta=0.1, label_smoothing=0.1)


def sums(loss: LossOptions, *, margin: float = 0.0) -> PairSums:
    expected = loss_at_reference(loss)
    return replace(
        PairSums(**dict.fromkeys(PairSums.__dataclass_fields__, 0.0)),
        pairs=4.0,
        weights=4.0,
        loss=4 * expected.value if expected else 1e6,
        rewards_chosen=4 * margin,
        logps_chosen=-400.0,
        logps_rejected=-400.0,
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_policy_at_its_reference_passes(name: LossType) -> None:
    check_first_step(sums(options_of(name)), options_of(name), precision_tolerance=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_margin_before_the_first_update_is_refused(name: LossType) -> None:
    with pytest.raises(ReferenceContractBroken, match=r"margin is 0\.01.* nothing was trained"):
        check_first_step(sums(options_of(name), margin=0.01), options_of(name), precision_tolerance=1e-5)


@pytest.mark.parametrize("name", COMPARING)
def test_a_loss_off_its_value_at_the_reference_is_refused(name: LossType) -> None:
    off = sums(options_of(name))
    off = replace(off, loss=off.loss * 1.02)
    with pytest.raises(ReferenceContractBroken, match="nothing was trained"):
        check_first_step(off, options_of(name), precision_tolerance=1e-5)


def test_an_overflow_says_nothing_of_the_reference() -> None:
    loss = replace(options_of("ipo"), beta=1e-30)
    check_first_step(replace(sums(loss), loss=float("inf")), loss, precision_tolerance=1e-5)


def test_large_numbers_are_told_in_few_digits() -> None:
    loss = replace(options_of("ipo"), beta=1e-15)
    off = replace(sums(loss), loss=1e31)
    with pytest.raises(ReferenceContractBroken, match=r"loss is 2\.5e\+30, .* loss 2\.5e\+29;"):
        check_first_step(off, loss, precision_tolerance=1e-5)


@pytest.mark.parametrize("loss", [options_of("sigmoid", "sft"), replace(options_of("sigmoid"), use_weighting=True)])
def test_where_the_loss_depends_on_the_pair_the_margin_alone_is_held(loss: LossOptions) -> None:
    check_first_step(sums(loss), loss, precision_tolerance=1e-5)


def test_the_table_knows_what_it_was_told() -> None:
    table = ReferenceTable(3)
    table.keep([2, 0], torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]))
    assert table.knows([0, 2])
    assert not table.knows([0, 1])
    assert table.of([0, 2], device=torch.device("cpu")).tolist() == [[-3.0, -4.0], [-1.0, -2.0]]
