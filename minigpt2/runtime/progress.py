"""A progress bar: one line on standard error, and nothing where that is no terminal."""

import sys


class Progress:
    """with Progress("converting", total=148) as progress: progress.step("wte")

    The line is written over at each step, and gone at the end.
    """

    WIDTH = 30

    def __init__(self, label, total):
        self.label, self.total, self.done = label, total, 0
        self.shown = sys.stderr is not None and sys.stderr.isatty() and total > 1

    def step(self, what=""):
        """Count one more of `total` as begun; `what` it is stands beside the bar."""
        if self.shown:
            filled = self.WIDTH * self.done // max(self.total, 1)
            bar = "#" * filled + "." * (self.WIDTH - filled)
            line = f"\r\x1b[K{self.label} [{bar}] {self.done}/{self.total} {what}"
            print(line, end="", file=sys.stderr, flush=True)
        self.done += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()

    def clear(self):
        """Take the line away, so that something else may be printed."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
