"""Measure minigpt2 beside other ways to run GPT-2 on a CPU, all in one run.

    python tools/bench.py decode            tokens a second of one sequence
    python tools/bench.py prefill           tokens a second of one pass over a prompt
    python tools/bench.py batch             tokens a second of several sequences at once
    python tools/bench.py lookup            tokens a second with prompt lookup
    python tools/bench.py assisted --text FILE    what assistant_model="int8" gains
    python tools/bench.py startup           seconds from process start to first token
    python tools/bench.py memory            peak memory of loading and generating
    python tools/bench.py tokenizer         megabytes of text a second
    python tools/bench.py all               all of these, and a table of the main figures

Peers take part where they are installed: transformers, ctranslate2, tiktoken; for
llama.cpp, gguf with llama-cpp-python or with --llama-bench PROGRAM. --only picks some by
name. A machine that does other work too is noisy, so trust ratios rather than speeds.

Every contestant lives in a process of its own. All have the same number of threads
(--threads) and the same parameters, converted where one needs that. Their logits are
compared and they warm up before the clock starts. Then one works at a time while the rest
sleep, round after round. A ratio is the median over the rounds of the ratios within each
round. A contestant that fails drops out, and the report says why. How its threads wait
for work is left to each.

Without --folder the model is GPT-2 124M with random parameters, on whose values speed does
not depend. It is made once, in the system's folder for temporary files.

The bench prints Markdown; --json FILE writes every sample as well.

The other files: bench_contestants (who takes part, and how each is set), bench_gguf,
bench_workers (processes that take turns), bench_report (what is printed).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_contestants import (
    MODELS,
    TOKENIZERS,
    LlamaBench,
    LlamaCpp,
    MiniGPT2,
    ReadStream,
    Speculation,
)
from bench_report import Report
from bench_workers import WORK, Failed, Worker, loaded, make_once, take_turns, working

if TYPE_CHECKING:
    from minigpt2 import GPT2Config

THREAD_VARIABLES = (
    "MINIGPT2_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
DATA = Path(str(resources.files("minigpt2"))) / "data"
SMALL = DATA / "shakespeare-1m"


# --- scenarios -----------------------------------------------------------------------


def decode(args: argparse.Namespace, report: Report) -> None:
    """Measure tokens a second of one sequence, without the prompt's pass."""
    folder, n = model_folder(args), args.tokens
    config = config_of(folder)
    contexts = [fitting(context, n, config) for context in args.context]
    prompts = {context: some_prompts(1, context, config) for context in contexts}
    stream = ReadStream()

    def turn(worker: Worker) -> Any:
        if worker.contestant is stream:
            return worker.call("read", n).result / 1e9
        return {c: n / decoded(worker, prompts[c], n)[1] for c in contexts}

    models = chosen(args, MODELS, report)
    samples = race([*models, stream], prompts[contexts[0]], turn, folder, args, report)
    ceiling = {name: samples.pop(name) for name in [stream.name] if name in samples}
    speeds = {name: each_key(values) for name, values in samples.items()}
    for context in contexts:
        after = {name: values[context] for name, values in speeds.items()}
        title = f"Decode: greedy, one sequence, context {context} to {context + n}"
        column = f"decode after {context}, tokens/s"
        report.table(title, "tokens/s", after, column)
        gigabytes = {
            c.name: c.step_bytes(config, context + n // 2) / 1e9 for c in models
        }
        read = {
            name: [speed * gigabytes[name] for speed in values]
            for name, values in after.items()
        }
        title = "The same, as parameters and cache read"
        report.table(title, "GB/s", read | ceiling)
    first, last = contexts[0], contexts[-1]
    if first != last:
        kept = {
            name: ratios(values[last], values[first]) for name, values in speeds.items()
        }
        report.table(f"Decode after {last} ÷ after {first}", "ratio", kept)


def prefill(args: argparse.Namespace, report: Report) -> None:
    """Measure tokens a second of one pass that fills the cache."""
    folder = model_folder(args)
    config = config_of(folder)
    prompts = some_prompts(1, fitting(args.tokens, 0, config), config)
    width = len(prompts[0])

    def turn(worker: Worker) -> Any:
        return width / worker.call("prefill", prompts).result

    models = chosen(args, MODELS, report)
    samples = race(models, [prompts[0][:64]], turn, folder, args, report)
    column = f"prefill of {width}, tokens/s"
    report.table(f"Prefill: {width} tokens", "tokens/s", samples, column)


def batch(args: argparse.Namespace, report: Report) -> None:
    """Measure tokens a second of several sequences decoded at once, all together."""
    folder, n = model_folder(args), args.tokens
    config = config_of(folder)
    context = fitting(args.context, n, config)
    prompts = some_prompts(args.rows, context, config)

    def turn(worker: Worker) -> Any:
        return {
            rows: rows * n / decoded(worker, prompts[:rows], n)[1]
            for rows in (1, args.rows)
        }

    models = chosen(args, MODELS, report)
    samples = race(models, prompts[-1:], turn, folder, args, report)
    speeds = {name: each_key(values) for name, values in samples.items()}
    together = {name: values[args.rows] for name, values in speeds.items()}
    title = f"Batch: {args.rows} sequences, context {context} to {context + n}"
    column = f"batch of {args.rows}, tokens/s"
    report.table(title, "tokens/s", together, column)
    gain = {
        name: ratios(values[args.rows], values[1]) for name, values in speeds.items()
    }
    report.table(f"{args.rows} sequences ÷ 1 sequence", "ratio", gain)


def lookup(args: argparse.Namespace, report: Report) -> None:
    """Measure tokens a second with and without prompt lookup.

    With random parameters greedy text soon repeats itself, which is what lookup is for.
    """
    folder = model_folder(args)
    config = config_of(folder)
    context = 16
    n = min(args.tokens, config.n_positions - context - 1)
    prompts, ids = some_prompts(1, context, config), {}

    def turn(worker: Worker) -> Any:
        ids[worker.name], seconds = decoded(worker, prompts, n)
        return n / seconds

    contestants = [MiniGPT2("numba"), MiniGPT2("numba", lookup=10)]
    samples = race(contestants, prompts, turn, folder, args, report)
    if len({str(row) for row in ids.values()}) > 1:
        raise Failed("prompt lookup changed the tokens")
    title = f"Prompt lookup: greedy, {context} tokens in, {n} out"
    report.table(title, "tokens/s", samples)


def assisted(args: argparse.Namespace, report: Report) -> None:
    """Measure what drafting with a quantized model gains; the tokens are the same.

    How many ids of a draft are kept depends on trained parameters, how long a pass takes
    on the size. So --trained continues --text for the one, --folder is timed for the
    other, and the gain is what both imply:

        tokens * a plain step / (drafted ids * a draft's step + the verifying passes)
    """
    if args.text is None:
        raise Failed("there is no text to continue: give one with --text FILE")
    folder, trained = model_folder(args), args.trained or args.folder or SMALL
    contestants = [Speculation(kind) for kind in args.kinds]
    found = acceptance(args, report, contestants, trained)
    costs = pass_costs(args, report, report.present(contestants), folder)
    kept, gains, whole, passes = {}, {}, {}, {}
    for contestant in report.present(contestants):
        for (weights, rows), values in each_key(costs[contestant.name]).items():
            count = "1 id" if rows == 1 else f"{rows} ids"
            passes[f"{weights}, {count} a pass"] = [1e3 * s for s in values]
        for draft, (rows, seconds, _) in found[contestant.name].items():
            name = f"{contestant.drafting}, {draft} a draft"
            # (A pass gives the ids of the draft that it keeps, and one of its own. The
            # prompts' own passes give the first.)
            tokens, drafted = args.prompts * (args.tokens - 1), sum(rows) - len(rows)
            kept[name] = [(tokens - len(rows)) / drafted]
            gains[name] = []
            for cost in costs[contestant.name]:
                verifying = sum(cost["float32", k] for k in rows)
                drafting = drafted * cost[contestant.drafting, 1]
                plain = tokens * cost["float32", 1]
                gains[name].append(plain / (drafting + verifying))
            whole[name] = [seconds["plain"] / seconds["assisted"]]
    text = f"{args.prompts} places of {args.text.name}, {args.tokens} tokens each"
    report.table(f"Drafted ids that are kept: {text}", "ratio", kept)
    report.table(f"Passes of {folder.name}, context from 64 on", "ms", passes)
    title = f"Assisted greedy decoding ÷ plain, implied for {folder.name}"
    report.table(title, "ratio", gains)
    report.table(f"The same, as {Path(trained).name} itself took", "ratio", whole)


def acceptance(
    args: argparse.Namespace,
    report: Report,
    contestants: list[Speculation],
    trained: str | os.PathLike,
) -> dict[str, dict[int, tuple[list[int], dict[str, float], bool]]]:
    """Return {name: {ids a draft: what Speculation.acceptance returns}}."""
    text = args.text.read_text("utf-8")
    context = fitting(64, args.tokens, config_of(trained))

    def turn(worker: Worker) -> Any:
        found = {}
        for draft in args.draft:
            arguments = draft, args.prompts, context, args.tokens
            found[draft] = worker.call("acceptance", text, *arguments).result
            if not found[draft][-1]:
                raise Failed("what it drafted changed the tokens")
        return found

    with working(contestants, trained, args.threads, report) as workers:
        found = take_turns(workers, 1, turn, report)
    return {name: once for name, (once,) in found.items()}


def pass_costs(
    args: argparse.Namespace,
    report: Report,
    contestants: list[Speculation],
    folder: str | os.PathLike,
) -> dict[str, list[dict[tuple[str, int], float]]]:
    """Return {name: [{(weight format, ids in the pass): seconds} for each round]}."""
    passes, most = 6, max(args.draft) + 1
    width = max(64, (passes + 1) * most)
    (ids,) = some_prompts(1, 2 * width, config_of(folder))

    def turn(worker: Worker) -> Any:
        wanted = [("float32", k) for k in range(1, most + 1)]
        wanted += [(worker.contestant.drafting, 1)]
        return {
            (weights, k): worker.call(
                "step", weights, k, ids[:width], ids, passes
            ).result
            for weights, k in wanted
        }

    return race(contestants, None, turn, folder, args, report)


def startup(args: argparse.Namespace, report: Report) -> None:
    """Measure seconds from process start to the first token, and to imports."""
    ways = [  # (The small model's file holds float16; all compute in float32.)
        ("minigpt2 auto", "minigpt2", "np", ""),
        ("minigpt2 numpy", "minigpt2", "np", ", backend='numpy'"),
        ("transformers", "transformers", "pt", ", dtype='float32'"),
    ]
    ways = [way for way in ways if wanted_by(args, way[0]) and find_spec(way[1])]
    imports = {
        "minigpt2 package": "import minigpt2",
        "minigpt2 model": "from minigpt2 import GPT2LMHeadModel",
        "numpy": "import numpy",
    }
    tables = {
        f"Start-up: process start to first token, {folder.name}": [
            first_token(folder, *way) for way in ways
        ]
        for folder in dict.fromkeys([Path(model_folder(args)), Path(SMALL)])
    }
    tables["Start-up: process start to imported"] = [
        Program(name, f"{statement}; print(0, flush=True)", statement)
        for name, statement in imports.items()
    ]
    if args.against:
        for programs in tables.values():
            programs += [
                Program(f"{p.name}, the other", p.code, p.how, args.against)
                for p in programs
                if "minigpt2" in p.name
            ]
    for title, programs in tables.items():
        # (The first time fills caches, writes .pyc and compiles.)
        said = [attempt(lambda program: program.run()[0], p, report) for p in programs]
        if len(set(said) - {None}) > 1:
            raise Failed(f"the programs disagree: {said}")
        samples = take_turns(
            report.present(programs), args.rounds, lambda p: p.run()[1], report
        )
        report.table(title, "s", samples)


def first_token(
    folder: str | os.PathLike, name: str, package: str, tensors: str, options: str
) -> Program:
    """Return a Program that loads the folder and prints one new token."""
    load = f"GPT2LMHeadModel.from_pretrained({os.fspath(folder)!r}{options})"
    code = f"""
from {package} import GPT2LMHeadModel, GPT2Tokenizer
model = {load}
tokenizer = GPT2Tokenizer.from_pretrained({os.fspath(folder)!r})
prompt = tokenizer.encode("O Romeo, Romeo!", return_tensors={tensors!r})
ids = model.generate(prompt, max_new_tokens=1, do_sample=False, pad_token_id=0)
print(repr(tokenizer.decode(ids[0])), flush=True)
"""
    return Program(name, code, f"from_pretrained(folder{options})")


class Program:
    """Python code that a new process runs each time, timed to its first line."""

    weights = "float32"

    def __init__(self, name: str, code: str, how: str, python: str = sys.executable):
        self.name, self.code, self.how, self.python = name, code, how, python

    def run(self) -> tuple[str, float]:
        """Return the first line and the seconds from the process's start to it."""
        command = [self.python, "-c", self.code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        start = time.perf_counter()
        with subprocess.Popen(command, **pipes) as process:
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
            _, errors = process.communicate()
        if process.returncode:
            raise Failed(errors)
        return line, seconds


def memory(args: argparse.Namespace, report: Report) -> None:
    """Measure peak memory of a new process that loads the model and generates.

    Mapped files count. The small model in the package shows what is there whatever the
    size: the interpreter, the libraries, what they compiled.
    """
    folder = model_folder(args)
    config = config_of(folder)
    prompts = {f: some_prompts(1, 16, config_of(f)) for f in (folder, SMALL)}

    def peak(contestant: Any, folder: str | os.PathLike) -> float:
        worker = loaded(contestant, folder, args.threads)
        answer = worker.call("decode", prompts[folder], 32)
        worker.end()
        return answer.peak_bytes / 2**20

    # (llama-bench is a process of its own, which nobody here can look into.)
    models = [c for c in chosen(args, MODELS, report) if not isinstance(c, LlamaBench)]
    rounds = min(args.rounds, 3)  # memory hardly varies
    samples = take_turns(models, rounds, lambda c: peak(c, folder), report)
    models = report.present(models)
    others = take_turns(models, 1, lambda c: peak(c, SMALL), report)
    parameters = {c.name: c.weight_bytes(config) / 2**20 for c in models}
    column = "peak memory, MiB"
    title = "Peak memory: load, 16 tokens in, 33 out"
    report.table(title, "MiB", samples, column)
    report.table(
        "The same ÷ the parameters as they are kept",
        "ratio",
        {name: [mib / parameters[name] for mib in samples[name]] for name in others},
    )
    report.table(
        "The same, less the peak with the small model ÷ the parameters",
        "ratio",
        {
            name: [(mib - small) / parameters[name] for mib in samples[name]]
            for name, (small,) in others.items()
        },
    )


def tokenizer(args: argparse.Namespace, report: Report) -> None:
    """Measure megabytes of UTF-8 a second, at first (cold) and again (warm)."""
    folder = make_once(WORK / "gpt2-vocabulary", save_vocabulary)
    for name, text in texts(args).items():
        size = len(text.encode()) / 1e6

        def turn(worker: Worker, text: str = text) -> Any:
            worker.call("load", str(folder), args.threads)
            return [worker.call("encode", text).result for _ in range(2)]

        contestants = chosen(args, TOKENIZERS, report)
        with working(contestants, folder, args.threads, report) as workers:
            answers = take_turns(workers, args.rounds, turn, report)
        if len({pair[0][1] for pairs in answers.values() for pair in pairs}) > 1:
            raise Failed(f"the tokenizers disagree about {name}")
        for place, heat in enumerate(("cold", "warm")):
            samples = {
                who: [size / pair[place][0] for pair in pairs]
                for who, pairs in answers.items()
            }
            title = f"Tokenizer: {name}, {size:.1f} MB, {heat}"
            report.table(title, "MB/s", samples)


def texts(args: argparse.Namespace) -> dict[str, str]:
    """Return the files' texts, or English prose, Python code and seven scripts mixed."""
    if args.files:
        return {path.name: path.read_text("utf-8") for path in args.files}
    from pydoc_data.topics import topics  # the language reference: in every Python

    library = sorted(Path(os.__file__).parent.glob("*.py"))
    code = "".join(path.read_text("utf-8") for path in library)[:1_000_000]
    alphabets = ("az", "αω", "ая", "את", "اي", "कह", "一鿿", "가힣", "😀🙏")
    draw = random.Random(0)
    words = []
    for _ in range(5_000):
        first, last = map(ord, draw.choice(alphabets))
        letters = (chr(draw.randint(first, last)) for _ in range(draw.randint(1, 8)))
        words.append("".join(letters))
    zipf = [1 / rank for rank in range(1, len(words) + 1)]  # as in any language
    mixed = " ".join(draw.choices(words, zipf, k=60_000))
    return {
        "prose": "".join(topics.values()),
        "code": code,
        "mixed scripts": mixed,
    }


SCENARIOS = (decode, prefill, batch, lookup, assisted, startup, memory, tokenizer)


# --- what they have in common --------------------------------------------------------


def decoded(
    worker: Worker, prompts: list[list[int]], n: int
) -> tuple[list[list[int]] | None, float]:
    """Return what the worker's `decode` does. Failed if that stopped early."""
    ids, seconds = worker.call("decode", prompts, n).result
    if ids is not None and [len(row) for row in ids] != [n + 1] * len(prompts):
        raise Failed(f"it stopped early: {[len(row) for row in ids]} of {n + 1} tokens")
    return ids, seconds


def attempt(do: Callable[[Any], Any], contestant: Any, report: Report) -> Any:
    """Return do(contestant), or None if it drops out."""
    try:
        return do(contestant)
    except Failed as failure:
        report.drop(contestant, failure)


def race(
    contestants: Sequence[Any],
    prompts: list[list[int]] | None,
    turn: Callable[[Worker], Any],
    folder: str | os.PathLike,
    args: argparse.Namespace,
    report: Report,
) -> dict[str, list[Any]]:
    """Load contestants, compare their logits, warm up, and take turns.

    Args:
        prompts: the logits after the first one are compared; None compares nothing.
        turn: what a worker does in a round.

    Returns:
        {name: what `turn` returned in each round}
    """
    with working(contestants, folder, args.threads, report) as workers:
        if prompts is not None:
            check_agreement(workers, prompts[0], report)
        take_turns(report.present(workers), 1, turn, report)  # a warm-up
        return take_turns(report.present(workers), args.rounds, turn, report)


def check_agreement(workers: list[Worker], ids: list[int], report: Report) -> None:
    """Drop everyone whose last logits differ from transformers'.

    Where transformers is not there, those of the most exact contestant decide.
    """
    logits = {
        worker: attempt(lambda w: w.call("logits", ids).result, worker, report)
        for worker in workers
        if hasattr(worker.contestant, "logits")
    }
    logits = {worker: row for worker, row in logits.items() if row is not None}
    if not logits:
        return
    reference = min(
        logits,
        key=lambda w: (w.contestant.tolerance, w.contestant.package != "transformers"),
    )
    expected = logits.pop(reference)
    scale = max(map(abs, expected))
    for worker, row in logits.items():  # (A peer may pad its vocabulary.)
        furthest = max(abs(a - b) for a, b in zip(row, expected, strict=False))
        difference, allowed = float(furthest / scale), worker.contestant.tolerance
        report.agree(worker, reference, difference)
        if not difference <= allowed:
            report.drop(
                worker,
                f"its logits differ from {reference.name}'s by {difference:.2g} of the "
                f"largest, and by more than {allowed:g} something is wrong",
            )


def each_key(rounds: list[dict[Any, Any]]) -> dict[Any, list[Any]]:
    """[{key: value} for each round] -> {key: [value of each round]}"""
    return {key: [values[key] for values in rounds] for key in rounds[0]}


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Return the ratio within each round."""
    return [a / b for a, b in zip(above, below)]


def wanted_by(args: argparse.Namespace, name: str) -> bool:
    """Say whether --only, if given, names a contestant."""
    return not args.only or any(part in name for part in args.only)


def chosen(
    args: argparse.Namespace, contestants: Sequence[Any], report: Report
) -> list[Any]:
    """Return the contestants that are installed and, with --only, named there."""
    if args.llama_bench and contestants is MODELS:
        more = (LlamaBench(kind, args.llama_bench) for kind in LlamaCpp.kinds)
        contestants = (*contestants, *more)
    contestants = [c for c in contestants if wanted_by(args, c.name)]
    if args.against:
        contestants += [
            MiniGPT2(c.backend, c.weights, c.lookup, args.against)
            for c in contestants
            if isinstance(c, MiniGPT2)
        ]
    for contestant in contestants:
        if not find_spec(contestant.package):
            report.drop(contestant, f"{contestant.package} is not installed")
    found = report.present(contestants)
    if not found:
        raise Failed("no contestant of that name is installed")
    return found


def some_prompts(rows: int, width: int, config: GPT2Config) -> list[list[int]]:
    """Return equally long rows of ids, all different."""
    return [
        [7919 * (row * width + i) % config.vocab_size for i in range(1, width + 1)]
        for row in range(rows)
    ]


def fitting(context: int, n: int, config: GPT2Config) -> int:
    """Return the length of a context after which n + 1 tokens fit, at most `context`."""
    return min(context, config.n_positions - n - 1)


def config_of(folder: str | os.PathLike) -> GPT2Config:
    from minigpt2 import GPT2Config

    return GPT2Config.from_pretrained(os.fspath(folder))


def model_folder(args: argparse.Namespace) -> Path:
    """Return --folder, or that of a random 124M, made when first needed."""
    return args.folder or make_once(WORK / "random-124m", save_random)


def save_random(folder: Path) -> None:
    """Save a random 124M and GPT-2's vocabulary."""
    from minigpt2 import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(), seed=0).save_pretrained(folder)
    save_vocabulary(folder)


def save_vocabulary(folder: Path) -> None:
    """Write GPT-2's vocab.json and merges.txt."""
    from minigpt2 import GPT2Tokenizer

    folder.mkdir(exist_ok=True)
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
    tokens = tokenizer.convert_ids_to_tokens(range(tokenizer.vocab_size))
    vocabulary = {token: id for id, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    merges = DATA / "gpt2" / "vocab.bpe"
    (folder / "merges.txt").write_bytes(merges.read_bytes())


# --- the command ---------------------------------------------------------------------


def parser_of_command() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("--threads", type=int, default=2, help="for each (default: 2)")
    add("--rounds", type=int, default=5, help="default: 5")
    add("--only", nargs="+", help="contestants with this in their name")
    add("--folder", type=Path, help="a model folder")
    add(
        "--against",
        metavar="PYTHON",
        help="the interpreter of an environment that has another version of minigpt2, "
        "which takes part too",
    )
    add("--json", type=Path, help="write every sample to this file")
    add("--llama-bench", help="llama.cpp's program of that name takes part")
    add("--text", type=Path, help="UTF-8 text for `assisted` to continue")
    add("--trained", type=Path, help="the folder that continues it, where not --folder")
    commands = parser.add_subparsers(required=True, metavar="scenario", dest="scenario")
    own = {
        run.__name__: commands.add_parser(
            run.__name__,
            parents=[common],
            help=run.__doc__.splitlines()[0],
            description=run.__doc__,
        )
        for run in SCENARIOS
    }

    def option(
        scenario: str, name: str, default: Any, what: str, **kwargs: Any
    ) -> None:
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        own[scenario].add_argument(
            f"--{name}",
            default=default,
            help=f"{what} (default: {shown})",
            **{"type": int} | kwargs,
        )

    option("decode", "context", [64, 900], "tokens before those timed", nargs="+")
    option("decode", "tokens", 32, "tokens to time")
    option("prefill", "tokens", 512, "tokens in")
    option("batch", "rows", 8, "sequences")
    option("batch", "context", 64, "tokens before those timed")
    option("batch", "tokens", 32, "tokens to time, of each sequence")
    option("lookup", "tokens", 320, "tokens to time")
    option(
        "assisted", "kinds", ["int8", "int4"], "formats that draft", nargs="+", type=str
    )
    option("assisted", "draft", [3, 5, 8], "ids a draft", nargs="+")
    option("assisted", "prompts", 32, "places of the text to continue")
    option("assisted", "tokens", 64, "tokens to continue each by")
    own["tokenizer"].add_argument("files", nargs="*", type=Path, help="UTF-8 texts")
    commands.add_parser("all", parents=[common], help="all of these, as they are set")
    return parser


def main() -> bool:
    """Run the scenarios asked for; return whether one came to no result."""
    parser = parser_of_command()
    args = parser.parse_args()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(args.threads)))
    report = Report({k: v for k, v in vars(args).items() if k != "json"})
    failed = False
    for run in SCENARIOS:
        if args.scenario not in (run.__name__, "all"):
            continue
        if args.scenario == "all":  # (shared options, and this scenario's defaults)
            own = parser.parse_args([run.__name__])
            vars(own).update(vars(args))
        else:
            own = args
        report.begin(run.__name__)
        try:
            run(own, report)
        except Failed as failure:
            failed = True
            report.fail(failure)
        if args.json:
            report.save(args.json)
    if args.scenario == "all":
        report.print_summary()
    report.print_notes()
    return failed


if __name__ == "__main__":
    sys.exit(main())
