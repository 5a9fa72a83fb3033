"""`make bench`: our trainer and TRL 1.16 on the same real pairs, interleaved in one run, as medians and ratios.

SmolLM2-135M, LoRA r=16 on all linear layers, fp32, steps of 4 pairs, `max_length` 512: performance.md's own case.
An idle machine is needed for figures that mean something; the rounds' spread is printed beside the medians.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from transformers import AutoConfig, AutoTokenizer

from tests.benchmarks.cases import Case, write_long_pairs, write_pairs
from tests.benchmarks.gemm import count_flops
from tests.benchmarks.job_start import measure_starts
from tests.benchmarks.modules import run_module
from tests.benchmarks.our_run import RANK, OurRun, read_tokens, run_ours
from tests.benchmarks.report import Measured, Rounds, draw_chart, table
from tests.benchmarks.trl_run import CONFIGURATIONS

MODEL_FOLDER = Path(".demo/models/smollm2-135m-instruct")
LENGTHS = (256, 512, 1024, 2048)
RESULTS = Path("tests/benchmarks/results")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of bench.json and bench.png")
    arguments = parser.parse_args()
    console = Console(width=120)
    subprocess.run([sys.executable, "-m", "trainers.models.smollm2", str(MODEL_FOLDER)], check=True)
    with tempfile.TemporaryDirectory() as name:
        measured = _measure(Path(name), arguments.pairs, arguments.rounds, console)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "bench.json").write_text(json.dumps(asdict(measured), indent=2) + "\n")
    draw_chart(measured, arguments.output / "bench.png")
    console.print(table(measured))


def _measure(folder: Path, pairs: int, rounds: int, console: Console) -> Measured:
    model = MODEL_FOLDER.resolve()
    case = write_pairs(folder / "pairs.jsonl", pairs=pairs)
    numbers: Rounds = []
    for number in range(rounds):
        console.print(f"round {number + 1} of {rounds}")
        numbers.append(_one_round(folder / f"round-{number}", case, model))
    console.print("scaling with pairs, lengths and workers")
    scaling = _scaling(folder, case, model)
    console.print("from POST to ready")
    starts = measure_starts(folder / "starts", case, model=model, rounds=rounds)
    tokens = read_tokens(case, AutoTokenizer.from_pretrained(model))
    flops = count_flops(tokens, AutoConfig.from_pretrained(model), rank=RANK)
    return Measured(_machine(), pairs, flops, numbers, scaling, starts)


def _one_round(folder: Path, case: Case, model: Path) -> dict[str, float]:
    """Run ours and each of TRL's configurations once, one after the other."""
    folder.mkdir()
    ours = run_ours(folder / "ours", case, model=model)
    measured = {"GEMM peak, FLOP/s": float(run_module("tests.benchmarks.gemm"))} | _numbers("ours", ours)
    for name in CONFIGURATIONS:
        trl = _run_trl(folder / "trl", name, case, model)
        measured |= {f"TRL {name}, {key}": value for key, value in trl.items() if isinstance(value, int | float)}
    return measured


def _scaling(folder: Path, case: Case, model: Path) -> dict[str, float]:
    """Seconds of one epoch with the reference cached, ours and TRL's."""
    four_times = write_pairs(folder / "four-times.jsonl", pairs=4 * case.pairs)
    seconds = {f"{4 * case.pairs} pairs": run_ours(folder / "four-times", four_times, model=model).cached_epoch_s}
    for workers, threads in ((1, 1), (2, 1)):
        run = run_ours(folder / f"workers-{workers}", case, model=model, workers=workers, threads_per_worker=threads)
        seconds[f"{workers} workers of one thread"] = run.cached_epoch_s
    for length in LENGTHS:
        long = write_long_pairs(folder / f"length-{length}.jsonl", length=length, model=model)
        ours = run_ours(folder / f"length-{length}", long, model=model)
        trl = _run_trl(folder / "trl", "tuned, precomputed, one pair a pass", long, model)
        seconds |= _prefixed(f"length {length}", _numbers("ours", ours))
        seconds |= _prefixed(
            f"length {length}", {"TRL, training s": trl["training_s"], "TRL, peak RSS": trl["peak_rss_bytes"]}
        )
    return seconds


def _prefixed(prefix: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}, {name}": value for name, value in numbers.items()}


def _numbers(name: str, run: OurRun) -> dict[str, float]:
    return {f"{name}, {key}": float(value) for key, value in asdict(run).items() if isinstance(value, int | float)}


def _run_trl(output: Path, configuration: str, case: Case, model: Path) -> dict[str, float]:
    options = ("--configuration", configuration, "--model", str(model), "--rows", str(case.rows))
    limits = ("--output", str(output), "--max-length", str(case.max_length))
    numbers: dict[str, float] = json.loads(run_module("tests.benchmarks.trl_run", *options, *limits).splitlines()[-1])
    return numbers


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}"


if __name__ == "__main__":
    main()
