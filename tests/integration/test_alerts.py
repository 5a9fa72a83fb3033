"""Every alert asks for what a real service tells, under labels that it has, and says what to do."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from promql_parser import AggregateExpr, Expr, MatchOp, VectorSelector

from tests.exposition import Exposition
from tests.integration.watched import Watched

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
GROUPS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
README = (Path(__file__).parents[2] / "README.md").read_text()


STATUSES = {"validating_files", "queued", "running"}


def nodes_of(rule: dict[str, Any]) -> list[Expr]:
    nodes: list[Expr] = []
    promql_parser.walk(promql_parser.parse(rule["expr"]), nodes.append)
    return nodes


def selectors_of(rule: dict[str, Any]) -> list[VectorSelector]:
    return [node for node in nodes_of(rule) if isinstance(node, VectorSelector)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_told(seen: Watched, rule: dict[str, Any]) -> None:
    told = seen.told_ever
    selectors = selectors_of(rule)
    assert selectors
    for selector in selectors:
        assert selector.name in told.samples, f"nothing tells {selector.name}"
        for matcher in selector.matchers.matchers:
            assert matcher.name in told.label_names(selector.name), f"{selector.name} has no label {matcher.name}"
            if matcher.op == MatchOp.Equal:
                assert matcher.value in values_of(told, selector.name, matcher.name)
    labels = {label for selector in selectors for label in told.label_names(selector.name)}
    for node in nodes_of(rule):
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= labels


def values_of(told: Exposition, name: str, label: str) -> set[str]:
    """What is told at zero too; of the queue's gauges, which tell what there is, what there can be."""
    if name.startswith("dpo_queue_") and label == "status":
        return STATUSES
    return {dict(labels)[label] for labels in told.samples[name]}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "action"}
    assert all(len(text) > 20 for text in rule["annotations"].values())


def test_every_metric_is_documented(seen: Watched) -> None:
    names = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in seen.told_ever.samples if "dpo_" in name}
    counted = {name for name in names if f"{name}_total" in names}
    assert not {name for name in names - counted if f"`{name}" not in README}


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The machine's own, else the one of Debian's package, which anybody may fetch and unpack."""
    installed = shutil.which("promtool")
    if installed is not None:
        return installed
    folder = tmp_path_factory.mktemp("promtool")
    try:
        run_in(folder, "apt-get", "download", "prometheus").check_returncode()
        [package] = folder.glob("*.deb")
        run_in(folder, "dpkg-deb", "--extract", package.name, ".").check_returncode()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"needs promtool, of Debian's package prometheus: {error}")
    return str(folder / "usr" / "bin" / "promtool")


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")])
def test_prometheus_own_tool_takes_the_rules_and_each_fires_when_it_should(
    promtool: str, arguments: tuple[str, ...]
) -> None:
    done = run_in(FOLDER, promtool, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
