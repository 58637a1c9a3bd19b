"""Measure minigpt2 beside other ways to run GPT-2 on a CPU, all in one run.

    python tools/bench.py decode            tokens a second of one sequence
    python tools/bench.py prefill           tokens a second of one pass over a prompt
    python tools/bench.py lookup            tokens a second with prompt lookup
    python tools/bench.py startup           seconds from process start to first token
    python tools/bench.py memory            peak memory of loading and generating
    python tools/bench.py tokenizer         megabytes of text a second

Peers take part where they are installed; --only picks some by name. A machine that
does other work too is noisy, so trust ratios rather than speeds. Every contestant lives
in a process of its own and has the same number of threads (--threads) and the same
weights; its logits are compared with the others' before the clock starts, and a warm-up
goes before. Then one runs at a time while the rest sleep, round after round, and a
ratio is the median over the rounds of the ratios within each round.

Without --folder the model is GPT-2 124M with random weights, on whose values speed does
not depend; it is made once, under the system's folder for temporary files.

What is printed is Markdown; --json FILE writes every sample as well.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import namedtuple
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

REST = 0.3  # seconds between turns: idle BLAS and OpenMP threads spin for about 0.1
STREAM_BYTES = 512 * 2**20  # about 124M's weights
WORK = Path(tempfile.gettempdir()) / "minigpt2-bench"
THREAD_VARIABLES = (
    "MINIGPT2_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


# --- who runs models -----------------------------------------------------------------
#
# load(folder, threads)   make the model ready
# logits(ids)             the scores after the last id
# prefill(ids)            one pass over ids that leaves a cache and the last scores
# generate(ids, n)        n new ids, greedily


class MiniGPT2:
    package = "minigpt2"
    name = "minigpt2 numpy"
    backend = "numpy"
    options = {}
    how = "last logits only; preallocated cache"
    bytes_a_weight = 4
    tolerance = 1e-4  # of max|logit|: float32 sums of a thousand terms, twelve layers

    def load(self, folder, threads):
        import numpy as np

        from minigpt2 import GPT2LMHeadModel

        self.array = np.array
        self.model = GPT2LMHeadModel.from_pretrained(folder, backend=self.backend)

    def logits(self, ids):
        return self.model(self.array([ids]), logits_to_keep=1).logits[0, -1].tolist()

    def prefill(self, ids):
        self.model(self.array([ids]), use_cache=True, logits_to_keep=1)

    def generate(self, ids, n):
        prompt = self.array([ids])
        out = self.model.generate(
            prompt, max_new_tokens=n, pad_token_id=0, **self.options
        )
        return out[0, len(ids) :].tolist()


class MiniGPT2Numba(MiniGPT2):
    name = "minigpt2 numba"
    backend = "numba"


class MiniGPT2Lookup(MiniGPT2):
    name = "minigpt2 numpy, lookup"
    how = "prompt_lookup_num_tokens=10; the same tokens"
    options = {"prompt_lookup_num_tokens": 10}


class Transformers:
    package = "transformers"
    name = "transformers eager"
    attention = "eager"
    how = "last logits only; DynamicCache"
    bytes_a_weight = 4
    tolerance = 1e-4

    def load(self, folder, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.utils.logging.set_verbosity_error()
        self.tensor = torch.tensor
        self.model = transformers.GPT2LMHeadModel.from_pretrained(
            folder, attn_implementation=self.attention, dtype=torch.float32
        ).eval()

    def logits(self, ids):
        return self.model(self.tensor([ids]), logits_to_keep=1).logits[0, -1].tolist()

    def prefill(self, ids):
        self.model(self.tensor([ids]), use_cache=True, logits_to_keep=1)

    def generate(self, ids, n):
        prompt = self.tensor([ids])
        mask = prompt.new_ones(prompt.shape)
        out = self.model.generate(
            prompt,
            attention_mask=mask,
            max_new_tokens=n,
            do_sample=False,
            pad_token_id=0,
        )
        return out[0, len(ids) :].tolist()


class TransformersSdpa(Transformers):
    name = "transformers sdpa"
    attention = "sdpa"


class CTranslate2:
    package = "ctranslate2"
    name = "CTranslate2 float32"
    compute_type = "float32"
    how = "prefill: generate_batch of one token"
    bytes_a_weight = 4
    tolerance = 1e-4

    def load(self, folder, threads):
        import ctranslate2

        converted = Path(folder) / "ctranslate2"
        if not converted.exists():
            ctranslate2.converters.TransformersConverter(folder).convert(converted)
        self.generator = ctranslate2.Generator(
            str(converted), compute_type=self.compute_type, intra_threads=threads
        )
        vocabulary = json.loads((Path(folder) / "vocab.json").read_text("utf-8"))
        self.tokens = {i: token for token, i in vocabulary.items()}

    def logits(self, ids):
        import numpy as np

        scores = self.generator.forward_batch([[self.tokens[i] for i in ids]])
        return np.asarray(scores)[0, -1].tolist()

    def prefill(self, ids):
        self.generate(ids, 1)

    def generate(self, ids, n):
        prompt = [self.tokens[i] for i in ids]
        out = self.generator.generate_batch(
            [prompt], max_length=n, sampling_topk=1, include_prompt_in_result=False
        )
        return out[0].sequences_ids[0]


class CTranslate2Int8(CTranslate2):
    name = "CTranslate2 int8"
    compute_type = "int8"
    bytes_a_weight = 1
    tolerance = 0.2  # eight bits a weight: near, not equal


MODELS = (
    MiniGPT2,
    MiniGPT2Numba,
    Transformers,
    TransformersSdpa,
    CTranslate2,
    CTranslate2Int8,
)


class ReadStream:
    """The ceiling: how fast all threads together read a large float32 array.

    Each thread takes the dot product of its part of the array with itself (np.dot lets
    go of the interpreter's lock, and OpenBLAS is held to one thread a call).
    """

    name = "read stream"
    how = "np.dot of a 512 MiB float32 array with itself, one slice a thread"
    environment = {"OPENBLAS_NUM_THREADS": "1"}

    def load(self, folder, threads):
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        self.dot = np.dot
        self.slices = np.array_split(np.ones(STREAM_BYTES // 4, np.float32), threads)
        self.pool = ThreadPoolExecutor(threads)

    def read(self, times):
        for _ in range(times):
            list(self.pool.map(self.dot, self.slices, self.slices))


# --- who tokenizes -------------------------------------------------------------------
#
# load(folder, threads)   a tokenizer of vocab.json and merges.txt, its caches empty
# encode(text)            how many ids, and a hash of them


class MiniGPT2Tokenizer:
    package = "minigpt2"
    name = "minigpt2"
    how = "pure Python; split_special_tokens=True"

    def load(self, folder, threads):
        from minigpt2 import GPT2Tokenizer

        tokenizer = GPT2Tokenizer.from_pretrained(folder)
        self.ids = lambda text: tokenizer.encode(text, split_special_tokens=True)

    def encode(self, text):
        ids = self.ids(text)
        return len(ids), hash(tuple(ids))


class Tiktoken(MiniGPT2Tokenizer):
    package = "tiktoken"
    name = "tiktoken"
    how = "Rust; encode_ordinary"

    def load(self, folder, threads):
        import tiktoken
        from tiktoken.load import data_gym_to_mergeable_bpe_ranks
        from tiktoken_ext.openai_public import r50k_pat_str

        os.environ["TIKTOKEN_CACHE_DIR"] = ""  # local files need no cache
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=f"{folder}/merges.txt",
            encoder_json_file=f"{folder}/vocab.json",
        )
        self.ids = tiktoken.Encoding(
            "gpt2",
            pat_str=r50k_pat_str,
            mergeable_ranks=ranks,
            special_tokens={"<|endoftext|>": 50256},
        ).encode_ordinary


class TransformersTokenizer(MiniGPT2Tokenizer):
    package = "transformers"
    name = "transformers"
    how = "Rust (tokenizers); split_special_tokens=True"

    def load(self, folder, threads):
        import transformers

        transformers.utils.logging.set_verbosity_error()  # "longer than 1024"
        tokenizer = transformers.GPT2TokenizerFast.from_pretrained(folder)
        self.ids = lambda text: tokenizer.encode(text, split_special_tokens=True)


TOKENIZERS = (MiniGPT2Tokenizer, Tiktoken, TransformersTokenizer)


# --- processes that take turns -------------------------------------------------------

Answer = namedtuple("Answer", "result seconds peak_bytes")


def serve(connection, contestant):
    """A worker's life: do one call after another, as told."""
    try:
        while (call := connection.recv()) is not None:
            method, arguments = call
            start = time.perf_counter()
            result = getattr(contestant, method)(*arguments)
            seconds = time.perf_counter() - start
            connection.send(Answer(result, seconds, peak_memory()))
    except Exception:
        connection.send(traceback.format_exc())


def peak_memory():
    """Most bytes that this process ever had in memory, its mapped files among them."""
    try:  # ru_maxrss would remember the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except FileNotFoundError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Worker:
    """A contestant in a process of its own, which works only while it is asked to."""

    def __init__(self, contestant):
        self.contestant, self.name, self.how = (
            contestant,
            contestant.name,
            contestant.how,
        )
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(
            target=serve, args=(theirs, contestant()), daemon=True
        )
        before = dict(os.environ)
        os.environ.update(getattr(contestant, "environment", {}))
        self.process.start()
        os.environ.clear()
        os.environ.update(before)
        theirs.close()

    def call(self, method, *arguments):
        """Have the contestant's method called; return its Answer."""
        self.connection.send((method, arguments))
        try:
            answer = self.connection.recv()
        except EOFError:
            sys.exit(f"{self.name}: the process died")
        if isinstance(answer, str):
            sys.exit(f"{self.name}:\n{answer}")
        return answer

    def end(self):
        self.connection.send(None)
        self.process.join()


@contextlib.contextmanager
def working(contestants, folder, threads):
    """A loaded Worker for each contestant."""
    workers = []
    for contestant in contestants:
        progress(f"loading {contestant.name}")
        workers.append(Worker(contestant))
        workers[-1].call("load", str(folder), threads)
    yield workers
    for worker in workers:
        worker.end()


def take_turns(contestants, rounds, turn):
    """Call turn(contestant) for everyone in every round; return {name: results}.

    Each round starts with another contestant, so nobody always has the same neighbour.
    """
    results = {contestant.name: [] for contestant in contestants}
    for i in range(rounds):
        first = i % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            progress(f"round {i + 1} of {rounds}: {contestant.name}")
            time.sleep(REST)
            results[contestant.name].append(turn(contestant))
    progress("")
    return results


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# --- scenarios -----------------------------------------------------------------------


def decode(args, report):
    """Tokens a second of one sequence: the time of n + 1 new tokens less that of 1."""
    folder, n = model_folder(args), args.tokens
    prompt = some_ids(args.context)

    def turn(worker):
        if worker.contestant is ReadStream:
            return n * STREAM_BYTES / worker.call("read", n).seconds / 1e9
        long = worker.call("generate", prompt, n + 1)
        short = worker.call("generate", prompt, 1)
        if len(long.result) != n + 1:
            sys.exit(f"{worker.name} stopped early, after {len(long.result)} tokens")
        return n / (long.seconds - short.seconds)

    with working([*chosen(args, MODELS), ReadStream], folder, args.threads) as workers:
        *models, stream = workers
        check_agreement(models, prompt)
        warm_up(models, prompt)
        samples = take_turns(workers, args.rounds, turn)

    ceiling = samples.pop(stream.name)
    moved = {
        worker.name: [
            speed
            * bytes_a_token(folder, worker.contestant, args.context + n // 2)
            / 1e9
            for speed in samples[worker.name]
        ]
        for worker in models
    }
    about = f"greedy, one sequence, context {args.context} to {args.context + n}"
    report.table(f"Decode: {about}", "tokens/s", samples, models)
    report.table(
        "The same, as weights and cache read",
        "GB/s",
        {**moved, stream.name: ceiling},
        workers,
    )


def bytes_a_token(folder, contestant, context):
    """What one step must read: all weights but wpe, and the cache (in float32)."""
    config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    C, L, V = config["n_embd"], config["n_layer"], config["vocab_size"]
    weights = L * (12 * C * C + 13 * C) + 2 * C + V * C
    return contestant.bytes_a_weight * weights + 4 * 2 * L * C * context


def prefill(args, report):
    """Tokens a second of one pass that fills the cache and gives the last logits."""
    prompt = some_ids(args.tokens)
    with working(chosen(args, MODELS), model_folder(args), args.threads) as models:
        check_agreement(models, prompt)
        warm_up(models, prompt)
        samples = take_turns(
            models,
            args.rounds,
            lambda worker: len(prompt) / worker.call("prefill", prompt).seconds,
        )
    report.table(f"Prefill: {len(prompt)} tokens", "tokens/s", samples, models)


def lookup(args, report):
    """Tokens a second with and without prompt lookup, on text that repeats itself.

    Random weights soon repeat themselves under greedy decoding: a copying task.
    """
    folder, prompt, results = model_folder(args), some_ids(args.context), {}

    def turn(worker):
        call = worker.call("generate", prompt, args.tokens)
        results[worker.name] = call.result
        return args.tokens / call.seconds

    contestants = [MiniGPT2, MiniGPT2Lookup]
    with working(contestants, folder, args.threads) as models:
        warm_up(models, prompt)
        samples = take_turns(models, args.rounds, turn)
        if results[models[0].name] != results[models[1].name]:
            sys.exit("prompt lookup changed the tokens")
    title = f"Prompt lookup: greedy, {args.context} tokens in, {args.tokens} out"
    report.table(title, "tokens/s", samples, models)


def check_agreement(models, prompt):
    """End the run if anybody's last logits are not the first contestant's."""
    expected = models[0].call("logits", prompt).result
    scale = max(map(abs, expected))
    for worker in models[1:]:
        logits = worker.call("logits", prompt).result  # a peer may pad its vocabulary
        difference = max(abs(a - b) for a, b in zip(logits, expected, strict=False))
        if not difference <= worker.contestant.tolerance * scale:
            sys.exit(
                f"{worker.name} and {models[0].name} compute different logits: they "
                f"differ by {difference / scale:.2g} of the largest"
            )


def warm_up(models, prompt):
    for worker in models:
        progress(f"warming up {worker.name}")
        worker.call("prefill", prompt)
        worker.call("generate", prompt, 4)


def memory(args, report):
    """Peak memory of a new process that loads the model and generates."""
    folder, prompt = model_folder(args), some_ids(args.context)
    weights = (Path(folder) / "model.safetensors").stat().st_size / 2**20

    def turn(contestant):
        with working([contestant], folder, args.threads) as (worker,):
            return worker.call("generate", prompt, args.tokens).peak_bytes / 2**20

    contestants = chosen(args, MODELS)
    with working(contestants[:1], folder, args.threads):
        pass  # reads the file into the system's cache
    samples = take_turns(contestants, args.rounds, turn)
    samples["the weights"] = [weights] * args.rounds
    title = f"Peak memory: load, {args.context} tokens in, {args.tokens} out"
    report.table(title, "MiB", samples, contestants)


def startup(args, report):
    """Seconds from process start to the first token of the embedded small model."""
    folder = os.fspath(resources.files("minigpt2") / "data" / "shakespeare-1m")
    program = """
from {package} import GPT2LMHeadModel, GPT2Tokenizer
model = GPT2LMHeadModel.from_pretrained({folder!r}{more})
tokenizer = GPT2Tokenizer.from_pretrained({folder!r})
prompt = tokenizer.encode("O Romeo, Romeo!", return_tensors={tensors!r})
ids = model.generate(prompt, max_new_tokens=1, do_sample=False, pad_token_id=0)
print(repr(tokenizer.decode(ids[0])), flush=True)
"""
    # The file holds float16; both compute in float32.
    models = {"minigpt2": ("np", ""), "transformers": ("pt", ", dtype='float32'")}
    first_token = [
        Program(
            package,
            program.format(package=package, folder=folder, tensors=tensors, more=more),
        )
        for package, (tensors, more) in models.items()
        if find_spec(package)
    ]
    imports = {
        "minigpt2": "import minigpt2",
        "minigpt2's model": "from minigpt2 import GPT2LMHeadModel",
        "numpy": "import numpy",
    }
    imports = [
        Program(name, f"{statement}; print(0, flush=True)")
        for name, statement in imports.items()
    ]
    for title, programs in (
        ("Start-up: process start to first token, 1.1M parameters", first_token),
        ("Start-up: process start to imported", imports),
    ):
        said = {program.run()[0] for program in programs}  # fills caches, writes .pyc
        if len(said) > 1:
            sys.exit(f"the programs disagree: {said}")
        samples = take_turns(programs, args.rounds, lambda program: program.run()[1])
        report.table(title, "s", samples, programs)


class Program:
    """Python code, run in a new process each time, timed to its first line."""

    how = ""

    def __init__(self, name, code):
        self.name, self.code = name, code

    def run(self):
        """Return that line and the seconds from the process's start."""
        command = [sys.executable, "-c", self.code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        start = time.perf_counter()
        with subprocess.Popen(command, **pipes) as process:
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
            _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"{self.name}:\n{errors}")
        return line, seconds


def tokenizer(args, report):
    """Megabytes of UTF-8 a second, at first (cold) and the same text again (warm)."""
    folder = WORK / "gpt2-vocabulary"
    make_once(folder, save_vocabulary)
    for name, text in texts(args).items():
        size = len(text.encode()) / 1e6
        seconds = {"cold": {}, "warm": {}}

        def turn(worker, text=text):
            worker.call("load", str(folder), args.threads)
            return [worker.call("encode", text) for _ in range(2)]

        with working(chosen(args, TOKENIZERS), folder, args.threads) as workers:
            answers = take_turns(workers, args.rounds, turn)
        if len({pair[0].result for pairs in answers.values() for pair in pairs}) > 1:
            sys.exit(f"the tokenizers disagree about {name}")
        for when, heat in enumerate(seconds):
            samples = {
                who: [size / pair[when].seconds for pair in pairs]
                for who, pairs in answers.items()
            }
            title = f"Tokenizer: {name}, {size:.1f} MB, {heat}"
            report.table(title, "MB/s", samples, workers)


def texts(args):
    """The files named, or English prose, Python code and seven scripts mixed."""
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


# --- what they run on ----------------------------------------------------------------


def chosen(args, contestants):
    """The contestants that are installed and, with --only, named there."""
    found = [
        contestant
        for contestant in contestants
        if find_spec(contestant.package)
        and (not args.only or any(part in contestant.name for part in args.only))
    ]
    if not found:
        sys.exit("no contestant of that name is installed")
    return found


def some_ids(n):
    return [7919 * i % 50_000 for i in range(1, n + 1)]


def model_folder(args):
    """A Hugging Face folder: --folder, or random 124M, made when first needed."""
    if args.folder:
        return args.folder
    return make_once(WORK / "random-124m", save_random)


def make_once(folder, save):
    """Have save(folder) run in a process of its own, unless the folder is there."""
    if not folder.exists():
        progress(f"making {folder.name}")
        half_made = folder.with_name(f"{folder.name}-{os.getpid()}")
        half_made.mkdir(parents=True)
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=save, args=(half_made,))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"could not make {folder}")
        half_made.rename(folder)
    return folder


