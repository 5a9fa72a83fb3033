"""`make bench-gpu`: our trainer and TRL 1.16 tuned on one GPU, on the same real pairs, one after the other.

A Llama of 8B's shape with random weights in bfloat16, LoRA r=16 on all linear layers; conversations as they are and
grown to 2,048 tokens, and of ours alone one pair of 32,768. Times are medians of the epochs after the first.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from tests.benchmarks.cases import Case, write_long_pairs, write_pairs
from tests.benchmarks.gemm import count_flops
from tests.benchmarks.gpu.random_model import SHAPES
from tests.benchmarks.modules import run_module
from tests.benchmarks.our_run import RANK, read_tokens, run_ours
from tests.tiny_runs import read_events

EPOCHS = 4
SIZE = 8192
"""Of the square products that the peak is measured by."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--tokenizer", type=Path, default=Path(".demo/models/smollm2-135m-instruct"))
    parser.add_argument("--scratch", type=Path, help="folder with 20 GB of room; /dev/shm saves time")
    parser.add_argument("--output", type=Path, default=Path("tests/benchmarks/results/gpu.json"))
    parser.add_argument("--most", type=int, nargs=2, default=(8, 2), help="pairs that TRL tries in a pass, by case")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        folder = Path(name)
        model = folder / "model"
        run_module("tests.benchmarks.gpu.random_model", arguments.shape, str(arguments.tokenizer), str(model))
        short = write_pairs(folder / "short.jsonl", pairs=64, batch_size=32)
        long = write_long_pairs(folder / "long.jsonl", length=2048, model=model, pairs=32, batch_size=16)
        longest = write_long_pairs(folder / "longest.jsonl", length=32768, model=model, pairs=1, batch_size=1)
        told: dict[str, Any] = {"device": _device(), "bf16 GEMM peak, FLOP/s": _peak()}
        cases = (("as they are", short, arguments.most[0]), ("2,048 tokens", long, arguments.most[1]))
        for title, case, most in cases:
            told[f"ours, {title}"] = _ours(folder / f"ours {title}", case, model)
            _save(told, arguments.output)
            told[f"TRL, {title}"] = _trl(folder / "trl", case, model, most)
            _save(told, arguments.output)
        told["ours, 32,768 tokens"] = _ours(folder / "ours longest", longest, model)
        _save(told, arguments.output)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


def _ours(folder: Path, case: Case, model: Path) -> dict[str, Any]:
    began = time.perf_counter()
    run = run_ours(folder, case, model=model, on_gpu=torch.cuda.is_available(), epochs=EPOCHS)
    tokens = read_tokens(case, AutoTokenizer.from_pretrained(model))
    flops = count_flops(tokens, AutoConfig.from_pretrained(model), rank=RANK)
    return {
        "first epoch with the reference, s": run.first_epoch_s,
        "epoch, reference cached, s": run.cached_epoch_s,
        "FLOP/s": flops / run.cached_epoch_s,
        "packed tokens": sum(pair.packed_length for pair in tokens),
        "peak memory, bytes": run.peak_memory_bytes,
        "losses": run.losses,
        "told": [event.message for event in read_events(folder) if event.step_metrics is None],
        "process, s": time.perf_counter() - began,
    }


def _trl(output: Path, case: Case, model: Path, most: int) -> dict[str, Any]:
    places = ("--model", str(model), "--rows", str(case.rows), "--output", str(output))
    numbers = {"max-length": case.max_length, "batch-size": case.batch_size, "epochs": EPOCHS, "most": most}
    limits = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    printed = run_module("tests.benchmarks.gpu.trl_run", *places, *limits)
    told: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return told | {"epoch, reference cached, s": statistics.median(told["later epochs, s"])}


def _peak() -> float:
    """The best rate of square bfloat16 products on random data, FLOP/s."""
    if not torch.cuda.is_available():
        return 0.0
    left, right = (torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        torch.mm(left, right)
        ended.record()
        torch.cuda.synchronize()
        best = min(best, began.elapsed_time(ended) / 1000)
    return 2 * SIZE**3 / best


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _save(told: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
