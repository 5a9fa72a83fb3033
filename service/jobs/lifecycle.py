"""The life of a job, as pure transitions. A terminal state never changes.

    validating_files → queued → running → succeeded
            ├────────────┼─────────┼────→ failed | cancelled
            └──────────→ paused ←──┘       (from paused: back to the queue, or failed | cancelled;
                                            from running, too: preempted by another job)

A lost run does not move its job: the job stays `running` and its next attempt goes on from the last checkpoint.
Cancelling and pausing are immediate; the dispatcher then stops the run. A cancelled job takes nothing more from it, a
paused one still takes the steps up to the checkpoint that the run leaves, and its next attempt waits for that.
"""

from schemas.fine_tuning import JobStatus

ALLOWED: dict[JobStatus, frozenset[JobStatus]] = {
    "validating_files": frozenset({"queued", "paused", "failed", "cancelled"}),
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    "running": frozenset({"succeeded", "queued", "paused", "failed", "cancelled"}),
    "paused": frozenset({"validating_files", "queued", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


class IllegalTransition(ValueError):
    """A job cannot go from its status to the one asked for."""


def advance(seen: JobStatus, to: JobStatus) -> JobStatus:
    """Return `to`. Raises: IllegalTransition."""
    if to not in ALLOWED[seen]:
        raise IllegalTransition(f"a {seen} job cannot become {to}")
    return to


def parse_status(stored: str) -> JobStatus:
    """Return the status as its type; the table's own constraint admits no other."""
    return next(status for status in ALLOWED if status == stored)


def is_terminal(status: JobStatus) -> bool:
    return not ALLOWED[status]
