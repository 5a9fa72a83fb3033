"""A file of 512 MB: seconds against a plain copy of it, and the memory that the API process takes for it."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from tests.benchmarks.service_load.populate import KEY, PAIRS

FILE_BYTES = 500 * 1024**2
"""With its form's envelope below the cap of 512 MiB."""
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    upload_s: float
    copy_s: float
    """Of a plain copy on the same disk, flushed to it."""
    rss_growth_bytes: int
    """Peak while uploading over idle before."""


def measure_upload(url: str, process_id: int, folder: Path) -> Uploaded:
    source = folder / "large.jsonl"
    with source.open("wb") as file:
        for _ in range(FILE_BYTES // len(PAIRS)):
            file.write(PAIRS)
    began = time.perf_counter()
    with source.open("rb") as file, (folder / "copy.jsonl").open("wb") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        os.fsync(copy.fileno())
    copy_s = time.perf_counter() - began
    idle = psutil.Process(process_id).memory_info().rss
    began = time.perf_counter()
    with source.open("rb") as file:
        answer = httpx2.post(
            f"{url}/v1/files",
            headers={"Authorization": f"Bearer {KEY}"},
            data={"purpose": "fine-tune"},
            files={"file": file},
            timeout=TIMEOUT_S,
        )
    assert answer.status_code == 200, answer.text
    return Uploaded(time.perf_counter() - began, copy_s, _peak_rss(process_id) - idle)


def _peak_rss(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
