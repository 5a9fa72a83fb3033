"""The settings themselves: a variable that nothing reads is most often one that was mistyped."""

import os
from collections.abc import Iterator

from service.doctor.finding import Finding
from service.nearest import did_you_mean
from service.settings import Settings

PART = "settings"
PREFIX = "DPO_"
SETTINGS = frozenset(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)
OF_TRAINERS = frozenset({"DPO_CPU_THREADS", "DPO_RUN_FOLDER_URI"})


def examine_variables(_settings: Settings) -> Iterator[Finding]:
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in SETTINGS | OF_TRAINERS:
            yield Finding(PART, "note", f"nothing reads {name}", did_you_mean(name, SETTINGS, kind="settings"))
