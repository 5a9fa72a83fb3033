"""The operator's prices, out of the settings."""

from service.organization.costs import Prices
from service.settings import Settings


def prices_of(settings: Settings) -> Prices:
    return Prices(
        currency=settings.currency,
        gpu_hour=settings.price_gpu_hour,
        million_tokens=settings.price_million_tokens,
        gib_month=settings.price_gib_month,
    )
