"""The subcommands of `minigpt2`, a module each.

A module has `add_to(commands)`, which describes the arguments to argparse, and
`run(arguments)`, which does the work and returns the exit code. What they share is here.
"""

from __future__ import annotations

import argparse
import codecs
import sys
from typing import BinaryIO, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# quantization.policy's, and backends', which must not be imported before the arguments
# are read.
WEIGHT_FORMATS = ("float32", "bfloat16", "int8", "int4")
BACKENDS = ("numpy", "numba", "auto")


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


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add --backend and --threads: with what a model computes."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="compute with NumPy, or with kernels that Numba compiles (default: auto, "
        "which takes Numba for large models)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="how many threads compute (default: MINIGPT2_NUM_THREADS, OMP_NUM_THREADS, "
        "or all CPUs)",
    )


def standard_input() -> BinaryIO:
    """Return standard input; ValueError if it is closed."""
    if sys.stdin is None:
        raise ValueError("standard input is closed, and '-' reads it")
    return sys.stdin.buffer


def says_where(path: str) -> str:
    """Return how a message calls a file."""
    return "standard input" if path == "-" else path


def read_text(path: str) -> str:
    """Read a UTF-8 file; '-' is standard input. A byte order mark is no text.

    Raises:
        ValueError: it is not UTF-8; in which line, and at which byte.
    """
    if path == "-":
        data = standard_input().read()
    else:
        with open(path, "rb") as file:
            data = file.read()
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{says_where(path)} is not UTF-8: {error.reason} in line {line} (the byte "
            f"{data[error.start]:#04x})"
        ) from None


def text_of(argument: str) -> str:
    """Return an argument's text; for '-', that of standard input."""
    return read_text("-") if argument == "-" else argument
