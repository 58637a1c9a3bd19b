"""`minigpt2 verify`: compare a model with published numbers."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..runtime.progress import columns, shortened
from . import Commands

if TYPE_CHECKING:
    from ..tasks.verify import Result


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
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each number"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was checked; return 0 if all held."""
    import numpy as np

    from ..tasks.verify import FAILS, HOLDS, NOT_COMPUTED, verify

    dtype = np.dtype(arguments.dtype)
    results = []
    for result in verify(arguments.folder, arguments.numbers, dtype):
        results.append(result)
        if arguments.json:
            print(json.dumps(asdict(result), ensure_ascii=False), flush=True)
    if not arguments.json:
        for result in results:
            print_result(result, columns(sys.stdout))
    held = sum(result.verdict == HOLDS for result in results)
    failed = sum(result.verdict == FAILS for result in results)
    sums = sys.stderr if arguments.json else sys.stdout
    skipped = len(results) - held - failed
    print(f"\n{held} hold, {failed} fail, {skipped} skipped", file=sums)
    if all(result.kind in NOT_COMPUTED for result in results):
        print("No numbers are known that a model of these sizes computes.", file=sums)
    return 0 if held and not failed else 1


def print_result(result: Result, width: int) -> None:
    """Print a result in lines of a width: what, the numbers, their source."""
    lines = [f"{result.verdict:<9}{result.what}"]
    for name in ("expected", "got", "difference"):
        value = getattr(result, name)
        same = name == "got" and value == result.expected
        if value not in ("", "none") and not (same and result.verdict == "holds"):
            lines.append(f"{'':9}{name:<11} {value}")
    lines.append(f"{'':9}{'source':<11} {result.source}")
    for line in lines:
        print(shortened(line, width))
