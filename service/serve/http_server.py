"""The HTTP server around the API."""

import uvicorn
from fastapi import FastAPI

from service.serve.http_protocol import BoundedHeads

OPEN_REQUESTS_GRACE_S = 3
"""How long a download may hold up the end."""


def http_server(app: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=BoundedHeads,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=OPEN_REQUESTS_GRACE_S,
        )
    )
