"""`/v1/organization/usage/fine_tuning` and `/v1/organization/costs`, under an admin key."""

from fastapi import APIRouter

from schemas.usage import BucketPage, Cost, FineTuningUsage
from service.api.auth import Org
from service.api.dependencies import App
from service.api.usage_query import CostsPage, UsagePage
from service.organization import costs, usage
from service.organization.usage import UsageFilter

router = APIRouter(prefix="/organization", tags=["organization"])


@router.get("/usage/fine_tuning")
def list_usage(org: Org, query: UsagePage) -> BucketPage[FineTuningUsage]:
    """Tell GPU-seconds, trained tokens and stored bytes by day; by project and model where grouped by them."""
    matching = UsageFilter(query.project_ids, query.models)
    by_project, by_model = "project_id" in query.group_by, "model" in query.group_by
    return usage.list_usage(org, query.span(org.clock), matching, by_project=by_project, by_model=by_model)


@router.get("/costs")
def list_costs(org: Org, app: App, query: CostsPage) -> BucketPage[Cost]:
    """Tell what that costs by day, at the operator's prices; by project and line item where grouped by them."""
    return costs.list_costs(
        org,
        query.span(org.clock),
        app.prices,
        project_ids=query.project_ids,
        line_items=query.line_items,
        group_by=query.group_by,
    )
