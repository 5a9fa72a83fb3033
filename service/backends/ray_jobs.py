"""Runs as Ray jobs: the one file that speaks to a Ray cluster, by its documented Jobs REST API.

Plain HTTP rather than `JobSubmissionClient`: that one sets no timeouts, so a hung head would hang the dispatcher, and
importing it costs over a second and some 100 MB. The entry point holds ids alone, because Ray runs it in a shell.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.ids import RunId
from service.backends.backend import STOP_GRACE_S, BackendUnavailable, Capacity, RunRequest, RunState, RunStatus
from service.backends.ray_http import RayError, RayHttp
from service.backends.trainer_command import RAY_DRIVER_MODULE, THREAD_SETTINGS, store_settings

LOG_TAIL_LINES = 20
MESSAGE_CHARS = 500

STATES = {
    "PENDING": RunState.PENDING,
    "RUNNING": RunState.RUNNING,
    "STOPPED": RunState.ENDED,
    "SUCCEEDED": RunState.ENDED,
    "FAILED": RunState.ENDED,
}


class _Submitted(BaseModel):
    submission_id: str


class _Stopped(BaseModel):
    stopped: bool


class _JobInfo(BaseModel):
    model_config = ConfigDict(extra="ignore")

    status: Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
    message: str | None = None
    driver_exit_code: int | None = None


class _Logs(BaseModel):
    logs: str | None = None


class _NodeResources(BaseModel):
    model_config = ConfigDict(extra="ignore")

    cpus: float = Field(default=0, alias="CPU")
    gpus: float = Field(default=0, alias="GPU")


class _Node(BaseModel):
    model_config = ConfigDict(extra="ignore")

    state: str
    resources_total: _NodeResources = _NodeResources()


class _NodeList(BaseModel):
    result: list[_Node]


class _NodeData(BaseModel):
    result: _NodeList


class _NodeAnswer(BaseModel):
    data: _NodeData


Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class DriverCommand:
    """How the cluster's nodes start our driver."""

    python: str
    import_path: str | None
    """Set where the nodes share this machine's files; elsewhere the cluster's image has the package installed."""
    stop_grace_s: float = STOP_GRACE_S
    """Ray itself kills what does not end; by its default after 3 s, which is shorter than many a step."""


INSTALLED_DRIVER = DriverCommand("python", None)


class RayJobsBackend:
    def __init__(self, http: RayHttp, driver: DriverCommand = INSTALLED_DRIVER) -> None:
        self._http = http
        self._driver = driver

    def submit(self, request: RunRequest) -> None:
        try:
            answer = self._http.post("/api/jobs/", submission_body(request, self._driver))
        except RayError as error:
            if "already exists" in str(error):
                return  # under this id: submitted before, which is what was asked for
            if error.is_refusal:
                raise  # to send it again changes nothing: the dispatcher gives up after some tries
            raise BackendUnavailable(f"Ray did not take run {request.run_id}: {error}") from error
        _parse(_Submitted, answer)

    def status(self, run_id: RunId) -> RunStatus:
        try:
            answer = self._http.get(f"/api/jobs/{run_id}")
        except RayError as error:
            if error.is_not_found:
                return RunStatus(RunState.UNKNOWN, "")
            raise BackendUnavailable(f"Ray does not tell the status of run {run_id}: {error}") from error
        info = _parse(_JobInfo, answer)
        state = STATES[info.status]
        return RunStatus(state, _detail(info) if state is RunState.ENDED else "")

    def stop(self, run_id: RunId) -> None:
        try:
            answer = self._http.post(f"/api/jobs/{run_id}/stop", b"")
        except RayError as error:
            if error.is_not_found:
                return
            raise BackendUnavailable(f"Ray did not stop run {run_id}: {error}") from error
        _parse(_Stopped, answer)

    def log_tail(self, run_id: RunId) -> str:
        try:
            logs = _parse(_Logs, self._http.get(f"/api/jobs/{run_id}/logs")).logs or ""
        except (RayError, BackendUnavailable):
            return ""  # the log is a courtesy: the head asks the node for it, which may be what was lost
        return "\n".join(logs.splitlines()[-LOG_TAIL_LINES:])

    def capacity(self) -> Capacity:
        try:
            answer = self._http.get("/api/v0/nodes?detail=true&limit=10000")
        except RayError as error:
            raise BackendUnavailable(f"Ray does not tell its nodes: {error}") from error
        nodes = _parse(_NodeAnswer, answer).data.result.result
        alive = [node.resources_total for node in nodes if node.state == "ALIVE"]
        if not alive:
            raise BackendUnavailable("no node of the Ray cluster is alive yet")
        return Capacity(cpus=int(sum(node.cpus for node in alive)), gpus=int(sum(node.gpus for node in alive)))


def submission_body(request: RunRequest, driver: DriverCommand) -> bytes:
    """One worker runs in the driver itself, which then holds the GPU; a group's workers hold their own."""
    is_alone = request.workers == 1
    env_vars = {"DPO_RUN_FOLDER_URI": request.run_folder_uri, **THREAD_SETTINGS, **store_settings()}
    env_vars["RAY_JOB_STOP_WAIT_TIME_S"] = f"{driver.stop_grace_s:.0f}"
    if driver.import_path is not None:
        env_vars["PYTHONPATH"] = driver.import_path
    body: dict[str, object] = {
        "submission_id": request.run_id,
        # `exec`: Ray waits for what it stopped, and an orphan of the shell may stay a zombie in a container.
        "entrypoint": f"exec {shlex.quote(driver.python)} -m {RAY_DRIVER_MODULE} {shlex.quote(request.run_id)}",
        "entrypoint_num_cpus": 1 if is_alone else 0,
        "entrypoint_num_gpus": request.gpus_per_worker if is_alone else 0,
        "runtime_env": {"env_vars": env_vars},
    }
    return json.dumps(body).encode()


def _parse(kind: type[Answer], answer: bytes) -> Answer:
    """Raises: BackendUnavailable, when what answers is a proxy before the head, or a Ray that we do not know."""
    try:
        return kind.model_validate_json(answer)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        where = ".".join(map(str, first["loc"]))
        raise BackendUnavailable(
            f"something else than Ray's API answered ({where and f'{where}: '}{first['msg']}); check "
            "DPO_RAY_ADDRESS, the proxies before it, and Ray's version"
        ) from error


def _detail(info: _JobInfo) -> str:
    if info.driver_exit_code:
        return f"exit code {info.driver_exit_code}"
    if info.status == "FAILED" and info.message:
        return info.message.splitlines()[0][:MESSAGE_CHARS]
    return "stopped" if info.status == "STOPPED" else "exit code 0"
