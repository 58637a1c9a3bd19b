"""Feed minigpt2 damaged and hostile input, and see that it is refused or read right.

    python tools/fuzz.py                        every format, 2,000 inputs of each
    python tools/fuzz.py --count 100000 --only npz --seed 7
    python tools/fuzz.py --slice                20,000 inputs, always the same: for CI
    python tools/fuzz.py --totals totals.json   adds up what several campaigns counted
    python tools/fuzz.py --guided --seconds 600 coverage-guided, where atheris is installed
    python tools/fuzz.py --replay               what is kept in tests/corpus

Input N of a format is made from the seed, the format's name and N alone. In half of the
inputs, those of odd N, checksums and lengths are made right again, so that mutations get
past the header. Faults are told apart by the exception and the innermost line of
minigpt2; with --keep the first of each kind is made smaller and put into tests/corpus.

The report has, by format, the verdicts (see fuzz_judge.py), the share of the inputs
whose header was believed, and the lines that were reached in the functions of the
format's modules, as every twentieth input shows.

Exit status 1 if there are faults, or a format of files of which less than a third got
past the header.

The other files, in reading order: fuzz_mutations; fuzz_formats, fuzz_tensorflow,
fuzz_torch and fuzz_settings (files); fuzz_surfaces (options of generation, the command
line, kernels); fuzz_judge (one input, and the process that reads it); fuzz_corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

# Threads that NumPy's BLAS would start in every process.
if __name__ == "__main__":
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

from fuzz_corpus import CORPUS, keep, load_kept, reduced
from fuzz_formats import Files, Format, Npz, Quantized, Safetensors, Shards
from fuzz_judge import (
    TRACED,
    Result,
    Verdict,
    Worker,
    judge,
    judge_batch,
    make_input,
    verdict_of,
    warmed_up,
    watch_gate,
)
from fuzz_mutations import FedRandom
from fuzz_settings import settings_formats
from fuzz_surfaces import surfaces
from fuzz_tensorflow import TensorFlow
from fuzz_torch import TorchLegacy, TorchZip

PACKAGE = Path(__file__).resolve().parents[1] / "minigpt2"
SLICE = 20_000  # inputs that CI reads
BATCH = 1000  # inputs of one process
LEAST_PAST = 1 / 3  # of the inputs of a format of files


@dataclass
class Fault:
    """One kind of fault, and the first input that showed it."""

    key: str
    text: str
    number: int
    files: Files
    count: int = 0


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

    def add(self, result: Result, make: Callable[[], Files]) -> None:
        """Count a result; `make` gives its input, should that be a new fault."""
        number, (word, key, text), past, lines, seconds = result
        self.verdicts[word] += 1
        self.past += past
        self.seconds += seconds
        self.lines |= lines
        if word == "fault":
            if key not in self.faults:
                self.faults[key] = Fault(key, text, number, make())
            self.faults[key].count += 1


def all_formats() -> list[Format]:
    """Every format and surface that is fuzzed."""
    return [
        *(TensorFlow(), Safetensors(), Shards(), Quantized()),
        *(TorchZip(), TorchLegacy(), Npz()),
        *settings_formats(),
        *surfaces(),
    ]


def campaign(
    format: Format,
    count: int,
    seed: int = 0,
    seconds: float = float("inf"),
    traced: int = TRACED,
    show: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Judge `count` inputs of a format, fewer if the time is over."""
    tally, start = Tally(), time.monotonic()
    number = 0
    while number < count and time.monotonic() - start < seconds:
        batch = range(number, min(number + BATCH, count))

        def task(send: Callable, batch: range = batch) -> None:
            judge_batch(format, seed, batch, traced, send)

        worker = Worker(task)
        results = iter(worker)
        if next(results, None) != "ready":
            verdict = Verdict("fault", "an unchanged file", worker.words)
            tally.add(Result(-1, verdict, False, set(), 0.0), dict)
            break
        for result in results:
            tally.add(result, lambda n=result.number: make_input(format, seed, n))
            number = result.number + 1
        if worker.death:  # at the input that nothing was heard of
            verdict = Verdict("fault", worker.death, worker.words)
            lost = Result(number, verdict, False, set(), 0.0)
            tally.add(lost, lambda n=number: make_input(format, seed, n))
            number += 1
        show(tally)
    return tally


def guided(format: Format, seconds: float, seed: int = 0) -> Tally:
    """Let atheris choose what the mutations draw, by the lines that they reach."""

    def task(send: Callable) -> None:
        import atheris

        passed = watch_gate(format)
        atheris.instrument_all()
        with warmed_up(format) as folder:
            end = time.monotonic() + seconds

            def one(data: bytes) -> None:
                start = time.monotonic()
                rng = FedRandom(data)
                base = format.bases[rng.getrandbits(8) % len(format.bases)]
                repaired, count = bool(rng.getrandbits(1)), 1 + rng.getrandbits(2)
                passed.clear()
                files = format.mutated(base, [rng] * count, repaired)
                verdict = judge(format, files, folder)
                past = bool(passed) or verdict.word == "equal"
                taken = time.monotonic() - start
                send((Result(-1, verdict, past, set(), taken), files))
                if time.monotonic() > end:
                    os._exit(0)  # (libFuzzer ends no other way.)

            options = [f"-seed={seed + 1}", "-max_len=400", "-verbosity=0"]
            atheris.Setup(["fuzz", *options], one)
            atheris.Fuzz()

    tally, worker = Tally(), Worker(task)
    for result, files in worker:
        tally.add(result, lambda files=files: files)
    if worker.death:
        verdict = Verdict("fault", worker.death, worker.words)
        tally.add(Result(-1, verdict, False, set(), 0.0), dict)
    return tally


