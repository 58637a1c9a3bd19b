"""The `minigpt2` command.

Results go to standard output and everything else to standard error. Exit codes: 0 all
well, 1 the request can't be met (the line says why), 2 the command line is wrong, 130
interrupted, 143 terminated; verify and `golden diff` say theirs in --help. Nothing heavy
is imported before the arguments are read.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .commands import Commands

# What the library says in Python, and the command line has under another name.
SAID_OTHERWISE = {
    "do_sample=True": "sampling",
    "do_sample=False": "--greedy",
    "backend='numpy'": "--backend numpy",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options: Mapping[str, str] = {}
    error_code = 1
    try:
        with signals_and_streams():
            arguments = parse(argv)
            options = arguments.options
            error_code = getattr(arguments, "error_code", error_code)
            obey_threads(arguments)
            code = arguments.run(arguments)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (`| head`) has had enough
        drop_output()
        return 0
    except (OSError, ValueError, ImportError, MemoryError) as error:
        message = with_options(said(error), options)
        print(f"minigpt2: error: {message}", file=sys.stderr)
        drop_output_if_broken()
        return error_code


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; SystemExit, with a line that says why, if they are wrong."""
    arguments, unknown = parser().parse_known_args(argv)
    if unknown:
        hint = ""
        if hasattr(arguments, "text_argument") and not unknown[0].startswith("-"):
            name = arguments.text_argument
            hint = f"; put quotes around a {name} of several words"
        arguments.usage_error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return arguments


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    from . import __version__
    from .commands import (
        convert,
        download,
        generate,
        golden,
        info,
        score,
        tokenize,
        verify,
        warm,
    )

    modules = (generate, tokenize, score, info, verify, golden, convert, download, warm)
    top = argparse.ArgumentParser(
        prog="minigpt2",
        description="GPT-2 in NumPy: continue and score texts, and inspect, verify, "
        "trace, convert and fetch models. A small model comes with the package.",
        epilog="`minigpt2 COMMAND --help` tells more about a command.",
    )
    top.add_argument("--version", action="version", version=f"minigpt2 {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in modules:
        module.add_to(commands)
    for subparser in parsers_of(commands):
        subparser.set_defaults(
            options=options_of(subparser), usage_error=subparser.error
        )
    return top


def parsers_of(commands: Commands) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of commands, each before those of its own subcommands."""
    for parser in commands.choices.values():
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from parsers_of(action)


def options_of(command: argparse.ArgumentParser) -> dict[str, str]:
    """Return {Python's name: option} of a command's options, such as top_p: --top-p."""
    return {
        action.dest: action.option_strings[-1]
        for action in command._actions
        if action.option_strings
    }


def obey_threads(arguments: argparse.Namespace) -> None:
    """Compute with --threads threads, if that is given."""
    threads = getattr(arguments, "threads", None)
    if threads is not None:
        from .runtime.threads import set_num_threads

        set_num_threads(threads)


# --- Streams and signals


@contextlib.contextmanager
def signals_and_streams() -> Iterator[None]:
    """Let streams and signals do no harm while the block runs.

    - SIGTERM and SIGHUP end it as an exception does, so that no temporary file stays.
    - What the encoding of standard output lacks is escaped, and that is said once.
    - OSError if standard output is closed: a result would be lost.
    """
    if sys.stderr is None:  # or print() would write errors to standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        raise OSError("standard output is closed, and results go there")
    escape_once = Escape()
    codecs.register_error("minigpt2.escape", escape_once)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="minigpt2.escape")
    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # in another thread than the main one
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminated(number: int, frame: object) -> None:
    """End as shells say it of a signal."""
    raise SystemExit(128 + number)


class Escape:
    """An error handler of codecs that writes \\u2192, and says so the first time."""

    def __init__(self) -> None:
        self.told = False

    def __call__(self, error: UnicodeError) -> tuple[str | bytes, int]:
        if not self.told:
            self.told = True
            print(
                f"(characters that {sys.stdout.encoding} lacks are written as \\u and a "
                "number; PYTHONIOENCODING=utf-8 writes them as they are)",
                file=sys.stderr,
            )
        return codecs.backslashreplace_errors(error)


def drop_output() -> None:
    """Send what is still to be written nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def drop_output_if_broken() -> None:
    """Keep Python's exit from failing again on an output that can't be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        drop_output()


# --- Messages


def said(error: Exception) -> str:
    """Return an error's message, with its file first if it has one."""
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}".removesuffix(": ")
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if error.errno == errno.ENOSPC:  # files are named: see runtime/files.py
        return f"standard output: {error.strerror}"
    return str(error)


def with_options(message: str, options: Mapping[str, str]) -> str:
    """Say a message of the library in options: top_p=2 becomes --top-p 2."""
    for phrase, words in SAID_OTHERWISE.items():
        if words.split()[0] in ("sampling", *options.values()):
            message = re.sub(rf"(?<![\w./'-]){phrase}(?![\w./'])", words, message)
    for name, option in options.items():
        message = re.sub(rf"\b{name}=('?)([\w.+-]+)\1", rf"{option} \2", message)
        if "_" in name:  # any other may be a word of the sentence
            message = re.sub(rf"(?<![\w./']){name}(?![\w./'])", option, message)
    return message
