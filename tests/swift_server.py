"""A real S3 server: OpenStack Swift from pip, its four servers on free ports, everything it holds in one folder.

It checks signatures, expiries and checksums as Amazon's does, which mocks do not. Swift keeps what it knows of an
object in extended attributes, so the folder's file system must have them.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
ACCESS_KEY = "test:tester"
REGION = "us-east-1"
SERVERS = ("account", "container", "object")
PIPELINE = "catch_errors cache bulk s3api tempauth slo symlink versioned_writes proxy-server"
RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *servers = sys.argv[1:]
for server, port in (item.split(":") for item in servers):
    ring = RingBuilder(4, 1, 1)
    device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1}
    ring.add_dev({**device, "replication_ip": "127.0.0.1", "replication_port": int(port)})
    ring.rebalance()
    ring.get_ring().save(f"{folder}/{server}.ring.gz")
"""
# The largest value that Swift itself writes into an attribute.
XATTR_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class S3Server:
    endpoint_url: str
    access_key: str
    secret_key: str
    region: str = REGION

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it and to be let in."""
        return {
            "DPO_S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def swift_server() -> Iterator[S3Server]:
    """Yield it once it answers; nothing of it is left afterwards."""
    with TemporaryDirectory(prefix="swift-", dir=_folder_with_xattrs()) as name, ExitStack() as stack:
        folder, secret = Path(name), secrets.token_hex(16)
        ports = {server: _free_port() for server in (*SERVERS, "proxy")}
        _write_configuration(folder, ports, secret)
        _make_rings(folder, ports)
        for server in (*SERVERS, "proxy"):
            stack.enter_context(_running(folder, server))
        _wait_until_up(folder, ports)
        yield S3Server(f"http://127.0.0.1:{ports['proxy']}", ACCESS_KEY, secret)


def _folder_with_xattrs() -> str:
    for folder in (os.environ.get("TMPDIR", "/tmp"), "/var/tmp", "/dev/shm"):
        if Path(folder).is_dir() and _has_xattrs(Path(folder)):
            return folder
    raise RuntimeError("no temporary folder has user extended attributes, which Swift needs; set TMPDIR to one")


def _has_xattrs(folder: Path) -> bool:
    with TemporaryDirectory(dir=folder) as probe:
        try:
            os.setxattr(probe, "user.swift.metadata", b"x" * XATTR_BYTES)
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _write_configuration(folder: Path, ports: dict[str, int], secret: str) -> None:
    suffix = secrets.token_hex(8)
    policy = "[storage-policy:0]\nname = gold\ndefault = yes\n"
    hashes = f"[swift-hash]\nswift_hash_path_suffix = {suffix}\nswift_hash_path_prefix = {suffix}\n"
    (folder / "swift.conf").write_text(hashes + policy)
    for server in SERVERS:
        (folder / "devices" / "d1").mkdir(parents=True, exist_ok=True)
        application = f"[pipeline:main]\npipeline = {server}-server\n[app:{server}-server]\nuse = egg:swift#{server}\n"
        text = _defaults(folder, ports[server]) + f"devices = {folder}/devices\nmount_check = false\n" + application
        (folder / f"{server}-server.conf").write_text(text)
    filters = "".join(
        f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in ("catch_errors", "bulk", "slo", "symlink")
    )
    (folder / "proxy-server.conf").write_text(
        f"{_defaults(folder, ports['proxy'])}[pipeline:main]\npipeline = {PIPELINE}\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n"
        f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = {secret} .admin\n"
        f"[filter:s3api]\nuse = egg:swift#s3api\nlocation = {REGION}\nmin_segment_size = 1\n"
        "[filter:versioned_writes]\nuse = egg:swift#versioned_writes\nallow_versioned_writes = true\n"
        "[filter:cache]\npaste.filter_factory = tests.swift_cache:filter_factory\n" + filters
    )


def _defaults(folder: Path, port: int) -> str:
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    return (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {user}\nswift_dir = {folder}\n"
        "log_level = ERROR\nlog_address = /nowhere\n"
    )


def _make_rings(folder: Path, ports: dict[str, int]) -> None:
    """In one process of its own: importing Swift takes longer than making the rings, and patches the interpreter."""
    arguments = [str(folder), *(f"{server}:{ports[server]}" for server in SERVERS)]
    subprocess.run([sys.executable, "-c", RINGS, *arguments], check=True, capture_output=True)


@contextmanager
def _running(folder: Path, server: str) -> Iterator[None]:
    with (folder / f"{server}.log").open("wb") as log:
        process = subprocess.Popen(
            [*_command(f"swift-{server}-server"), str(folder / f"{server}-server.conf")],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(script: str) -> list[str]:
    """By this interpreter: pip's own first line cannot hold a path with a space."""
    return [sys.executable, str(Path(sys.executable).with_name(script))]


def _wait_until_up(folder: Path, ports: dict[str, int]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    for server, port in ports.items():
        while not _answers(port):
            log = (folder / f"{server}.log").read_text()
            assert time.monotonic() < deadline, f"Swift's {server} server does not come up: {log}"
            time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
