"""`minigpt2 verify`: compare a model with published numbers."""

import argparse
from collections.abc import Sequence

from . import Commands

COLUMNS = {  # and how wide they may get
    "what": 40,
    "source": 30,
    "expected": 26,
    "got": 26,
    "difference": 26,
    "verdict": 7,
}


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="compare a model with published numbers",
        description="Compare a model with the numbers that other projects published "
        "for a model of its sizes. The exit code is 0 if all of them hold, else 1.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a model's folder or name")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="what to compute in (default: float32)",
    )
    parser.add_argument(
        "--numbers",
        metavar="FILE",
        help="numbers of your own; minigpt2/tasks/verify.py describes the file "
        "(default: the published ones)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a table of what was checked; return 0 if all held."""
    import numpy as np

    from ..tasks.verify import FAILS, HOLDS, NOT_COMPUTED, verify

    dtype = np.dtype(arguments.dtype)
    results = list(verify(arguments.folder, arguments.numbers, dtype))
    rows = [COLUMNS, *([getattr(r, name) for name in COLUMNS] for r in results)]
    print_table([list(map(shortened, row, COLUMNS.values())) for row in rows])
    held = sum(result.verdict == HOLDS for result in results)
    failed = sum(result.verdict == FAILS for result in results)
    print(f"\n{held} hold, {failed} fail, {len(results) - held - failed} skipped")
    if all(result.kind in NOT_COMPUTED for result in results):
        print("No numbers are known that a model of these sizes computes.")
    return 0 if held and not failed else 1


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths))
        print(line.rstrip())
