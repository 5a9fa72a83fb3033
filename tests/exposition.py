"""What `/metrics` tells, as numbers by name and labels."""

import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Exposition:
    text: str
    samples: dict[str, dict[Labels, float]]

    def value(self, name: str, **labels: str) -> float:
        """0 for what was not told."""
        return self.samples.get(name, {}).get(_sorted(labels.items()), 0.0)

    def told(self, name: str) -> dict[Labels, float]:
        """What is not zero."""
        return {labels: value for labels, value in self.samples.get(name, {}).items() if value}

    def label_names(self, name: str) -> set[str]:
        return {label for labels in self.samples[name] for label, _ in labels}


def scrape(url: str) -> Exposition:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return parse(answer.read().decode())


def exposed(registry: CollectorRegistry) -> Exposition:
    return parse(generate_latest(registry).decode())


def parse(text: str) -> Exposition:
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[_sorted(sample.labels.items())] = sample.value
    return Exposition(text, samples)


def labelled(**labels: str) -> Labels:
    return _sorted(labels.items())


def _sorted(labels: Iterable[tuple[str, str]]) -> Labels:
    return tuple(sorted(labels))
