"""The least that FastAPI can do: one endpoint that returns a job's JSON from memory.

`python -m tests.benchmarks.service_load.bare_endpoint PORT JOB.json`
"""

import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from service.serve.http_server import http_server
from service.serve.listening import listen


def main() -> None:
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    job: dict[str, Any] = json.loads(path.read_text())
    app = FastAPI()

    @app.get("/v1/fine_tuning/jobs/{job_id}")
    def get_job(job_id: str) -> dict[str, Any]:
        assert job_id == job["id"]
        return job

    with listen("127.0.0.1", port) as listener:
        http_server(app).run(sockets=[listener])


if __name__ == "__main__":
    main()
