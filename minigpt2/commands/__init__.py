"""The subcommands of `minigpt2`, a module each.

A module has `add_to(commands)`, which describes the arguments to argparse, and
`run(arguments)`, which does the work and returns the exit code. What they share is here.
"""

import argparse
import sys
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# quantization.policy's, which must not be imported before the arguments are read.
WEIGHT_FORMATS = ("float32", "bfloat16", "int8", "int4")


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --model NAME_OR_FOLDER, whose default comes with the package."""
    parser.add_argument(
        "--model",
        default=default,
        metavar="NAME_OR_FOLDER",
        help=f"a model (default: {default}, which comes with the package)",
    )


def add_weights(parser: argparse.ArgumentParser, help: str) -> None:
    """Add --weights, one of WEIGHT_FORMATS."""
    parser.add_argument("--weights", choices=WEIGHT_FORMATS, help=help)


def text_of(argument: str) -> str:
    """Return an argument's text; for '-', that of standard input."""
    if argument != "-":
        return argument
    return sys.stdin.buffer.read().decode("utf-8")
