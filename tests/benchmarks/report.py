"""What `make bench` says: medians beside performance.md's goals, as a table and as a chart."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

Rounds = list[dict[str, float]]
LENGTHS_PREFIX = "length "
ONE_PAIR = "tuned, one pair a pass"


@dataclass(frozen=True, slots=True)
class Measured:
    machine: str
    pairs: int
    flops: float
    """Of one epoch's training passes."""
    rounds: Rounds
    scaling: dict[str, float]
    starts: dict[str, list[float]]
    """Seconds from POST to ready, by workers."""

    def median(self, name: str) -> float:
        return statistics.median(one[name] for one in self.rounds)


def table(measured: Measured) -> Table:
    """Ratios are TRL's figure by ours, of memory ours by TRL's; the goals are performance.md's."""
    median = measured.median
    cached, first = median("ours, cached_epoch_s"), median("ours, first_epoch_s")
    rows = Table("medians", "TRL", "ours", "ratio", "goal", title=f"{measured.pairs} pairs, {measured.machine}")
    rows.add_row("training vs defaults, s", *_ratio(median("TRL defaults, training_s"), cached), "≥ 8")
    rows.add_row("training vs tuned, reference cached, s", *_ratio(_training(measured, "tuned"), cached), "≥ 6")
    rows.add_row("  vs tuned, one pair a pass", *_ratio(_training(measured, ONE_PAIR), cached), "")
    rows.add_row("first epoch with the reference vs tuned, s", *_ratio(_first(measured, "tuned"), first), "≥ 4.5")
    rows.add_row("  vs tuned, one pair a pass", *_ratio(_first(measured, ONE_PAIR), first), "")
    our_rss = median("ours, peak_memory_bytes") / 1e9
    for label, name, goal in (
        ("peak RSS vs tuned, GB", "tuned", "≤ 0.3"),
        ("  vs tuned, one pair a pass", ONE_PAIR, ""),
    ):
        rss = median(f"TRL {name}, peak_rss_bytes") / 1e9
        rows.add_row(label, f"{rss:.2f}", f"{our_rss:.2f}", f"{our_rss / rss:.2f}", goal)
    share = measured.flops / cached / median("GEMM peak, FLOP/s")
    rows.add_row("share of the fp32 GEMM peak, steps", "", f"{share:.0%}", "", "≥ 85 %")
    rows.add_row("trained tokens a second", "", f"{median('ours, trained_tokens') / cached:.0f}", "", "")
    rows.add_row("process start to first step, s", "", f"{median('ours, until_first_step_s'):.1f}", "", "")
    for workers, goal in (("1", "≤ 7"), ("2", "≤ 20")):
        seconds = statistics.median(measured.starts[workers])
        rows.add_row(f"POST to ready, workers: {workers}, s", "", f"{seconds:.1f}", "", goal)
    _add_scaling(rows, measured, cached)
    return rows


def draw_chart(measured: Measured, path: Path) -> None:
    """Seconds of training by configuration, with every round as a dot, and seconds by length of pair."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = {
        "TRL, defaults": "TRL defaults, training_s",
        "TRL, tuned": "TRL tuned, training_s",
        "TRL, tuned,\none pair a pass": "TRL tuned, one pair a pass, training_s",
        "dpo-service,\nfirst epoch": "ours, first_epoch_s",
        "dpo-service,\nreference cached": "ours, cached_epoch_s",
    }
    colours = ["#9aa5b1" if label.startswith("TRL") else "#1f6feb" for label in bars]
    seconds = [measured.median(name) for name in bars.values()]
    drawn = left.barh(list(bars), seconds, color=colours)
    left.bar_label(drawn, fmt="%.0f s", padding=4)
    for place, name in enumerate(bars.values()):
        left.plot([one[name] for one in measured.rounds], [place] * len(measured.rounds), "k.", markersize=4)
    left.invert_yaxis()
    left.set_xlim(0, max(seconds) * 1.15)
    left.set_title(f"One epoch of {measured.pairs} pairs (median; dots: rounds)", fontsize=10)
    lengths = _lengths(measured)
    for label, key, colour in (
        ("TRL, tuned, precomputed, one pair a pass", "TRL, training s", "#9aa5b1"),
        ("dpo-service", "ours, cached_epoch_s", "#1f6feb"),
    ):
        right.plot(
            lengths,
            [measured.scaling[f"length {length}, {key}"] for length in lengths],
            "o-",
            label=label,
            color=colour,
        )
    right.set_xscale("log", base=2)
    right.set_xticks(lengths, [str(length) for length in lengths])
    right.set_xlabel("tokens of prompt and longer completion")
    right.set_ylabel("seconds a step of 4 pairs")
    right.set_title("By length, reference cached", fontsize=10)
    right.legend()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"DPO with LoRA r=16, SmolLM2-135M, fp32, {measured.machine}", fontsize=11)
    figure.savefig(path, dpi=120)


def _training(measured: Measured, name: str) -> float:
    """Without the reference pass."""
    return measured.median(f"TRL {_precomputed(name)}, training_s")


def _first(measured: Measured, name: str) -> float:
    """With the reference in it, beside each step or before all of them: whichever is faster."""
    beside = measured.median(f"TRL {name}, training_s")
    return min(beside, measured.median(f"TRL {_precomputed(name)}, reference_and_training_s"))


def _precomputed(name: str) -> str:
    return name.replace("tuned", "tuned, precomputed")


def _add_scaling(rows: Table, measured: Measured, cached: float) -> None:
    scaling = measured.scaling
    rows.add_section()
    more = 4 * measured.pairs
    rows.add_row(f"{more} pairs by {measured.pairs}", "", f"{scaling[f'{more} pairs'] / cached:.2f}", "", "4")
    one, two = scaling["1 workers of one thread"], scaling["2 workers of one thread"]
    rows.add_row("1 worker by 2, one thread each", "", f"{one / two:.2f}", "", "2")
    for length in _lengths(measured):
        prefix = f"{LENGTHS_PREFIX}{length}"
        ours, theirs = scaling[f"{prefix}, ours, cached_epoch_s"], scaling[f"{prefix}, TRL, training s"]
        rows.add_row(f"a step of 4 pairs of {length} tokens, s", *_ratio(theirs, ours), "")


def _lengths(measured: Measured) -> list[int]:
    return sorted(
        {
            int(name.split(",")[0].removeprefix(LENGTHS_PREFIX))
            for name in measured.scaling
            if name.startswith(LENGTHS_PREFIX)
        }
    )


def _ratio(theirs: float, ours: float) -> tuple[str, str, str]:
    return f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}"
