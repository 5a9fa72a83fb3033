"""`/v1/organization/usage/fine_tuning` and `/v1/organization/costs`: what projects use and what it costs, by day."""

from typing import Generic, Literal, TypeVar

from schemas.base import Response

Result = TypeVar("Result")

LineItem = Literal["gpu_hours", "trained_tokens", "stored_bytes"]


class FineTuningUsage(Response):
    object: Literal["organization.usage.fine_tuning.result"]
    project_id: str | None
    """Null unless grouped by it."""
    model: str | None
    """The base model. Null unless grouped by it, and for stored bytes, which are of none."""
    gpu_seconds: float
    """Seconds of runs times their GPUs, whatever became of them."""
    run_seconds: float
    """Of runs on CPUs, too."""
    trained_tokens: int
    """Of jobs that succeeded on this day."""
    succeeded_jobs: int
    stored_bytes: int
    """Files, results, adapters and uploads under way, as last measured on this day."""


class CostAmount(Response):
    value: float
    currency: str
    """Lowercase ISO 4217."""


class Cost(Response):
    object: Literal["organization.costs.result"]
    amount: CostAmount
    project_id: str | None
    """Null unless grouped by it."""
    line_item: LineItem | None
    """Null unless grouped by it."""
    quantity: float | None
    """Null unless grouped by line item."""
    quantity_unit: Literal["duration_hours", "tokens", "gibibyte_hours"] | None


class Bucket(Response, Generic[Result]):
    """One day (UTC)."""

    object: Literal["bucket"]
    start_time: int
    """Unix seconds."""
    end_time: int
    """Unix seconds, exclusive."""
    results: list[Result]


class BucketPage(Response, Generic[Result]):
    object: Literal["page"]
    data: list[Bucket[Result]]
    has_more: bool
    next_page: str | None
    """The `page` of the next request."""
