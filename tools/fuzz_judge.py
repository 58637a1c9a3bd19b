"""The verdict on one input, and the process in which it is read.

equal     what was read is right: see the rule of numbers in fuzz_formats.py
refused   by an error that the reader documents, which names the file
fault     anything else: another exception, a number that differs from the true one, over
          5 seconds of the processor, over three times the file and 100 MB of memory, or
          the end of the process

Inputs are read in a forked process, whose death costs one input and is reported with its
status and its last words. Only minigpt2's own work is limited, not the fuzzer's around
it: a mutation may be packed by LZMA, which takes 94 MB, and a witness may take anything.

This needs Linux: /proc tells what memory is in use, a memfd keeps the last words.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fuzz_formats import Arrays, Files, Format

PACKAGE = f"{os.sep}minigpt2{os.sep}"
SECONDS, MEMORY = 5.0, 100 << 20  # of one input; memory beside three times its files
WARM_UP = 120.0  # seconds of a base file, for which kernels may have to be compiled
PATIENCE = 600.0  # seconds without a word after which a process is taken to hang
TRACED = 20  # of every so many inputs, the lines are traced of one


class Verdict(NamedTuple):
    word: str  # equal, refused, fault
    key: str = ""  # what tells faults apart
    text: str = ""  # what was said


class Hang(BaseException):
    """Raised by the timer. (No Exception, so that no reader can catch it.)"""


# --- One input ---


def make_input(format: Format, seed: int, number: int) -> Files:
    """Return the files of an input: half of them repaired, one to four mutations."""
    rng = random.Random(f"{seed}/{format.name}/{number}")
    base = format.bases[rng.randrange(len(format.bases))]
    count = rng.choice((1, 1, 1, 2, 2, 3, 4))
    rngs = [random.Random(rng.getrandbits(48)) for _ in range(count)]
    return format.mutated(base, rngs, repaired=number % 2 == 1)


def judge(format: Format, files: Files, folder: Path, seconds: float = 0) -> Verdict:
    """Return the verdict on an input.

    Args:
        files: the input.
        folder: an empty folder, which is emptied again.
        seconds: what takes longer is a fault; 0 stands for SECONDS.
    """
    for name, data in files.items():
        (folder / name).write_bytes(data)
    memory = MEMORY + 3 * sum(map(len, files.values())) if format.limited else 0
    seconds = seconds or (SECONDS if format.limited else WARM_UP)
    loaded = False
    try:
        with limits(seconds, memory):
            arrays = format.read(folder)
        loaded = True
        if wrong := _wrong_number(format, files, arrays):
            return Verdict("fault", f"Wrong: {wrong}", wrong)
        with limits(seconds, memory):
            format.use(folder)
        return Verdict("equal")
    except format.refusals as error:
        message = str(error)
        if not message.strip():
            return Verdict("fault", f"{_place(error)}: no message", repr(error))
        if format.names_file and not loaded and str(folder) not in message:
            return Verdict("fault", f"{_place(error)}: does not name the file", message)
        return Verdict("refused", "", message)
    except (Exception, Hang) as error:
        text = f"{type(error).__name__}: {error}"[:500]
        return Verdict("fault", _place(error), text)
    finally:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def limits(seconds: float, memory: int) -> Iterator[None]:
    """Raise Hang after so many seconds of the processor, MemoryError beyond the memory.

    (The processor's: on a busy machine the clock would judge the others' work.)
    """

    def ring(*_: Any) -> None:
        raise Hang(f"more than {seconds} seconds")

    old = signal.signal(signal.SIGPROF, ring)
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + memory, most))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (before, most))
        signal.signal(signal.SIGPROF, old)


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _place(error: BaseException) -> str:
    """What a fault is known by: its type and the innermost line of minigpt2."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if PACKAGE in f.filename or "/kernels/" in f.filename]
    kind = type(error).__name__
    if not own or kind == "Wrong":
        return f"{kind}: {str(error)[:60]}"
    return f"{kind} in {own[-1].filename.rpartition(PACKAGE)[2]}:{own[-1].name}"


def _wrong_number(format: Format, files: Files, read: Arrays) -> str:
    """Return which number breaks the rule of numbers, or ''."""
    if any(_same_arrays(read, base.arrays) for base in format.bases):
        return ""
    try:
        truth = format.witness(files)
    except Exception as error:
        return f"read, where the witness fails: {type(error).__name__}"
    if truth is None:  # names may be others, numbers may not
        for base in format.bases:
            common = set(read) & set(base.arrays)
            if all(_same(read[name], base.arrays[name]) for name in common):
                return ""
        return "a parameter differs from the file's"
    if format.lists_all and set(truth) != set(read):
        return "other names than the witness reads"
    for name, array in read.items():
        if name not in truth or not _same(array, truth[name]):
            return "a number differs from what the witness reads"
    return ""


