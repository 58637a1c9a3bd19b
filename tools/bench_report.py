"""What bench.py prints: Markdown tables of medians and ratios; and the same as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar

PACKAGES = (
    "numpy",
    "numba",
    "torch",
    "transformers",
    "ctranslate2",
    "llama_cpp_python",
    "gguf",
    "tiktoken",
)

# Beginnings of the variables that say how many threads there are, and how they wait.
THREADS = ("GOMP_", "KMP_", "MINIGPT2_", "MKL_", "NUMBA_", "OMP_", "OPENBLAS_")


class Contestant(Protocol):
    """What the report knows of whoever takes part (see bench_contestants)."""

    name: str
    how: str  # what it was told, in words
    weights: Any  # the weight format, which it may fairly be compared by; or None


Present = TypeVar("Present", bound=Contestant)
Samples = dict[str, list[float]]  # {name: a sample for each round}


class Report:
    """All that the bench finds out.

    Attributes:
        settings: the command's arguments, for the record.
        tables: [{"title", "unit", "rows": {name: {"median", "samples", "ratios"}}}]. A
            ratio is the median over the rounds of the ratios within each round: those
            samples were taken within seconds of each other.
        agreement: [{"scenario", "of", "with", "difference"}].
        dropped: [{"scenario", "name", "why"}], who could not take part.
        failures: [{"scenario", "why"}], what came to no result at all.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        load: Callable[[], tuple[float, float, float]] = os.getloadavg,
    ):
        self.settings, self.load = settings, load
        self.load_before = load()
        self.tables: list[dict[str, Any]] = []
        self.agreement: list[dict[str, Any]] = []
        self.dropped: list[dict[str, str]] = []
        self.failures: list[dict[str, str]] = []
        self.columns: dict[str, dict[str, Any]] = {}  # {column of the summary: table}
        self.how: dict[str, str] = {}  # {name: how it was set}
        self.weights: dict[str, str | None] = {}  # {name: its weight format}
        self.begin("")

    def begin(self, scenario: str) -> None:
        """Begin a scenario; whoever dropped out of the last one takes part again."""
        self.scenario, self.missing = scenario, set[str]()

    def drop(self, contestant: Contestant, why: object) -> None:
        """Leave a contestant out of the rest of this scenario."""
        self.missing.add(contestant.name)
        entry = {"scenario": self.scenario, "name": contestant.name, "why": str(why)}
        self.dropped.append(entry)
        say(f"{self.scenario} goes on without {contestant.name}: {last_line(why)}")

    def present(self, contestants: Iterable[Present]) -> list[Present]:
        """Return the contestants that have not dropped out."""
        return [c for c in contestants if c.name not in self.missing]

    def agree(
        self, contestant: Contestant, reference: Contestant, difference: float
    ) -> None:
        """Note how far two contestants' logits differ, as a part of the largest."""
        entry = {"scenario": self.scenario, "of": contestant.name}
        self.agreement.append(
            entry | {"with": reference.name, "difference": difference}
        )

    def fail(self, why: object) -> None:
        """Note that a scenario came to no result."""
        self.failures.append({"scenario": self.scenario, "why": str(why)})
        say(f"{self.scenario}: {why}")

    def describe(self, contestants: Iterable[Contestant]) -> None:
        """Note how those who were measured were set, and their weight formats."""
        for c in contestants:
            self.how[c.name], self.weights[c.name] = c.how, c.weights

    def table(
        self, title: str, unit: str, samples: Samples, column: str | None = None
    ) -> None:
        """Print the medians of the samples, and their ratios to ours.

        Args:
            column: the table's name in the summary, if it belongs there.
        """
        if not samples:
            return
        ours = [name for name in samples if name.startswith("minigpt2 ")]
        if unit == "ratio":  # of which no further ratios are wanted
            ours = []
        rows = {name: row_of(values, samples, ours) for name, values in samples.items()}
        self.tables.append({"title": title, "unit": unit, "rows": rows})
        if column:
            self.columns[column] = self.tables[-1]
        short = [name.removeprefix("minigpt2 ") for name in ours]
        cells = [["", f"{unit} (range)", *(f"{name} ÷ this" for name in short)]]
        for name, row in rows.items():
            low, high = min(row["samples"]), max(row["samples"])
            ratios = ("" if us == name else f"{row['ratios'][us]:.2f}" for us in ours)
            values = f"{figure(row['median'])} ({figure(low)}-{figure(high)})"
            cells.append([name, values, *ratios])
        print(f"\n**{title}**\n\n{markdown(cells)}", flush=True)

    def print_summary(self) -> None:
        """Print a line for each contestant: its medians, and ours divided by them.

        Ours is the one of the same weight format.
        """
        names = dict.fromkeys(n for t in self.columns.values() for n in t["rows"])
        cells = [["", *self.columns]]
        for name in names:
            line = [name]
            for table in self.columns.values():
                line.append(self.summary_cell(name, table["rows"]))
            cells.append(line)
        print("\n**Summary: medians (minigpt2 with such weights ÷ this)**\n")
        print(markdown(cells), flush=True)

    def summary_cell(self, name: str, rows: dict[str, dict[str, Any]]) -> str:
        """Return what the summary says about a contestant in one table."""
        if name not in rows:
            return ""
        median = figure(rows[name]["median"])
        ratio = rows[name]["ratios"].get(f"minigpt2 numba {self.weights.get(name)}")
        return median if ratio is None or ratio == 1 else f"{median} ({ratio:.2f})"

    def print_notes(self) -> None:
        """Print what a reader of the tables has to know."""
        if self.how:
            print("\nHow each was set:\n")
            for name, how in self.how.items():
                print(f"- {name}: {how}")
        if self.agreement:
            print("\nThe last logits differ, as a part of the largest:\n")
            for line in agreement_lines(self.agreement):
                print(line)
        if self.dropped:
            print("\nNot measured:\n")
            for entry in self.dropped:
                why = last_line(entry["why"])
                print(f"- {entry['name']} in {entry['scenario']}: {why}")
        machine = self.machine()
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        print(
            f"\n{machine['cpu']}, {machine['cores']} cores, "
            f"threads: {self.settings['threads']}; {machine['system']}; "
            f"Python {machine['python']}, {versions}; load average before "
            f"{self.load_before[0]:.2f}, after {machine['load after'][0]:.2f}; medians "
            f"of {self.settings['rounds']} rounds"
        )

    def machine(self) -> dict[str, Any]:
        """Return what the machine is and how busy it was."""
        return {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "system": platform.platform(),
            "environment": {
                name: value
                for name, value in os.environ.items()
                if name.startswith(THREADS)
            },
            "python": platform.python_version(),
            "versions": versions_of(PACKAGES),
            "load before": self.load_before,
            "load after": self.load(),
        }

    def save(self, path: Path) -> None:
        """Write all of it to a file, whole or not at all."""
        result = {
            "machine": self.machine(),
            "settings": self.settings,
            "contestants": self.how,
            "tables": self.tables,
            "agreement": self.agreement,
            "dropped": self.dropped,
            "failures": self.failures,
        }
        text = json.dumps(result, indent=1, default=str) + "\n"
        half = path.with_name(f"{path.name}.{os.getpid()}")
        half.write_text(text, "utf-8")
        os.replace(half, path)


