"""`minigpt2 verify`: compare a model with published numbers."""

COLUMNS = {  # and how wide they may get
    "what": 40,
    "source": 30,
    "expected": 26,
    "got": 26,
    "difference": 26,
    "verdict": 7,
}


def add_to(commands):
    parser = commands.add_parser(
        "verify",
        help="compare a model with published numbers",
        description="Check a model against the numbers that other projects published "
        "for its name. The exit code is 0 if all of them hold.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="or a name")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="(float32)"
    )
    parser.add_argument(
        "--numbers", metavar="FILE", help="numbers of your own, see minigpt2/verify.py"
    )
    parser.set_defaults(run=run)


def run(arguments):
    """Print a table of what was checked; return 0 if all held."""
    import numpy as np

    from ..tasks.verify import FAILS, HOLDS, verify

    dtype = np.dtype(arguments.dtype)
    results = list(verify(arguments.folder, arguments.numbers, dtype))
    rows = [COLUMNS, *([getattr(r, name) for name in COLUMNS] for r in results)]
    print_table([list(map(shortened, row, COLUMNS.values())) for row in rows])
    held = sum(result.verdict == HOLDS for result in results)
    failed = sum(result.verdict == FAILS for result in results)
    print(f"\n{held} hold, {failed} fail, {len(results) - held - failed} skipped")
    if {result.kind for result in results} <= {"file", "parameters", "tokenizer"}:
        print("None of these looks at what the weights compute: no such numbers known.")
    return 0 if held and not failed else 1


def shortened(text, most):
    return text if len(text) <= most else text[: most - 1] + "…"


def print_table(rows):
    """Print rows of cells, each column as wide as its widest."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths))
        print(line.rstrip())
