"""A diagnosis in words, for a screen of 80 columns, and as JSON for programs."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnosis import Diagnosis, Finding

WIDTH = 80
MOST = 3  # findings that are told at length


def report(diagnosis: Diagnosis) -> str:
    """Return what a person should know, on one screen."""
    lines = [headline(diagnosis), ""]
    groups = grouped(diagnosis.findings)
    for i, group in enumerate(groups[:MOST]):
        lines += told(i + 1, group)
    if groups[MOST:]:
        names = ", ".join(group[0].step for group in groups[MOST:])
        lines += wrapped(f"Wrong too: {names}")
    if diagnosis.steps:
        lines += wrapped(tally(diagnosis))
    if diagnosis.unseen:
        causes = ", ".join(diagnosis.unseen)
        lines += wrapped(
            f"Not excluded, as they may hide in the rounding of {diagnosis.precision}: "
            f"{causes}"
        )
    for note in diagnosis.notes[:3]:
        lines += wrapped(f"Note: {note}")
    if diagnosis.notes[3:]:
        lines.append(f"(and {len(diagnosis.notes) - 3} more notes: see --json)")
    return "\n".join(lines).rstrip()


def headline(diagnosis: Diagnosis) -> str:
    """Return the verdict in a line."""
    status = diagnosis.status
    if not diagnosis.steps:
        return status.upper()
    count = len(diagnosis.steps)
    what = f"{count} step{'s' if count != 1 else ''} compared, in {diagnosis.precision}"
    if not diagnosis.findings:
        return f"{status.upper()}: {what}"
    return f"{status.upper()}, first at {diagnosis.first_wrong}: {what}"


def tally(diagnosis: Diagnosis) -> str:
    """Say how many steps are right, and how many of these only inherit an error."""
    right = [step for step in diagnosis.steps if not step.wrong]
    if not right:
        return "No step that was dumped is right."
    late = [step for step in right if step.inherited > step.tolerance]
    worst = max(right, key=lambda step: step.own)
    said = (
        f"Right: {len(right)} of {len(diagnosis.steps)} steps, at most {worst.own:.1e} "
        f"off by themselves ({worst.name}; tolerance {worst.tolerance:.1e})"
    )
    if late:
        said += f"; {len(late)} of them pass on an error, the first is {late[0].name}"
    return said + "."


def grouped(findings: list[Finding]) -> list[list[Finding]]:
    """Put findings of one cause together; what is unknown stands alone."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.cause or finding.step, []).append(finding)
    return list(groups.values())


def told(number: int, group: list[Finding]) -> list[str]:
    """Return the lines on one cause, or one unknown."""
    finding, best = group[0], group[0].best
    where = finding.step
    if len(group) > 1:
        more = [other.step for other in group[1:]]
        where += f", {', '.join(more[:2])}"
        where += f" and {len(more) - 2} more" if more[2:] else ""
    if finding.cause is None or best is None:
        lines = [f"{number}. {where}: unknown"]
        said = f"Theirs is {number_of(finding.error)} off ours on their own inputs; "
        said += finding.reason + "."
        if len(finding.between) > 1:
            said += (
                f" It is one of {len(finding.between)} steps, {finding.between[0]} to "
                f"{finding.between[-1]}: dump more of them."
            )
        return [*lines, *wrapped(said, "   ")]
    detail = f" ({best.detail})" if best.detail else ""
    lines = wrapped(f"{number}. {where}: {finding.cause.upper()}{detail}")
    said = (
        f"Theirs is {number_of(finding.error)} off ours, and {number_of(best.error)} off "
        "ours with this mistake"
    )
    if len(finding.candidates) > 1:
        other = finding.candidates[1]
        said += f"; next comes {other.cause}, {number_of(other.error)} off"
    lines += wrapped(said + ".", "   ") + wrapped(best.advice, "   ")
    if best.cases:
        lines += wrapped(f"It happened before: {best.cases}.", "   ")
    return lines


def number_of(error: float) -> str:
    return "not finite, so infinitely" if math.isinf(error) else f"{error:.1e}"


def wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or "   ",
        break_long_words=False,
    )


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as an object of JSON; null stands for what is not finite."""
    found = {
        **asdict(diagnosis),
        "causes": diagnosis.causes,
        "first_wrong": diagnosis.first_wrong,
    }
    return plain(found)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
