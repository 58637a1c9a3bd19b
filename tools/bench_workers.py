"""Processes that take turns: each contestant of bench.py works alone, and only when told.

A contestant that fails drops out, the report says why, and the others go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bench_report import Contestant, Report

# Seconds between turns, for threads that wait for work by spinning: OpenBLAS's do so for
# about 0.1 s after the last call, Intel's OpenMP's for 0.2 s, the others' for less.
REST = 0.3
WORK = Path(tempfile.gettempdir()) / "minigpt2-bench"

Turn = TypeVar("Turn", bound=Contestant)


class Answer(NamedTuple):
    """What a contestant's method returned, and its process's peak memory by then."""

    result: Any
    peak_bytes: int


class Failed(Exception):
    """A contestant could not do what it was asked to."""


def serve(connection: Connection, contestant: Contestant) -> None:
    """Do one call after another, as told, until one fails: a worker's life."""
    with contextlib.suppress(EOFError, BrokenPipeError):  # the bench was stopped
        while (call := connection.recv()) is not None:
            method, arguments = call
            try:
                result = getattr(contestant, method)(*arguments)
            except Exception:
                # Whatever a peer raises, in types of its own, is told to the process
                # that asked, which says who it was; here nobody would see it.
                connection.send(traceback.format_exc())
                return
            connection.send(Answer(result, peak_memory()))


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory, mapped files included."""
    try:  # ru_maxrss would remember the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except FileNotFoundError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Worker:
    """A contestant in a process of its own, which works only while it is asked to."""

    def __init__(self, contestant: Any):
        self.contestant, self.name = contestant, contestant.name
        self.how, self.weights = contestant.how, contestant.weights
        spawn = multiprocessing.get_context("spawn")
        spawn.set_executable(getattr(contestant, "python", None) or sys.executable)
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(
            target=serve, args=(theirs, contestant), daemon=True
        )
        self.process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Answer:
        """Have the contestant's method called. Failed if it raises or its process dies."""
        try:
            self.connection.send((method, arguments))
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise Failed(
                f"its process died in {method} (exit code {self.process.exitcode})"
            ) from None
        if isinstance(answer, str):
            raise Failed(answer)
        return answer

    def end(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):  # it is dead already
            self.connection.send(None)
        self.process.join()


def loaded(contestant: Any, folder: str | os.PathLike, threads: int) -> Worker:
    """Return a Worker that has loaded the model. Failed if it can't."""
    path = path_for(contestant, folder)
    worker = Worker(contestant)
    worker.call("load", str(path), threads)
    return worker


@contextlib.contextmanager
def working(
    contestants: Iterable[Contestant],
    folder: str | os.PathLike,
    threads: int,
    report: Report,
) -> Iterator[list[Worker]]:
    """In a with statement: a Worker for each contestant that can load the model."""
    workers = []
    try:
        for contestant in contestants:
            progress(f"loading {contestant.name}")
            try:
                workers.append(loaded(contestant, folder, threads))
            except Failed as failure:
                report.drop(contestant, failure)
        yield list(workers)
    finally:
        for worker in workers:
            worker.end()


def take_turns(
    contestants: list[Turn],
    rounds: int,
    turn: Callable[[Turn], Any],
    report: Report,
) -> dict[str, list[Any]]:
    """Call turn(contestant) for everyone in every round; return {name: results}.

    Each round starts with another contestant, so nobody always has the same neighbor.
    Failed if nobody is left.
    """
    results: dict[str, list[Any]] = {one.name: [] for one in contestants}
    for i in range(rounds):
        present = report.present(contestants)
        first = i % max(1, len(present))
        for contestant in present[first:] + present[:first]:
            progress(f"round {i + 1} of {rounds}: {contestant.name}")
            time.sleep(REST)
            try:
                results[contestant.name].append(turn(contestant))
            except Failed as failure:
                report.drop(contestant, failure)
    progress("")
    present = report.present(contestants)
    if not present:
        raise Failed("nobody is left")
    report.describe(present)
    return {contestant.name: results[contestant.name] for contestant in present}


def progress(text: str) -> None:
    """Write over the line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def path_for(contestant: Any, folder: str | os.PathLike) -> str | os.PathLike:
    """Return the folder, or the contestant's conversion of it, made when first needed."""
    if not hasattr(contestant, "converted"):
        return folder
    path = WORK / "converted" / fingerprint(folder) / contestant.converted
    return make_once(path, contestant.convert, folder)


def fingerprint(folder: str | os.PathLike) -> str:
    """Return a name for a folder as it is: its path, its files' sizes and times."""
    folder = Path(folder).resolve()
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir()]
    known = f"{folder} {sorted(files)}".encode()
    return f"{folder.name}-{hashlib.sha256(known).hexdigest()[:16]}"


def make_once(path: Path, save: Callable[..., None], *arguments: Any) -> Path:
    """Have save(*arguments, path) done by another process, unless the path is there."""
    if not path.exists():
        progress(f"making {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        half_made = path.with_name(f"{path.name}-{os.getpid()}")
        spawn = multiprocessing.get_context("spawn")
        spawn.set_executable(sys.executable)
        process = spawn.Process(target=save, args=(*arguments, half_made))
        process.start()
        process.join()
        if process.exitcode:
            raise Failed(f"could not make {path} (what went wrong is above)")
        half_made.rename(path)
    return path