def _same_arrays(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# --- A process ---


class Worker:
    """A forked process that calls `task(send)`; iterating over it gives what it sent.

    After that, `death` is "" or how the process died, and `words` are the last that it
    wrote to its standard error: a traceback, of a crash too.
    """

    def __init__(self, task: Callable[[Callable[[Any], None]], Any]):
        self.death = self.words = ""
        self._inbox, outbox = Pipe(duplex=False)
        self._stderr = os.memfd_create("stderr")
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # Python 3.12 warns of other threads
            warnings.simplefilter("ignore")
            self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.dup2(self._stderr, 2)
                faulthandler.enable(2)
                logging.disable()
                warnings.simplefilter("ignore")
                np.seterr(all="ignore")
                task(outbox.send)
                status = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode("utf-8", "replace"))
            finally:
                os._exit(status)
        outbox.close()

    def __iter__(self) -> Iterator[Any]:
        try:
            while self._inbox.poll(PATIENCE):
                yield self._inbox.recv()
            os.kill(self.pid, signal.SIGKILL)
            self.death = f"Hang: no word for {PATIENCE} seconds"
        except EOFError:
            pass
        self._inbox.close()
        _, status = os.waitpid(self.pid, 0)
        if status and not self.death:
            code = os.waitstatus_to_exitcode(status)
            self.death = f"Crash: {f'signal {-code}' if code < 0 else f'exit {code}'}"
        start = max(os.fstat(self._stderr).st_size - 2000, 0)
        self.words = os.pread(self._stderr, 2000, start).decode("utf-8", "replace")
        os.close(self._stderr)

    def wait(self) -> list[Any]:
        """Return all that the process sends, once it has ended."""
        return list(self)


@contextlib.contextmanager
def quiet_folder() -> Iterator[Path]:
    """An empty folder, in memory where the system has one for that."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as folder:
        yield Path(folder)


@contextlib.contextmanager
def warmed_up(format: Format) -> Iterator[Path]:
    """A folder to read inputs in, after the base files: what is made once is made then."""
    with quiet_folder() as folder:
        for base in format.bases:
            verdict = judge(format, base.files, folder, WARM_UP)
            if verdict.word != "equal":
                raise RuntimeError(f"an unchanged file of {format.name}: {verdict}")
        yield folder


def verdict_of(format: Format, files: Files) -> Verdict:
    """Return the verdict on one input, in a process of its own."""

    def task(send: Callable[[Verdict], None]) -> None:
        with warmed_up(format) as folder:
            send(judge(format, files, folder))

    worker = Worker(task)
    verdicts = worker.wait()
    if worker.death:
        return Verdict("fault", worker.death, worker.words)
    return verdicts[0]


# --- A batch of inputs ---


class Result(NamedTuple):
    """What became of input `number` of a batch."""

    number: int
    verdict: Verdict
    past: bool  # the header
    lines: set[tuple[str, int]]  # that were reached, if it was traced
    seconds: float


def judge_batch(
    format: Format, seed: int, numbers: range, traced: int, send: Callable
) -> None:
    """Judge the inputs of a batch: send "ready", then each Result."""
    passed = watch_gate(format)
    with warmed_up(format) as folder:
        send("ready")
        for number in numbers:
            start = time.perf_counter()
            files = make_input(format, seed, number)
            passed.clear()
            lines: set[tuple[str, int]] = set()
            # (Of two neighbors one is repaired: both are traced.)
            if traced and number // 2 % traced == 0:
                sys.settrace(_tracer(lines))
            try:
                verdict = judge(format, files, folder)
            finally:
                sys.settrace(None)
            past = bool(passed) or verdict.word == "equal"
            seconds = time.perf_counter() - start
            send(Result(number, verdict, past, lines, seconds))


def watch_gate(format: Format) -> list[bool]:
    """Wrap the format's gate; return a list that is not empty once it was passed."""
    module = importlib.import_module(format.gate[0])
    original = getattr(module, format.gate[1])
    passed: list[bool] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if not format.file or Path(args[0]).name == format.file:
            passed.append(True)
        return result

    setattr(module, format.gate[1], watched)
    return passed


def _tracer(lines: set[tuple[str, int]]) -> Callable:
    """Return a function for sys.settrace that collects the lines of minigpt2."""

    def trace(frame: FrameType, event: str, _: Any) -> Callable | None:
        file = frame.f_code.co_filename
        if PACKAGE not in file:
            return None
        short = file.rpartition(PACKAGE)[2]

        def line(frame: FrameType, event: str, _: Any) -> Callable:
            lines.add((short, frame.f_lineno))
            return line

        return line(frame, event, None)

    return trace
