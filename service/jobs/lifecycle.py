"""The life of a job, as pure transitions. A terminal state never changes.

    validating_files → queued → running → succeeded
            └────────────┴─────────┴────→ failed | cancelled

A lost run does not move its job: the job stays `running` and its next attempt goes on from the last checkpoint.
Cancelling is immediate; the dispatcher then stops the run, which by its fencing token can publish nothing any more.
"""

from schemas.fine_tuning import JobStatus

ALLOWED: dict[JobStatus, frozenset[JobStatus]] = {
    "validating_files": frozenset({"queued", "failed", "cancelled"}),
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled"}),
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