def row_of(
    values: list[float], samples: Samples, ours: Sequence[str]
) -> dict[str, Any]:
    """Return a table's row: the median, the samples, and the ratios of ours to them."""
    ratios = {
        us: statistics.median(a / b for a, b in zip(samples[us], values)) for us in ours
    }
    return {"median": statistics.median(values), "samples": values, "ratios": ratios}


def agreement_lines(agreement: list[dict[str, Any]]) -> list[str]:
    """Return a line for each contestant, with the largest difference of all scenarios."""
    worst: dict[tuple[str, str], float] = {}
    for entry in agreement:
        pair = entry["of"], entry["with"]
        worst[pair] = max(worst.get(pair, 0.0), entry["difference"])
    return [
        f"- {of}: {difference:.2g} from {reference}"
        for (of, reference), difference in worst.items()
    ]


def figure(x: float) -> str:
    """Return three digits of a number, or all before the point."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def markdown(rows: list[list[str]]) -> str:
    """Return a table whose columns line up in a terminal too."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |"
        for row in [rows[0], rule, *rows[1:]]
    )


def say(text: str) -> None:
    """Print a line to stderr, over the progress that a terminal may show there."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{text}", file=sys.stderr, flush=True)


def last_line(text: object) -> str:
    """Return a traceback's last line, the error, or as much of it as a line holds."""
    return textwrap.shorten(str(text).strip().rpartition("\n")[2], 200)


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return {package: version} of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def cpu_name() -> str:
    with contextlib.suppress(FileNotFoundError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().split("model name")[1]
        return lines.partition("\n")[0].strip("\t :")
    return platform.processor() or platform.machine()
