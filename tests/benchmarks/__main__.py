"""`make bench`: our trainer and TRL 1.16 on the same real pairs, interleaved in one run, as medians and ratios.

SmolLM2-135M, LoRA r=16 on all linear layers, fp32, steps of 4 pairs, `max_length` 512: performance.md's own case.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from schemas.preference_rows import Message, parse_row
from tests.benchmarks.our_run import OurRun, run_ours
from tests.benchmarks.trl_run import CONFIGURATIONS

PAIRS_FILE = Path("tests/data/hh-rlhf-64.jsonl")
MODEL_FOLDER = Path(".demo/models/smollm2-135m-instruct")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    arguments = parser.parse_args()
    console = Console()
    subprocess.run([sys.executable, "-m", "trainers.models.smollm2", str(MODEL_FOLDER)], check=True)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        rows.write_text("".join(_trl_rows(arguments.pairs)))
        for number in range(arguments.rounds):
            console.print(f"round {number + 1} of {arguments.rounds}")
            rounds.append(_one_round(Path(folder, str(number)), rows, arguments.pairs))
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"rounds": rounds, "medians": medians}, indent=2))
    console.print(_table(medians))


def _one_round(folder: Path, rows: Path, pairs: int) -> dict[str, float]:
    """Run ours and each of TRL's configurations once, one after the other."""
    folder.mkdir()
    ours = run_ours(folder / "ours", model=MODEL_FOLDER.resolve(), rows=rows, pairs=pairs)
    measured = _numbers(ours)
    for name in CONFIGURATIONS:
        trl = _run_trl(folder / "trl", name, rows)
        measured |= {f"TRL {name}, {key}": trl[key] for key in ("training_s", "reference_and_training_s")}
        measured[f"TRL {name}, peak RSS MB"] = trl["peak_rss_bytes"] / 1e6
    return measured


def _numbers(ours: OurRun) -> dict[str, float]:
    return {
        "ours, first epoch s": ours.first_epoch_s,
        "ours, reference cached s": ours.cached_epoch_s,
        "ours, until first step s": ours.until_first_step_s,
        "ours, peak RSS MB": ours.peak_rss_bytes / 1e6,
    }


def _run_trl(output: Path, configuration: str, rows: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.trl_run", "--configuration", configuration]
    command += ["--model", str(MODEL_FOLDER), "--rows", str(rows), "--output", str(output)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result: dict[str, float] = json.loads(printed.splitlines()[-1])
    return result


def _trl_rows(pairs: int) -> list[str]:
    lines = PAIRS_FILE.read_bytes().splitlines()[:pairs]
    parsed = [parse_row(line, row_format="hh_rlhf")[1] for line in lines]
    sides = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in parsed]
    return [json.dumps({side: _plain(messages) for side, messages in row.items()}) + "\n" for row in sides]


def _plain(messages: str | tuple[Message, ...]) -> object:
    if isinstance(messages, str):
        return messages
    return [message.model_dump(exclude_none=True) for message in messages]


def _table(medians: dict[str, float]) -> Table:
    cached, first = medians["ours, reference cached s"], medians["ours, first epoch s"]
    memory = medians["ours, peak RSS MB"]
    online = medians["TRL tuned, training_s"]
    table = Table("medians", "TRL", "ours", "ratio", "goal", title="Training, one run, interleaved")
    precomputed = medians["TRL tuned, precomputed, training_s"]
    table.add_row("training vs defaults, s", *_ratio(medians["TRL defaults, training_s"], cached), "≥ 8")
    table.add_row("training vs tuned and precomputed, s", *_ratio(precomputed, cached), "≥ 6")
    table.add_row("first epoch with the reference vs tuned, s", *_ratio(online, first), "≥ 4.5")
    table.add_row("peak RSS, tuned vs ours, MB", *_ratio(medians["TRL tuned, peak RSS MB"], memory), "≥ 3.3")
    table.add_row("from process start to first step, s", "", f"{medians['ours, until first step s']:.1f}", "", "")
    return table


def _ratio(theirs: float, ours: float) -> tuple[str, str, str]:
    return f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}"


if __name__ == "__main__":
    main()
