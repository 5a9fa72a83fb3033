"""Claims and launches against a simulated cluster, by one dispatcher process and by two.

`python -m tests.benchmarks.service_load.dispatching DATABASE_URL STORE_FOLDER` dispatches until it is ended.
"""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from sqlalchemy import func, select

from service.db.engine import Database
from service.db.tables import RunRow
from service.dispatcher.loop import Dispatcher
from service.dispatcher.validations import Validations
from service.storage.folder import FolderStore
from tests.benchmarks.service_load.populate import put_claimed_jobs_back
from tests.benchmarks.service_load.simulated_cluster import NODES, SimulatedCluster, dispatch_context

POLL_S = 0.02
DEADLINE_S = 120.0


def seconds_to_fill_the_cluster(database: Database, url: str, folder: Path, *, dispatchers: int) -> float:
    """From the first claim to the last launch, on `NODES` nodes that were idle. The queue is as before afterwards."""
    command = [sys.executable, "-m", __name__, url, str(folder)]
    # Their log has a line a launch.
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(dispatchers)]
    try:
        _wait_for_launches(database, 1)
        began = time.perf_counter()
        already = _launched(database)
        _wait_for_launches(database, NODES)
        return (time.perf_counter() - began) * NODES / (NODES - already)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        put_claimed_jobs_back(database)


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    context = dispatch_context(Database(url), FolderStore(folder), folder, SimulatedCluster())
    dispatcher = Dispatcher(context, Validations(context))
    signal.signal(signal.SIGTERM, lambda *_: dispatcher.stop())
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    thread.join()
    dispatcher.give_back()


def _launched(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).where(RunRow.submitted_at.is_not(None))) or 0


def _wait_for_launches(database: Database, wanted: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while _launched(database) < wanted:
        assert time.monotonic() < deadline, f"only {_launched(database)} of {wanted} runs were launched"
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
