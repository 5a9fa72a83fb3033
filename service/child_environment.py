"""The environment of processes that we start: the service's own without its secrets.

A trainer renders templates and loads weights that users gave; what it does not hold, it cannot tell. AWS's credentials
stay: they are how a trainer reaches the bucket.
"""

import os

PREFIX = "DPO_"
TOLD = frozenset({"DPO_S3_ENDPOINT_URL", "DPO_CPU_THREADS"})
"""Of our variables: what trainers read. All others are settings of the service, and some of these are its secrets."""
SECRETS_OF_OTHERS = frozenset(
    {
        "PGPASSWORD",
        "PGPASSFILE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    }
)
"""What opens the database, the cluster and the receiver of traces without our settings."""


def child_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _may_be_told(name.upper())}


def _may_be_told(name: str) -> bool:
    return name in TOLD if name.startswith(PREFIX) else name not in SECRETS_OF_OTHERS
