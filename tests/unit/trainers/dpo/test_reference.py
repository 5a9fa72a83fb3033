"""The contract of the first step, and the table of reference log-probs."""

from dataclasses import replace

import pytest
import torch

from trainers.dpo.loss import LossType, loss_at_reference
from trainers.dpo.reference import ReferenceTable, check_first_step
from trainers.errors import ReferenceContractBroken
from trainers.metrics import PairSums


def sums(loss_type: LossType, *, margin: float = 0.0) -> PairSums:
    zero = dict.fromkeys(PairSums.__dataclass_fields__, 0.0)
    whole = PairSums(**zero)
    loss = 4 * loss_at_reference(loss_type=loss_type, beta=0.1)
    return replace(whole, pairs=4.0, loss=loss, rewards_chosen=4 * margin, logps_chosen=-400.0, logps_rejected=-400.0)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge"])
def test_a_policy_at_its_reference_passes(loss_type: LossType) -> None:
    check_first_step(sums(loss_type), loss_type=loss_type, beta=0.1, precision_tolerance=1e-5)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge"])
def test_a_margin_before_the_first_update_is_refused(loss_type: LossType) -> None:
    with pytest.raises(ReferenceContractBroken, match="nothing was trained"):
        check_first_step(sums(loss_type, margin=0.01), loss_type=loss_type, beta=0.1, precision_tolerance=1e-5)


def test_a_loss_off_its_closed_form_is_refused() -> None:
    with pytest.raises(ReferenceContractBroken, match=r"0\.693147"):
        check_first_step(sums("hinge"), loss_type="sigmoid", beta=0.1, precision_tolerance=1e-5)


def test_the_table_knows_what_it_was_told() -> None:
    table = ReferenceTable(3)
    table.keep([2, 0], torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]))
    assert table.knows([0, 2])
    assert not table.knows([0, 1])
    assert table.of([0, 2], device=torch.device("cpu")).tolist() == [[-3.0, -4.0], [-1.0, -2.0]]
