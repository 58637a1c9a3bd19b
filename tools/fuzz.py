"""Feed minigpt2 damaged and hostile input, and see that it is refused or read right.

    python tools/fuzz.py                        every format, 2,000 inputs of each
    python tools/fuzz.py --count 100000 --only npz --seed 7
    python tools/fuzz.py --seconds 600          as many as ten minutes allow
    python tools/fuzz.py --fixed 20000          always the same inputs, for CI
    python tools/fuzz.py --atheris npz --seconds 60   coverage-guided, where it is installed
    python tools/fuzz.py --replay               what is kept in tests/corpus

Input N of a format is made from the seed, the format's name and N alone. Half of the
inputs have their checksums and lengths made right again, so that mutations get past the
header. The verdict on each is one of

    equal     what was read is right: see the rule of numbers in fuzz_formats.py
    refused   by a ValueError (CheckpointError is one) or an OSError that names the file
    fault     anything else: another exception, a number that differs from the true one,
              over 5 seconds of the processor, over three times the file and 100 MB of
              memory, or the end of the process

Inputs are read in a worker, forked for a batch of them, whose memory is limited by
RLIMIT_AS. A fault that ends the worker costs only itself. Faults are told apart by the
exception and the innermost line of minigpt2; the first of each kind is made smaller and,
with --keep, put into tests/corpus, which tests/test_fuzz.py replays.

Lines are counted with sys.settrace in every twentieth input (the table gives the lines
of functions in the format's own modules); "past the header" is counted by wrapping the
function that a reader calls once it has believed the header.

Exit status 1 if there were faults. The other files: fuzz_formats, fuzz_surfaces (options
of generation, the command line, kernels), fuzz_mutations.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import faulthandler
import hashlib
import importlib
import json
import logging
import mmap
import os
import pickle
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

# Threads that NumPy's BLAS would start in every worker.
if __name__ == "__main__":
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import numpy as np

if TYPE_CHECKING:
    from fuzz_formats import Files, Format

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = f"{os.sep}minigpt2{os.sep}"
CORPUS = ROOT / "tests" / "corpus"
SECONDS, MEMORY = 5.0, 100 << 20  # of one input
WARM_UP = 120.0  # of a base file, for which kernels may have to be compiled
BATCH = 1000  # inputs of one worker
TRACED = 20  # of every so many inputs, one is traced


@dataclass
class Fault:
    """One kind of fault: what it is known by, and the first input that showed it."""

    key: str
    text: str
    number: int  # of the input; -1 for one that is not of the campaign's
    count: int = 1
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Tally:
    """What became of the inputs of one format."""

    verdicts: Counter[str] = field(default_factory=Counter)
    past: int = 0
    seconds: float = 0.0
    lines: set[tuple[str, int]] = field(default_factory=set)
    faults: dict[str, Fault] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        return sum(self.verdicts.values())

    def add(self, other: Tally) -> None:
        self.verdicts += other.verdicts
        self.past += other.past
        self.seconds += other.seconds
        self.lines |= other.lines
        for key, fault in other.faults.items():
            if key in self.faults:
                self.faults[key].count += fault.count
            else:
                self.faults[key] = fault


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


def judge(
    format: Format, files: Files, folder: Path, seconds: float = SECONDS
) -> tuple[str, str, str]:
    """Return (verdict, key of the fault, what was said) of one input.

    Args:
        files: the input; of each base, `arrays` are what is true.
        folder: an empty folder, which is emptied again.
        seconds: what takes longer is a fault.
    """
    from fuzz_formats import Wrong

    for name, data in files.items():
        (folder / name).write_bytes(data)
    old = signal.signal(signal.SIGPROF, _raise_hang)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    loaded = False
    try:
        read = format.read(folder)
        loaded = True
        wrong = _wrong_number(format, files, read)
        del read
        if wrong:
            raise Wrong(wrong)
        format.use(folder)
        return "equal", "", ""
    except format.refusals as error:
        message = str(error)
        if not message.strip():
            return "fault", f"{_place(error)}: no message", repr(error)
        if format.names_file and not loaded and str(folder) not in message:
            return "fault", f"{_place(error)}: does not name the file", message
        return "refused", "", message
    except (Exception, Hang) as error:
        return "fault", _place(error), f"{type(error).__name__}: {error}"[:500]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _raise_hang(*_: Any) -> None:
    raise Hang(f"more than {SECONDS} seconds")


def _place(error: BaseException) -> str:
    """What a fault is known by: its type and the innermost line of minigpt2."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if PACKAGE in f.filename or "/kernels/" in f.filename]
    if not own:
        return f"{type(error).__name__}: {str(error)[:60]}"
    file = own[-1].filename.rpartition(PACKAGE)[2]
    detail = f": {str(error)[:60]}" if type(error).__name__ == "Wrong" else ""
    return f"{type(error).__name__} in {file}:{own[-1].name}{detail}"


