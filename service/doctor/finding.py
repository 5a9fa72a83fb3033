"""One thing that was looked at: how it is, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    """settings, data folder, database, store, cluster or models"""
    state: State
    told: str
    remedy: str = ""


def render_findings(findings: list[Finding]) -> str:
    """A table of one line each, and under what is not well what to do."""
    width = max((len(finding.part) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state:<6}  {finding.part:<{width}}  {finding.told}")
        if finding.remedy:
            lines.append(f"{'':<6}  {'':<{width}}  -> {finding.remedy}")
    failed = sum(finding.state == "failed" for finding in findings)
    lines.append(f"{failed} of {len(findings)} checks failed." if failed else "All is well.")
    return "\n".join(lines)
