"""A step of the dispatcher as an operator sees it: log lines with its job and run, and a span of the job's trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from structlog.contextvars import bound_contextvars

from service.db.tables import JobRow, RunRow
from service.dispatcher.context import DispatchContext
from service.telemetry.tracing import context_of

Step = TypeVar("Step", bound=Callable[..., Any])


@contextmanager
def observed_step(context: DispatchContext, name: str, job: JobRow, run: RunRow | None = None) -> Iterator[None]:
    """An error is told by its type alone: what it says may be a user's own text."""
    ids = {"job_id": job.id, "project_id": job.project_id} | ({} if run is None else {"run_id": run.id})
    attributes = {f"dpo.{key}": value for key, value in ids.items()}
    parent = context_of(job.traceparent)
    span = context.tracer.start_as_current_span(
        name, context=parent, attributes=attributes, record_exception=False, set_status_on_exception=False
    )
    with bound_contextvars(**ids), span as started:
        try:
            yield
        except Exception as error:
            started.set_attribute("error.type", type(error).__name__)
            raise


def observed(name: str) -> Callable[[Step], Step]:
    """Make a function of a context, a job and its run an observed step."""

    def decorate(step: Step) -> Step:
        @wraps(step)
        def observed_call(context: DispatchContext, job: JobRow, run: RunRow, *more: Any, **named: Any) -> Any:
            with observed_step(context, name, job, run):
                return step(context, job, run, *more, **named)

        return cast(Step, observed_call)

    return decorate
