"""Many pollers on kept connections, in a process of their own: the SDK would cost more than what it asks for.

`python -m tests.benchmarks.service_load.pollers PORT PATH KEY POLLERS PAUSE_S SECONDS` prints a `Polled` as JSON.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field

TIMEOUT_S = 30.0


@dataclass(slots=True)
class Polled:
    seconds: float = 0.0
    errors: int = 0
    """Answers other than 200, and none within `TIMEOUT_S`."""
    latencies_s: list[float] = field(default_factory=list)


def main() -> None:
    port, path, key, pollers, pause_s, seconds = sys.argv[1:]
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    polled = asyncio.run(_poll(int(port), request, int(pollers), float(pause_s), float(seconds)))
    sys.stdout.write(json.dumps(asdict(polled)))


async def _poll(port: int, request: bytes, pollers: int, pause_s: float, seconds: float) -> Polled:
    polled = Polled()
    began = time.perf_counter()
    ends_at = began + seconds
    starts = (number * pause_s / pollers for number in range(pollers))
    await asyncio.gather(*(_one_poller(port, request, polled, start, pause_s, ends_at) for start in starts))
    polled.seconds = time.perf_counter() - began
    return polled


async def _one_poller(
    port: int, request: bytes, polled: Polled, start_s: float, pause_s: float, ends_at: float
) -> None:
    await asyncio.sleep(start_s)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < ends_at:
        asked = time.perf_counter()
        writer.write(request)
        try:
            status = await asyncio.wait_for(_read_answer(reader), TIMEOUT_S)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            polled.errors += 1
            return
        polled.errors += status != 200
        polled.latencies_s.append(time.perf_counter() - asked)
        await asyncio.sleep(pause_s)
    writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
    return int(head.split(b" ", 2)[1])


if __name__ == "__main__":
    main()
