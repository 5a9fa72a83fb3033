"""Lack of memory is known by what is raised for it, whoever allocates."""

import pytest
import torch

from trainers.distributed import Workers
from trainers.pass_memory import RanOutOfMemory, all_fit

ALONE = Workers(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), id="torch's on a GPU"),
        pytest.param(MemoryError(), id="Python's"),
        pytest.param(RuntimeError("[enforce fail at alloc] DefaultCPUAllocator: can't allocate"), id="torch's, host"),
        pytest.param(
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), id="cuBLAS's"
        ),
        pytest.param(torch.AcceleratorError("CUDA error: out of memory"), id="the driver's"),
        pytest.param(RuntimeError("Triton Error [CUDA]: out of memory"), id="Triton's"),
    ],
)
def test_a_pass_without_memory_is_made_again_smaller(error: Exception) -> None:
    with pytest.raises(RanOutOfMemory), all_fit(ALONE):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
    ],
    ids=["shapes", "a device's assert"],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error: Exception) -> None:
    with pytest.raises(RuntimeError, match=str(error)), all_fit(ALONE):
        raise error