def save_random(folder):
    from minigpt2 import GPT2Config, GPT2LMHeadModel

    save_model(GPT2LMHeadModel(GPT2Config(), seed=0), folder)
    save_vocabulary(folder)


def save_vocabulary(folder):
    """Write GPT-2's vocab.json and merges.txt."""
    from minigpt2 import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
    tokens = tokenizer.convert_ids_to_tokens(range(tokenizer.vocab_size))
    vocabulary = {token: id for id, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    merges = resources.files("minigpt2") / "data" / "gpt2" / "vocab.bpe"
    (folder / "merges.txt").write_bytes(merges.read_bytes())


def save_model(model, folder):
    """Write config.json and model.safetensors as transformers does."""
    from safetensors.numpy import save_file

    fields = {**model.config.to_dict(), "architectures": ["GPT2LMHeadModel"]}
    (folder / "config.json").write_text(json.dumps(fields), "utf-8")
    weights = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# --- what is printed -----------------------------------------------------------------


class Report:
    """Tables of medians and ratios, as Markdown and for JSON."""

    def __init__(self, args):
        self.load_before = os.getloadavg()
        self.settings = {
            k: v for k, v in vars(args).items() if k not in ("run", "json")
        }
        self.tables = []

    def table(self, title, unit, samples, contestants):
        """Print the medians of {name: one sample a round} and ratios to minigpt2's."""
        how = {contestant.name: contestant.how for contestant in contestants}
        ours = [name for name in samples if name.startswith("minigpt2")]
        head = ["", f"{unit} (range)", *(f"{name} ÷ this" for name in ours), "how"]
        rows, table = [], {"title": title, "unit": unit, "rows": {}}
        for name, values in samples.items():
            ratios = {
                us: statistics.median(a / b for a, b in zip(samples[us], values))
                for us in ours
            }
            table["rows"][name] = {
                "median": statistics.median(values),
                "samples": values,
                "ratios": ratios,
            }
            rows.append(
                [
                    name,
                    f"{statistics.median(values):.3g} "
                    f"({min(values):.3g}-{max(values):.3g})",
                    *("" if us == name else f"{ratios[us]:.2f}" for us in ours),
                    how.get(name, ""),
                ]
            )
        self.tables.append(table)
        print(f"\n**{title}**\n\n{markdown([head, *rows])}", flush=True)

    def machine(self):
        packages = (
            "numpy",
            "numba",
            "torch",
            "transformers",
            "ctranslate2",
            "tiktoken",
        )
        return {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "versions": {p: version(p) for p in packages if find_spec(p)},
            "load before": self.load_before,
            "load after": os.getloadavg(),
        }

    def finish(self, path):
        machine = self.machine()
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        print(
            f"\n{machine['cpu']}, {machine['cores']} cores, "
            f"{self.settings['threads']} threads; {machine['system']}; "
            f"Python {machine['python']}, {versions}; load average before "
            f"{self.load_before[0]:.2f}, after {machine['load after'][0]:.2f}; medians "
            f"of {self.settings['rounds']} rounds"
        )
        if path:
            result = {
                "machine": machine,
                "settings": self.settings,
                "tables": self.tables,
            }
            text = json.dumps(result, indent=1, default=str) + "\n"
            path.write_text(text, "utf-8")


def markdown(rows):
    """A table whose columns line up in a terminal too."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |"
        for row in [rows[0], rule, *rows[1:]]
    )


def cpu_name():
    with contextlib.suppress(FileNotFoundError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().split("model name")[1]
        return lines.partition("\n")[0].strip("\t :")
    return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=2, help="for each (default: 2)")
    common.add_argument("--rounds", type=int, default=7, help="default: 7")
    common.add_argument("--only", nargs="+", help="contestants with this in their name")
    common.add_argument("--folder", type=Path, help="a Hugging Face model folder")
    common.add_argument("--json", type=Path, help="write every sample to this file")
    commands = parser.add_subparsers(required=True, metavar="scenario")

    def scenario(run, **defaults):
        command = commands.add_parser(
            run.__name__, parents=[common], help=run.__doc__, description=run.__doc__
        )
        command.set_defaults(run=run)
        for name, (default, what) in defaults.items():
            text = f"{what} (default: {default})"
            command.add_argument(f"--{name}", type=int, default=default, help=text)
        return command

    scenario(decode, context=(16, "tokens in"), tokens=(64, "new tokens to time"))
    scenario(prefill, tokens=(512, "tokens in"))
    scenario(lookup, context=(16, "tokens in"), tokens=(128, "tokens out"))
    scenario(memory, context=(16, "tokens in"), tokens=(32, "tokens out"))
    scenario(startup)
    scenario(tokenizer).add_argument("files", nargs="*", type=Path, help="UTF-8 texts")

    args = parser.parse_args()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(args.threads)))
    report = Report(args)
    args.run(args, report)
    report.finish(args.json)


if __name__ == "__main__":
    main()
