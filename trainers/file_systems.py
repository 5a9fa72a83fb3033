"""Where a URI lies: in this machine's folders, or in an S3 bucket, by pyarrow.

Credentials are those of AWS's own chain (environment, files, roles), of the process that trains; `DPO_S3_ENDPOINT_URL`
names another server than Amazon's. A store that is away for minutes is waited for: a run is worth more than that.
"""

import functools
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyarrow import fs

from trainers.logs import log_event

log = logging.getLogger(__name__)

S3_SCHEME = "s3://"
OUTAGE = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING)"
    r"|HTTP status 5\d\d"
)
"""What pyarrow says of a server that did not do its part; a refused key or a missing bucket stays what it is."""
REFUSAL = re.compile(r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH)|HTTP status 40[013]")
CREDENTIALS_HINT = (
    "the trainer's machine comes to the bucket with AWS credentials of its own (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, a profile or a role there): are there any, and are they for this bucket?"
)
OUTAGE_S = 300.0
"""How long a store may be away. A run that gives up is tried again by the service, which counts it."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

Result = TypeVar("Result")


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an S3 URI or a path, and the path in it."""
    if not uri.startswith(S3_SCHEME):
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    endpoint = os.environ.get("DPO_S3_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return _s3(endpoint, region), uri.removeprefix(S3_SCHEME).rstrip("/")


def outlast(act: Callable[[], Result]) -> Result:
    """Do it again while the store is away. Raises: OSError, the store's last word."""
    deadline, pause_s = time.monotonic() + OUTAGE_S, FIRST_PAUSE_S
    while True:
        try:
            return act()
        except OSError as error:
            if REFUSAL.search(str(error)):
                raise PermissionError(f"{error}; {CREDENTIALS_HINT}") from error
            if not OUTAGE.search(str(error)) or time.monotonic() + pause_s > deadline:
                raise
            log_event(log, "store_away", level=logging.WARNING, message=str(error), again_in_s=pause_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


@functools.cache
def _s3(endpoint: str | None, region: str | None) -> fs.FileSystem:
    """One client a process: each would ask the chain for credentials anew.

    Opening lazily, a small object is one request, and a failed one leaves no upload in parts behind.
    """
    if endpoint is None:
        return fs.S3FileSystem(region=region, allow_delayed_open=True)
    # AWS's client would add checksums in a way (chunked trailers) that many other servers refuse.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    scheme, _, address = endpoint.partition("://")
    return fs.S3FileSystem(
        endpoint_override=address.rstrip("/"), scheme=scheme, region=region or "us-east-1", allow_delayed_open=True
    )
