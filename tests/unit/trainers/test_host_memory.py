"""Freed memory stays with a trainer's process, in blocks of up to 32 MiB."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

GIVES_BACK = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}
"""As glibc begins. Left to itself it may raise this after a first block, as it pleases."""
MEASURE = """
import resource, sys
import torch
from trainers.host_memory import keep_freed_memory
if "kept" in sys.argv:
    assert keep_freed_memory()
def make():
    blocks = [torch.ones(2**21) for _ in range(16)]  # of 8 MiB
for _ in range(3):
    make()  # the heap grows to what they need, not always at the first
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> int:
    command = [sys.executable, "-c", MEASURE, *arguments]
    measured = subprocess.run(command, env=os.environ | GIVES_BACK, capture_output=True, text=True, check=True)
    return int(measured.stdout)


def test_what_is_freed_is_used_again_without_a_page_fault() -> None:
    assert page_faults("kept") * 3 < page_faults()
