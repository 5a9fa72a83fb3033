"""Which device a worker takes. That several agree on an error is told by tests/integration/test_two_workers.py."""

import pytest
import torch

from trainers.distributed import open_workers


@pytest.mark.parametrize(
    ("shown", "local_rank", "expected"),
    [
        pytest.param(2, "1", 1, id="a worker of a group"),
        pytest.param(2, None, 0, id="a worker alone beside other GPUs"),
        pytest.param(1, "1", 0, id="a worker that is shown its own alone"),
    ],
)
def test_a_workers_gpu_is_the_current_device_too(
    monkeypatch: pytest.MonkeyPatch, shown: int, local_rank: str | None, expected: int
) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: shown)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    with open_workers(gpus_per_worker=1) as workers:
        assert current == [workers.device] == [torch.device("cuda", expected)]


def test_a_worker_on_a_cpu_touches_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: pytest.fail("there may be none"))
    with open_workers(gpus_per_worker=0) as workers:
        assert workers.device == torch.device("cpu")
