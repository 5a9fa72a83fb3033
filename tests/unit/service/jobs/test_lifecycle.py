"""Every pair of states, one by one: the table here is written out and not computed."""

import pytest

from schemas.fine_tuning import JobStatus
from service.jobs.lifecycle import ALLOWED, IllegalTransition, advance, is_terminal, parse_status

STATES: tuple[JobStatus, ...] = (
    "validating_files",
    "queued",
    "running",
    "paused",
    "succeeded",
    "failed",
    "cancelled",
)
LEGAL: set[tuple[JobStatus, JobStatus]] = {
    ("validating_files", "queued"),
    ("validating_files", "paused"),
    ("validating_files", "failed"),
    ("validating_files", "cancelled"),
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "succeeded"),
    ("running", "queued"),
    ("running", "failed"),
    ("running", "paused"),
    ("running", "cancelled"),
    ("paused", "validating_files"),
    ("paused", "queued"),
    ("paused", "failed"),
    ("paused", "cancelled"),
}


@pytest.mark.parametrize("seen", STATES)
@pytest.mark.parametrize("to", STATES)
def test_each_pair_of_states_is_a_transition_or_refused(seen: JobStatus, to: JobStatus) -> None:
    if (seen, to) in LEGAL:
        assert advance(seen, to) == to
    else:
        with pytest.raises(IllegalTransition, match=f"a {seen} job cannot become {to}"):
            advance(seen, to)


def test_the_table_names_every_state() -> None:
    assert set(ALLOWED) == set(STATES)
    assert {parse_status(state) for state in STATES} == set(STATES)


@pytest.mark.parametrize("status", STATES)
def test_three_states_are_terminal(status: JobStatus) -> None:
    assert is_terminal(status) is (status in {"succeeded", "failed", "cancelled"})
