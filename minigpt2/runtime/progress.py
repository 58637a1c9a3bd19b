"""A progress bar: one line on standard error, and nothing where that is no terminal."""

import os
import sys
from typing import Self, TextIO


def columns(file: TextIO | None) -> int:
    """Return how many characters a line may have: the terminal's, or 80."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80 if file else 80
    except (OSError, ValueError):  # it is no terminal
        return 80


def shortened(line: str, most: int) -> str:
    """Cut a line to so many characters."""
    return line if len(line) <= most else line[: max(most - 1, 0)] + "…"


class Progress:
    """with Progress("converting", total=148) as progress: progress.step("wte")

    Each step writes over the line, and at the end it is gone.
    """

    WIDTH = 30

    def __init__(self, label: str, total: int):
        self.label, self.total, self.done = label, total, 0
        self.shown = sys.stderr is not None and sys.stderr.isatty() and total > 1

    def step(self, what: str = "") -> None:
        """Count one more of `total` as begun, and show beside the bar what it is."""
        if self.shown:
            filled = self.WIDTH * self.done // max(self.total, 1)
            bar = "#" * filled + "." * (self.WIDTH - filled)
            line = f"{self.label} [{bar}] {self.done}/{self.total} {what}"
            # (A terminal may go on to the next line when the last column is written.)
            line = shortened(line, columns(sys.stderr) - 1)
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        self.done += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
