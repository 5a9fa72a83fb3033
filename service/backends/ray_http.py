"""HTTP to a Ray head: every request has a time limit, and an answer is bytes or an error that says which."""

import urllib.request
from http.client import HTTPException, HTTPResponse

from service.backends.backend import BackendUnavailable

TIMEOUT_S = 10.0
ERROR_CHARS = 2_000
SUCCESSES = range(200, 300)
REFUSALS = frozenset({400, 413, 415, 422})
"""Of what was sent. Any other answer is the cluster's trouble, and a key that it no longer takes its operator's."""


class RayError(RuntimeError):
    """Ray answered, and not with what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        # What stands before a head that is away answers 404, too: only Ray's own words say that a job is unknown.
        self.is_not_found = status == 404 and "does not exist" in message
        self.is_refusal = status in REFUSALS
        self.is_locked_out = status in (401, 403)


class _EveryAnswer(urllib.request.HTTPErrorProcessor):
    """Whatever its status: urllib would follow a redirect, and send the token along to wherever it points."""

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        return response

    https_response = http_response


class RayHttp:
    def __init__(self, address: str, *, token: str | None) -> None:
        self._address = address.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        # No proxy: the environment's is for the outside world, and a cluster is not.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _EveryAnswer())

    def get(self, path: str) -> bytes:
        """Raises: RayError; BackendUnavailable."""
        return self._send(path, None)

    def post(self, path: str, body: bytes) -> bytes:
        """Raises: RayError; BackendUnavailable."""
        return self._send(path, body)

    def _send(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(f"{self._address}{path}", body, self._headers)  # noqa: S310  # settings' URL
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                status: int = answer.status
                content: bytes = answer.read()
        except (OSError, HTTPException) as error:  # the latter: it died in the middle of an answer
            raise BackendUnavailable(f"Ray does not answer: {error}") from error
        if status not in SUCCESSES:
            # The last line of a Ray traceback is the cause.
            raise RayError(status, content.decode(errors="replace").strip()[-ERROR_CHARS:])
        return content
