"""What projects' use of a day costs, at the operator's prices."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.usage import BucketPage, Cost, CostAmount, LineItem
from service.organization.days import Day, Span, bucket_page
from service.organization.organization import Organization
from service.organization.usage import UsageFilter, Used, measure_day

HOURS_A_MONTH = 730
"""Of a year's 8,760."""
MILLION = 1_000_000
GIB = 1024**3
UNITS: dict[LineItem, Literal["duration_hours", "tokens", "gibibyte_hours"]] = {
    "gpu_hours": "duration_hours",
    "trained_tokens": "tokens",
    "stored_bytes": "gibibyte_hours",
}


@dataclass(frozen=True, slots=True)
class Prices:
    """Zero for what costs nothing."""

    currency: str = "usd"
    gpu_hour: float = 0.0
    million_tokens: float = 0.0
    gib_month: float = 0.0

    def of(self, item: LineItem, quantity: float) -> float:
        match item:
            case "gpu_hours":
                return quantity * self.gpu_hour
            case "trained_tokens":
                return quantity * self.million_tokens / MILLION
            case "stored_bytes":
                return quantity * self.gib_month / HOURS_A_MONTH


def list_costs(
    organization: Organization,
    span: Span,
    prices: Prices,
    *,
    project_ids: Sequence[str],
    line_items: Sequence[str],
    group_by: Sequence[str],
) -> BucketPage[Cost]:
    """Raises: InvalidRequest, for a page that is none."""
    matching = UsageFilter(project_ids)
    by_project, by_item = "project_id" in group_by, "line_item" in group_by

    def measure(day: Day) -> list[Cost]:
        with organization.database.read() as session:
            used = measure_day(session, day)
        quantities: dict[tuple[str | None, LineItem], float] = defaultdict(float)
        for key, part in used.items():
            if matching.lets_through(key):
                for item, quantity in _quantities(part, day).items():
                    if not line_items or item in line_items:
                        quantities[key[0] if by_project else None, item] += quantity
        if by_item:
            ordered = sorted(quantities.items(), key=lambda entry: (entry[0][0] or "", entry[0][1]))
            return [_present(project, item, quantity, prices) for (project, item), quantity in ordered]
        return _sum_up(quantities, prices)

    return bucket_page(span, measure)


def _quantities(used: Used, day: Day) -> dict[LineItem, float]:
    hours = (day.end - day.start).total_seconds() / 3600
    quantities: dict[LineItem, float] = {
        "gpu_hours": used.gpu_seconds / 3600,
        "trained_tokens": float(used.trained_tokens),
        "stored_bytes": used.stored_bytes / GIB * hours,
    }
    return {item: quantity for item, quantity in quantities.items() if quantity}


def _sum_up(quantities: dict[tuple[str | None, LineItem], float], prices: Prices) -> list[Cost]:
    values: dict[str | None, float] = defaultdict(float)
    for (project_id, item), quantity in quantities.items():
        values[project_id] += prices.of(item, quantity)
    return [_cost(project_id, value, prices) for project_id, value in sorted(values.items(), key=lambda v: v[0] or "")]


def _present(project_id: str | None, item: LineItem, quantity: float, prices: Prices) -> Cost:
    cost = _cost(project_id, prices.of(item, quantity), prices)
    return cost.model_copy(update={"line_item": item, "quantity": round(quantity, 6), "quantity_unit": UNITS[item]})


def _cost(project_id: str | None, value: float, prices: Prices) -> Cost:
    return Cost(
        object="organization.costs.result",
        amount=CostAmount(value=round(value, 6), currency=prices.currency),
        project_id=project_id,
        line_item=None,
        quantity=None,
        quantity_unit=None,
    )
