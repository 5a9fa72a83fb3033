"""What is free: the host's, within its container's limit, shared by the node's workers."""

from pathlib import Path

import pytest
import torch

from trainers import free_memory
from trainers.free_memory import free_bytes

CPU = torch.device("cpu")


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(free_memory, "CGROUP", tmp_path)
    return tmp_path


def test_a_container_without_a_limit_has_what_the_host_has(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("5000\n")
    assert free_bytes(CPU) > 2**20


def test_a_containers_limit_counts(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text("9000\n")
    (cgroup / "memory.current").write_text("5000\n")
    assert free_bytes(CPU) == 4_000


def test_cached_files_are_not_in_the_way(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text("9000\n")
    (cgroup / "memory.current").write_text("9000\n")
    (cgroup / "memory.stat").write_text("anon 5500\ninactive_file 2000\nactive_file 1500\n")
    assert free_bytes(CPU) == 2_000


def test_the_first_version_of_cgroups_is_read_too(cgroup: Path) -> None:
    (cgroup / "memory").mkdir()
    (cgroup / "memory" / "memory.limit_in_bytes").write_text("9000\n")
    (cgroup / "memory" / "memory.usage_in_bytes").write_text("9500\n")
    assert free_bytes(CPU) == 0


def test_the_nodes_workers_share_it(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cgroup / "memory.max").write_text("9000\n")
    (cgroup / "memory.current").write_text("5000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert free_bytes(CPU) == 2_000
