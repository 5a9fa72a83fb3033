"""A guard that fired, in words: which, when, by how much, and what happens."""

from schemas.fine_tuning import GuardAction
from schemas.run_record import RunEvent
from trainers.dpo.guards import Best, Breach, Watch
from trainers.events import warning


def guard_event(watch: Watch, action: GuardAction) -> RunEvent:
    """Tell the guards that fired at the newest evaluation."""
    what = " and ".join(_describe(breach, watch.step) for breach in watch.fired)
    return warning(f"guard:{watch.step}", f"{what}; {_what_happens(watch, action)}")


def why_best(best: Best) -> str:
    loss = f"{best.valid_loss:.4g}"
    if best.is_breached:
        return f"lowest validation loss of all, {loss}: a guard was breached at every evaluation"
    return f"lowest validation loss {loss}"


def _describe(breach: Breach, step: int) -> str:
    measured, limit = f"{breach.measured:.4g}", f"{breach.limit:g}"
    match breach.guard:
        case "max_kl":
            told = f"validation KL {measured} at step {step} is above max_kl {limit}"
        case "min_chosen_logp_ratio":
            told = (
                f"the chosen completions' log-probability lies {measured} nats from the reference's at step {step}, "
                f"below min_chosen_logp_ratio {limit}"
            )
        case "max_valid_loss_rise":
            told = (
                f"validation loss at step {step} is {measured} above its lowest, more than max_valid_loss_rise {limit}"
            )
    return told if breach.in_a_row == 1 else f"{told} for {breach.in_a_row} evaluations in a row"


def _what_happens(watch: Watch, action: GuardAction) -> str:
    match action:
        case "stop":
            assert watch.best is not None, "a guard fires at an evaluation, and one of them is the best"
            return f"stopping; the adapter of step {watch.best.step} ({why_best(watch.best)}) is the result"
        case "pause":
            return "pausing; resume the job to go on from here, or cancel it"
        case "warn":
            return "going on, as the action is warn"