def _wrong_number(format: Format, files: Files, read: dict[str, np.ndarray]) -> str:
    """Return which number breaks the rule of numbers, or ''."""
    if any(_same_arrays(read, base.arrays) for base in format.bases):
        return ""
    try:
        truth = format.witness(files)
    except (Exception, Hang) as error:
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


def _same_arrays(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# --- A worker ---


class Worker:
    """A forked process that does one thing and sends back what it returned.

    Args:
        task: given a function to call with the number of each input before it is read.
    """

    def __init__(self, task: Callable[[Callable[..., None]], Any]):
        # [number of the input, when it is over in ms], which outlive the process.
        self.shared = mmap.mmap(-1, 16)
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # Python 3.12 warns of other threads
            warnings.simplefilter("ignore")
            self.pid = os.fork()
        if self.pid == 0:
            faulthandler.disable()  # a crash is reported, not shown
            logging.disable()
            os.close(reading)
            status = 1
            with contextlib.suppress(BaseException):
                result = pickle.dumps(task(self.begin))
                with open(writing, "wb") as pipe:
                    pipe.write(result)
                status = 0
            os._exit(status)
        os.close(writing)
        self.reading = reading

    def begin(self, number: int, seconds: float = 12 * SECONDS) -> None:
        """Say, in the worker, that an input is read now, which takes less than that."""
        end = int((time.monotonic() + seconds) * 1000)
        self.shared[:] = number.to_bytes(8, "little") + end.to_bytes(8, "little")

    def wait(self) -> tuple[Any, int, str]:
        """Return (what the task returned, number of the last input, why it ended)."""
        received = bytearray()
        why = ""
        while True:
            ready, _, _ = select.select([self.reading], [], [], 1.0)
            if ready:
                piece = os.read(self.reading, 1 << 20)
                if not piece:
                    break
                received += piece
            end = int.from_bytes(self.shared[8:], "little")
            if end and time.monotonic() * 1000 > end:
                os.kill(self.pid, signal.SIGKILL)
                why = "Hang: a worker that does not answer"
        os.close(self.reading)
        _, status = os.waitpid(self.pid, 0)
        number = int.from_bytes(self.shared[:8], "little")
        if not why and status:
            signalled = os.WIFSIGNALED(status)
            why = f"Crash: signal {os.WTERMSIG(status)}" if signalled else "Crash: exit"
        return (pickle.loads(received) if not why else None), number, why


def limit_memory(format: Format) -> None:
    """Limit this process to what it has, 100 MB, and three times the largest file."""
    largest = max(len(data) for base in format.bases for data in base.files.values())
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * mmap.PAGESIZE
    limit = now + MEMORY + 3 * largest
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@contextlib.contextmanager
def quiet_folder() -> Iterator[Path]:
    """An empty folder, in memory where the system has one for that."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as folder:
        yield Path(folder)


def run_batch(
    format: Format, seed: int, numbers: range, begin: Callable[..., None], traced: int
) -> Tally:
    """Judge the inputs of a batch, in a worker."""
    tally = Tally()
    passed = watch_gate(format)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    with quiet_folder() as folder:
        for base in format.bases:  # also: what is allocated once is allocated now
            begin(numbers.start, 2 * WARM_UP)
            verdict, _, text = judge(format, base.files, folder, WARM_UP)
            if verdict != "equal":
                tally.faults["base"] = Fault("base", f"an unchanged file: {text}", -1)
        if format.limited:
            limit_memory(format)
        start = time.perf_counter()
        for number in numbers:
            begin(number)
            files = make_input(format, seed, number)
            passed.clear()
            follow = traced and (number // 2) % traced == 0
            if follow:
                sys.settrace(_tracer(tally.lines))
            try:
                verdict, key, text = judge(format, files, folder)
            finally:
                sys.settrace(None)
            tally.verdicts[verdict] += 1
            tally.past += bool(passed) or verdict == "equal"
            if verdict == "fault":
                if key not in tally.faults:
                    tally.faults[key] = Fault(key, text, number, 0, files)
                tally.faults[key].count += 1
        tally.seconds = time.perf_counter() - start
    return tally


def watch_gate(format: Format) -> list[int]:
    """Wrap the format's gate; return a list that is not empty once it was passed."""
    module = importlib.import_module(format.gate[0])
    original = getattr(module, format.gate[1])
    passed: list[int] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        if original.__name__ != "read_json":
            passed.append(1)
            return original(*args, **kwargs)
        content = original(*args, **kwargs)
        if Path(args[0]).name == getattr(format, "file", ""):
            passed.append(1)
        return content

    if isinstance(original, type):
        # (A class stays one, for isinstance.)
        watched = type(  # type: ignore[assignment]
            original.__name__,
            (original,),
            {
                "__init__": lambda self, *a, **k: (
                    passed.append(1) or original.__init__(self, *a, **k)
                )
            },
        )
    setattr(module, format.gate[1], watched)
    return passed


def _tracer(lines: set[tuple[str, int]]) -> Callable:
    def trace(frame: FrameType, event: str, _: Any) -> Callable | None:
        file = frame.f_code.co_filename
        if PACKAGE not in file:
            return None
        short = file.rpartition(PACKAGE)[2]

        def line(frame: FrameType, event: str, _: Any) -> Callable:
            lines.add((short, frame.f_lineno))
            return line

        lines.add((short, frame.f_lineno))
        return line

    return trace


def lines_of(modules: tuple[str, ...]) -> set[tuple[str, int]]:
    """Return the lines of all functions in modules of minigpt2, as the tracer has them."""
    found = set()
    for name in modules:
        path = ROOT / "minigpt2" / name
        waiting = [compile(path.read_text("utf-8"), str(path), "exec")]
        while waiting:
            code = waiting.pop()
            waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
            if code.co_flags & 2:  # a function's, not a module's or class's
                found |= {(name, n) for _, _, n in code.co_lines() if n}
    return found


# --- The campaign ---


def campaign(
    format: Format,
    count: int,
    seed: int = 0,
    seconds: float = float("inf"),
    traced: int = TRACED,
    report: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Judge `count` inputs of a format, fewer if the time is over."""
    total, start = Tally(), time.monotonic()
    number = 0
    while number < count and time.monotonic() - start < seconds:
        numbers = range(number, min(number + BATCH, count))
        worker = Worker(
            lambda begin, n=numbers: run_batch(format, seed, n, begin, traced)
        )
        tally, last, why = worker.wait()
        number = numbers.stop
        if why:
            # What was counted in the lost worker is counted again, up to the fault.
            before = range(numbers.start, last)
            if before:
                worker = Worker(
                    lambda begin, n=before: run_batch(format, seed, n, begin, traced)
                )
                tally, _, again = worker.wait()
            tally = tally or Tally()
            tally.verdicts["fault"] += 1
            tally.add(
                Tally(
                    faults={
                        why: Fault(why, why, last, 1, make_input(format, seed, last))
                    }
                )
            )
            number = last + 1
        total.add(tally)
        report(total)
    return total


def verdict_of(format: Format, files: Files) -> tuple[str, str, str]:
    """Return `judge`'s word on an input, in a worker of its own."""

    def task(begin: Callable[..., None]) -> tuple[str, str, str]:
        begin(0, 2 * WARM_UP)
        warnings.simplefilter("ignore")
        np.seterr(all="ignore")
        with quiet_folder() as folder:
            for base in format.bases:
                judge(format, base.files, folder, WARM_UP)
            if format.limited:
                limit_memory(format)
            begin(0)
            return judge(format, files, folder)

    verdict, _, why = Worker(task).wait()
    return ("fault", why, why) if why else verdict


def reduced(format: Format, fault: Fault, seconds: float = 20.0) -> Files:
    """Return a smaller input with the same fault: files as in the base where that does,
    then fewer bytes or smaller JSON."""
    end = time.monotonic() + seconds

    def still(files: Files) -> bool:
        return time.monotonic() < end and verdict_of(format, files)[1] == fault.key

    best = dict(fault.files)
    base = min(
        (b.files for b in format.bases),
        key=lambda files: sum(files.get(name) != data for name, data in best.items()),
    )
    for name in list(best):
        if name in base and best[name] != base[name]:
            if still(smaller := best | {name: base[name]}):
                best = smaller
        elif name not in base and still(
            smaller := {n: data for n, data in best.items() if n != name}
        ):
            best = smaller
    for name in [n for n, data in best.items() if data != base.get(n)]:
        candidates = _smaller_json if name.endswith(".json") else _smaller_bytes
        changed = True
        while changed and time.monotonic() < end:
            changed = False
            for data in candidates(best[name], base.get(name, b"")):
                if still(smaller := best | {name: data}):
                    best, changed = smaller, True
                    break
    return best


def _smaller_json(data: bytes, _: bytes) -> Iterator[bytes]:
    """Yield JSON without one of its parts."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return
    waiting: list[list] = [[]]
    while waiting:
        path = waiting.pop(0)
        node = tree
        for key in path:
            node = node[key]
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            copied = json.loads(data)
            holder = copied
            for step in path:
                holder = holder[step]
            del holder[key]
            yield json.dumps(copied).encode()
            if isinstance(node[key], dict | list):
                waiting.append([*path, key])


def _smaller_bytes(data: bytes, base: bytes) -> Iterator[bytes]:
    """Yield data with a stretch as in the base, or without one."""
    if len(data) == len(base):
        differing = [n for n, (a, b) in enumerate(zip(data, base)) if a != b]
        size = len(differing)
        while size > 1 or size == len(differing) == 1:
            size = -(-size // 2)
            for start in range(0, len(differing), size):
                part = differing[start : start + size]
                if len(part) == len(differing):
                    continue
                restored = bytearray(data)
                for n in part:
                    restored[n] = base[n]
                yield bytes(restored)
            if size == 1:
                break
    length = len(data) // 2
    while length:
        for start in range(0, len(data), length):
            yield data[:start] + data[start + length :]
        length //= 4


# --- What is kept ---


def keep(format: Format, fault: Fault, folder: Path = CORPUS) -> Path:
    """Write a fault's input into the corpus; return its path."""
    files = {
        name: data.decode()
        if _is_plain(data)
        else {"base64": base64.b64encode(data).decode()}
        for name, data in sorted(fault.files.items())
    }
    content = {"format": format.name, "was": fault.key, "files": files}
    text = json.dumps(content, indent=1) + "\n"
    name = "".join(c if c.isalnum() else "-" for c in format.name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    path.write_text(text, "utf-8")
    return path


def _is_plain(data: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        return all(c.isprintable() or c in "\n\t" for c in data.decode())
    return False


def load_kept(path: Path) -> tuple[str, Files]:
    """Return (the format's name, the input) that a file of the corpus holds."""
    content = json.loads(path.read_text("utf-8"))
    files = {
        name: data.encode()
        if isinstance(data, str)
        else base64.b64decode(data["base64"])
        for name, data in content["files"].items()
    }
    return content["format"], files


# --- Coverage-guided, with atheris ---


def guided(name: str, seconds: float, seed: int) -> Tally:
    """Let atheris choose what the mutations draw, by the lines that they reach."""
    import atheris

    with atheris.instrument_imports(include=["minigpt2"]):
        formats = all_formats()
    from fuzz_mutations import FedRandom

    format = next(f for f in formats if f.name == name)

    def task(begin: Callable[..., None]) -> Tally:
        tally = Tally()
        passed = watch_gate(format)
        warnings.simplefilter("ignore")
        np.seterr(all="ignore")
        start = time.monotonic()
        with quiet_folder() as folder:

            def one(data: bytes) -> None:
                begin(0)
                rng = FedRandom(data)
                base = format.bases[rng.getrandbits(8) % len(format.bases)]
                repaired, count = bool(rng.getrandbits(1)), 1 + rng.getrandbits(2)
                passed.clear()
                files = format.mutated(base, [rng] * count, repaired)
                verdict, key, text = judge(format, files, folder)
                tally.verdicts[verdict] += 1
                tally.past += bool(passed) or verdict == "equal"
                if verdict == "fault" and key not in tally.faults:
                    tally.faults[key] = Fault(key, text, -1, 1, files)
                if time.monotonic() - start > seconds:
                    tally.seconds = time.monotonic() - start
                    (Path(where) / "tally").write_bytes(pickle.dumps(tally))
                    os._exit(0)

            # (Silent, but for what ends the process.)
            options = ["fuzz", f"-seed={seed + 1}", "-max_len=400", "-verbosity=0"]
            atheris.Setup(options, one)
            atheris.Fuzz()
        return tally

    with tempfile.TemporaryDirectory() as where:
        _, _, why = Worker(task).wait()
        written = Path(where) / "tally"
        if written.exists():
            return pickle.loads(written.read_bytes())
    return Tally(Counter(fault=1), faults={why: Fault(why, why, -1)})


# --- The report ---


def all_formats() -> list[Format]:
    """Every format and surface that is fuzzed."""
    from fuzz_formats import file_formats
    from fuzz_surfaces import surfaces

    return [*file_formats(), *surfaces()]


def table(tallies: dict[str, Tally], formats: list[Format]) -> str:
    """Return the Markdown table of a campaign."""
    columns = "format, inputs, equal, refused, faults, kinds, past the header, lines"
    heads = [*columns.split(", "), "a second"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for format in formats:
        tally = tallies.get(format.name)
        if tally is None or not tally.inputs:
            continue
        every = lines_of(format.modules)
        covered = f"{len(every & tally.lines)} of {len(every)}" if tally.lines else "-"
        v = tally.verdicts
        rows.append(
            f"| {format.name} | {tally.inputs:,} | {v['equal']:,} | {v['refused']:,} "
            f"| {v['fault']:,} | {len(tally.faults)} | {tally.past / tally.inputs:.0%} "
            f"| {covered} | {tally.inputs / max(tally.seconds, 1e-9):,.0f} |"
        )
    total = sum((t.verdicts for t in tallies.values()), Counter())
    kinds = sum(len(t.faults) for t in tallies.values())
    rows.append(
        f"| all | {sum(total.values()):,} | {total['equal']:,} | {total['refused']:,} "
        f"| {total['fault']:,} | {kinds} | | | |"
    )
    return "\n".join(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(__doc__ or "").partition("\n")[2],
    )
    parser.add_argument("--count", type=int, default=2000, help="inputs of each format")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", metavar="FORMAT", help="parts of their names"
    )
    parser.add_argument(
        "--fixed",
        type=int,
        metavar="N",
        help="N inputs of files in all, seed 0: for CI",
    )
    parser.add_argument(
        "--keep", action="store_true", help="put faults into tests/corpus"
    )
    parser.add_argument("--replay", action="store_true", help="judge tests/corpus")
    parser.add_argument("--atheris", metavar="FORMAT")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="add up totals in FILE"
    )
    return parser.parse_args()


def replay(formats: list[Format]) -> int:
    """Judge what is kept; return how many faults there still are."""
    by_name = {format.name: format for format in formats}
    faults = 0
    for path in sorted(CORPUS.glob("*.json")):
        name, files = load_kept(path)
        if name not in by_name:
            continue
        verdict, key, text = verdict_of(by_name[name], files)
        faults += verdict == "fault"
        if verdict == "fault":
            print(f"{path.name}: {key}: {text[:200]}")
    return faults


def show_progress(name: str, count: int) -> Callable[[Tally], None]:
    """Return a function that shows how far a format is, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda tally: None

    def show(tally: Tally) -> None:
        line = f"{name}: {tally.inputs:,} of {count:,}, {len(tally.faults)} kinds of faults"
        print(f"\r\033[K{line[:79]}", end="", file=sys.stderr, flush=True)

    return show


def add_up(path: Path, tallies: dict[str, Tally]) -> None:
    """Add the campaign's counts to those of a JSON file."""
    totals = json.loads(path.read_text()) if path.exists() else {}
    for name, tally in tallies.items():
        total = Counter(totals.get(name, {}))
        total.update({**tally.verdicts, "past": tally.past})
        totals[name] = dict(total)
    path.write_text(json.dumps(totals, indent=1) + "\n")


def main() -> int:
    options = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.atheris:
        tally = guided(options.atheris, min(options.seconds, 3600), options.seed)
        formats = [f for f in all_formats() if f.name == options.atheris]
        tallies = {options.atheris: tally}
    else:
        formats = all_formats()
        if options.replay:
            return int(replay(formats) > 0)
        if options.only:
            formats = [
                f for f in formats if any(part in f.name for part in options.only)
            ]
        if options.fixed:
            formats = [f for f in formats if f.names_file]
            options.count, options.seed = -(-options.fixed // len(formats)), 0
        end = time.monotonic() + options.seconds
        tallies = {}
        for number, format in enumerate(formats):
            share = (end - time.monotonic()) / (len(formats) - number)
            tallies[format.name] = campaign(
                format,
                *(options.count, options.seed, share, 0 if options.fixed else TRACED),
                report=show_progress(format.name, options.count),
            )
            if options.json:
                add_up(options.json, {format.name: tallies[format.name]})
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(table(tallies, formats))
    for format in formats:
        for fault in tallies[format.name].faults.values():
            print(
                f"\n{format.name}: {fault.key} ({fault.count} times, first {fault.number})"
            )
            print(f"    {fault.text[:300]!r}")
            if options.keep and fault.files:
                fault.files = reduced(format, fault)
                print(f"    kept as {keep(format, fault)}")
    return int(any(tally.faults for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