# --- The report ---


def lines_of(modules: tuple[str, ...]) -> set[tuple[str, int]]:
    """Return the lines of all functions in modules of minigpt2, as the tracer has them.

    Args:
        modules: patterns of paths in the package.
    """
    found = set()
    for path in (path for pattern in modules for path in PACKAGE.glob(pattern)):
        name = str(path.relative_to(PACKAGE))
        waiting = [compile(path.read_text("utf-8"), str(path), "exec")]
        while waiting:
            code = waiting.pop()
            waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
            if code.co_flags & 2:  # a function's, not a module's or class's
                found |= {(name, n) for _, _, n in code.co_lines() if n}
    return found


def table(tallies: dict[str, Tally], formats: list[Format]) -> str:
    """Return the Markdown table of a campaign."""
    columns = "format, inputs, equal, refused, faults, kinds, past the header, lines"
    heads = [*columns.split(", "), "a second"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for format in formats:
        tally = tallies[format.name]
        verdicts, inputs = tally.verdicts, max(tally.inputs, 1)
        every = lines_of(format.modules)
        covered = f"{len(every & tally.lines)} of {len(every)}" if tally.lines else "-"
        rows.append(
            f"| {format.name} | {tally.inputs:,} | {verdicts['equal']:,} "
            f"| {verdicts['refused']:,} | {verdicts['fault']:,} | {len(tally.faults)} "
            f"| {tally.past / inputs:.0%} | {covered} "
            f"| {inputs / max(tally.seconds, 1e-9):,.0f} |"
        )
    total = sum((tally.verdicts for tally in tallies.values()), Counter())
    kinds = sum(len(tally.faults) for tally in tallies.values())
    rows.append(
        f"| all | {sum(total.values()):,} | {total['equal']:,} | {total['refused']:,} "
        f"| {total['fault']:,} | {kinds} | | | |"
    )
    return "\n".join(rows)


def add_up(path: Path, name: str, seed: int, tally: Tally) -> None:
    """Add a format's counts to those in a JSON file, with the seed and the faults."""
    totals = json.loads(path.read_text()) if path.exists() else {}
    total = totals.setdefault(name, {"seeds": [], "faults": {}})
    counts = {"inputs": tally.inputs, "past": tally.past, **tally.verdicts}
    for what, count in counts.items():
        total[what] = total.get(what, 0) + count
    total["seeds"].append(seed)
    total["lines"] = sorted({*map(tuple, total.get("lines", [])), *tally.lines})
    for fault in tally.faults.values():
        total["faults"].setdefault(fault.key, [seed, fault.number, fault.text])
    path.write_text(json.dumps(totals) + "\n")


def show_progress(name: str, count: int) -> Callable[[Tally], None]:
    """Return a function that shows how far a format is, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda tally: None

    def show(tally: Tally) -> None:
        line = f"{name}: {tally.inputs:,} of {count:,}, {len(tally.faults)} kinds of faults"
        print(f"\r\033[K{line[:79]}", end="", file=sys.stderr, flush=True)

    return show


# --- The command ---


def arguments() -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--count", type=int, default=2000, help="inputs of each format")
    add("--seconds", type=float, default=float("inf"), help="in all")
    add("--seed", type=int, default=0)
    add("--only", nargs="+", metavar="FORMAT", help="parts of their names")
    add("--slice", action="store_true", help=f"{SLICE:,} inputs in all, seed 0: for CI")
    add("--keep", action="store_true", help="put faults into tests/corpus")
    add("--replay", action="store_true", help="judge what is kept there")
    add("--guided", action="store_true", help="coverage-guided; needs atheris")
    add("--totals", type=Path, metavar="FILE", help="add the counts to those in FILE")
    return parser.parse_args()


def replay(formats: list[Format]) -> int:
    """Judge what is kept; return how many faults there still are."""
    by_name = {format.name: format for format in formats}
    faults = 0
    for path in sorted(CORPUS.glob("*.json")):
        word, key, text = verdict_of(*load_kept(path, by_name))
        faults += word == "fault"
        if word == "fault":
            print(f"{path.name}: {key}: {text[:200]}")
    return faults


def main() -> int:
    options = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    formats = all_formats()
    if options.replay:
        return int(replay(formats) > 0)
    if options.only:
        formats = [f for f in formats if any(part in f.name for part in options.only)]
    shares = sum(format.share for format in formats)
    end = time.monotonic() + options.seconds
    tallies = {}
    for number, format in enumerate(formats):
        seconds = (end - time.monotonic()) / (len(formats) - number)
        count = options.count
        if options.slice:
            count = -(-SLICE * format.share // shares)
        show = show_progress(format.name, count)
        if options.guided:
            tally = guided(format, seconds, options.seed)
        else:
            traced = 0 if options.slice else TRACED
            tally = campaign(format, count, options.seed, seconds, traced, show)
        tallies[format.name] = tally
        if options.totals:
            add_up(options.totals, format.name, options.seed, tally)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(table(tallies, formats))
    wrong = False
    for format in formats:
        tally = tallies[format.name]
        if format.names_file and tally.past < LEAST_PAST * tally.inputs:
            wrong = True
            print(f"\n{format.name}: too few inputs got past the header")
        for fault in tally.faults.values():
            wrong = True
            print(f"\n{format.name}: {fault.key}")
            print(f"    {fault.count} times, first in input {fault.number}")
            print(f"    {fault.text[-600:]!r}")
            if options.keep and fault.files:
                files = reduced(format, fault.key, fault.files)
                print(f"    kept as {keep(format, fault.key, files)}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
