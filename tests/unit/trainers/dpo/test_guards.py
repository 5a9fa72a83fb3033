"""Guards on evaluations written by hand: which is breached, when it fires, which adapter is the best."""

import pytest

from schemas.run_record import EvaluationMetrics
from schemas.run_spec import GuardParameters
from trainers.dpo.guard_messages import guard_event
from trainers.dpo.guards import Watch, look, replay

BETA = 0.1
NONE = GuardParameters(max_kl=None, min_chosen_logp_ratio=None, max_valid_loss_rise=None, patience=1, action="stop")


def evaluation(step: int, *, loss: float = 0.6, kl: float = 0.1, chosen_ratio: float = 0.0) -> EvaluationMetrics:
    values = dict.fromkeys(EvaluationMetrics.model_fields, 0.5)
    return EvaluationMetrics.model_validate(
        values
        | {"step": step, "total_steps": 99, "valid_loss": loss, "valid_kl": kl}
        | {"valid_rewards_chosen": BETA * chosen_ratio}
    )


def guards(**values: object) -> GuardParameters:
    return NONE.model_copy(update=values)


def fired_steps(limits: GuardParameters, evaluations: list[EvaluationMetrics]) -> list[int]:
    watch, steps = Watch(), []
    for each in evaluations:
        watch = look(watch, each, limits, beta=BETA)
        if watch.fired:
            steps.append(each.step)
    return steps


def of_kl(*values: float) -> list[EvaluationMetrics]:
    return [evaluation(step, kl=value) for step, value in enumerate(values, 1)]


def of_loss(*values: float) -> list[EvaluationMetrics]:
    return [evaluation(step, loss=value) for step, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("limits", "evaluations", "fires_at"),
    [
        (guards(max_kl=0.5), of_kl(0.4, 0.5, 0.51), [3]),
        (guards(min_chosen_logp_ratio=-10), [evaluation(1, chosen_ratio=-9), evaluation(2, chosen_ratio=-11)], [2]),
        (guards(max_valid_loss_rise=0.25), of_loss(0.5, 0.75, 0.8), [3]),
        (guards(max_valid_loss_rise=0.0), of_loss(0.6, 0.6, 0.5, 0.5, 0.51), [5]),
        (guards(max_valid_loss_rise=0.1), of_loss(0.9, 0.95, 0.5, 0.55), []),
    ],
    ids=["KL", "chosen ratio", "loss rise", "any rise", "a rise before a lower loss"],
)
def test_a_guard_fires_beyond_its_limit(
    limits: GuardParameters, evaluations: list[EvaluationMetrics], fires_at: list[int]
) -> None:
    assert fired_steps(limits, evaluations) == fires_at


def test_patience_counts_evaluations_in_a_row() -> None:
    assert fired_steps(guards(max_kl=0.5, patience=2), of_kl(0.6, 0.4, 0.6, 0.7)) == [4]


def test_a_warning_is_told_once_an_episode() -> None:
    limits = guards(max_kl=0.5, patience=2, action="warn")
    assert fired_steps(limits, of_kl(0.6, 0.6, 0.6, 0.6, 0.4, 0.6, 0.6, 0.6)) == [2, 7]


def test_after_a_pause_patience_counts_anew() -> None:
    limits = guards(max_kl=0.5, patience=3, action="pause")
    assert fired_steps(limits, of_kl(0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6)) == [3, 6]


def test_each_guard_counts_by_itself() -> None:
    both = guards(max_kl=0.5, max_valid_loss_rise=0.1, patience=2)
    assert fired_steps(both, [evaluation(1, loss=0.5), evaluation(2, kl=0.6), evaluation(3, loss=0.7)]) == []


def test_a_replay_of_any_beginning_goes_on_as_the_whole() -> None:
    limits = guards(max_kl=0.5, max_valid_loss_rise=0.0, patience=2, action="pause")
    story = [evaluation(n, loss=0.5 + n % 3 / 10, kl=0.3 + n % 4 / 10) for n in range(1, 12)]
    whole = replay(story, limits, beta=BETA)
    for cut in range(len(story)):
        watch = replay(story[:cut], limits, beta=BETA)
        for each in story[cut:]:
            watch = look(watch, each, limits, beta=BETA)
        assert watch == whole


@pytest.mark.parametrize(
    ("evaluations", "best"),
    [
        ([evaluation(1, loss=0.6), evaluation(2, loss=0.5), evaluation(3, loss=0.5)], 2),
        ([evaluation(1, loss=0.6), evaluation(2, loss=0.5), evaluation(3, loss=0.4, kl=0.9)], 2),
        ([evaluation(1, loss=0.4, kl=0.9), evaluation(2, loss=0.6)], 2),
        ([evaluation(1, loss=0.6, kl=0.9), evaluation(2, loss=0.4, kl=0.9), evaluation(3, loss=0.5, kl=0.9)], 2),
    ],
    ids=["lowest loss, the earlier of equals", "not one in breach", "in breach only until another", "all in breach"],
)
def test_the_best_is_the_lowest_loss_without_a_breach(evaluations: list[EvaluationMetrics], best: int) -> None:
    found = replay(evaluations, guards(max_kl=0.5), beta=BETA).best
    assert found is not None
    assert found.step == best


def test_a_stop_is_told_with_step_measure_and_result() -> None:
    limits = guards(max_kl=0.5, patience=2)
    story = [evaluation(30, loss=0.58), evaluation(35, loss=0.57, kl=0.55), evaluation(40, loss=0.56, kl=0.61)]
    event = guard_event(replay(story, limits, beta=BETA), "stop")
    assert (event.key, event.level) == ("guard:40", "warn")
    assert event.message == (
        "validation KL 0.61 at step 40 is above max_kl 0.5 for 2 evaluations in a row; "
        "stopping; the adapter of step 30 (lowest validation loss 0.58) is the result"
    )


def test_a_result_in_breach_is_told_as_such() -> None:
    event = guard_event(replay(of_kl(0.9), guards(max_kl=0.5), beta=BETA), "stop")
    assert event.message.endswith(
        "(lowest validation loss of all, 0.6: a guard was breached at every evaluation) is the result"
    )


def test_guards_that_fire_together_are_told_together() -> None:
    limits = guards(min_chosen_logp_ratio=-5, max_valid_loss_rise=0.05, action="pause")
    story = [evaluation(1, loss=0.5), evaluation(2, loss=0.625, chosen_ratio=-8)]
    assert guard_event(replay(story, limits, beta=BETA), "pause").message == (
        "the chosen completions' log-probability lies -8 nats from the reference's at step 2, "
        "below min_chosen_logp_ratio -5 and "
        "validation loss at step 2 is 0.125 above its lowest, more than max_valid_loss_rise 0.05; "
        "pausing; resume the job to go on from here, or cancel it"
    )
