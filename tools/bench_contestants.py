"""Who takes part in bench.py: ways to run GPT-2, ways to tokenize, and the ceiling.

What runs a model has

    name, package      the name in the tables; what must be installed
    weights            the weight format, which it may fairly be compared by
    how                what it was told, in words
    load(path, threads)
    logits(ids)        the logits after the last id; None if it gives none
    prefill(prompts)   seconds of a forward pass that gives a cache and the last logits
    decode(prompts, n) n + 1 new ids for each prompt, greedily, and the seconds from the
                       first of them to the last: n steps, without the prompts' pass

onnxruntime does not take part: its own conversion of GPT-2 (1.32's, in
onnxruntime.transformers) does not work with transformers 5, and with a conversion of ours
we would measure our own work.

The prompts of a batch are equally long. A contestant that reads files of its own has
`convert(folder, file)`, which makes them, and `converted`, their name.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_gguf import write_gguf

if TYPE_CHECKING:
    import numpy as np

    from minigpt2 import GPT2Config, GPT2LMHeadModel

Prompts = list[list[int]]  # equally long


def row_bytes(format: str, k: int) -> int:
    """Return the bytes of a matrix's row of k numbers, scales included."""
    return {
        "float32": 4 * k,
        "bfloat16": 2 * k,
        "int8": k + 4,  # one float32 scale a row
        "q8_0": k // 32 * 34,  # a float16 scale for every 32
        "int4": k // 32 * 18,  # likewise; q4_0 too
    }[format]


class ModelContestant:
    """What the ways to run a model have in common: sizes and tolerances."""

    blocks = head = weights = "float32"  # formats of the layers' matrices, of wte
    cache_bytes = 4  # of a number in the cache
    # Of the largest logit. float32: sums of a thousand terms, twelve layers. The others
    # are near, not equal: these catch a wrong layout, not a poor rounding.
    tolerances = {"float32": 1e-4, "bfloat16": 0.03, "int8": 0.1, "int4": 0.6}

    @property
    def tolerance(self) -> float:
        return self.tolerances[self.weights]

    def step_bytes(self, config: GPT2Config, context: int) -> int:
        """Return the bytes that a step of one sequence reads: parameters and cache.

        Of the position embeddings it reads one row, which does not count.
        """
        C, L = config.n_embd, config.n_layer
        matrices = L * (
            8 * C * row_bytes(self.blocks, C) + C * row_bytes(self.blocks, 4 * C)
        )
        vectors = 4 * (13 * L * C + 2 * C)  # biases, layer norms
        head = config.vocab_size * row_bytes(self.head, C)
        return matrices + vectors + head + self.cache_bytes * 2 * L * C * context

    def weight_bytes(self, config: GPT2Config) -> int:
        """Return the bytes of all parameters as they are kept in memory."""
        return self.step_bytes(config, 0) + 4 * config.n_positions * config.n_embd


class Stamps:
    """A streamer that notes when ids come: the prompts, then each step's."""

    def __init__(self):
        self.times: list[float] = []

    def put(self, ids: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass

    def seconds(self, first: int) -> float:
        """Return the seconds from the note of number `first` to the last."""
        return self.times[-1] - self.times[first]


def import_path(python: str) -> list[str]:
    """Return where an interpreter looks for modules."""
    code = "import json, sys; print(json.dumps(sys.path[1:]))"
    return json.loads(subprocess.check_output([python, "-c", code]))


class MiniGPT2(ModelContestant):
    """minigpt2 itself."""

    package = "minigpt2"

    def __init__(
        self,
        backend: str,
        weights: str = "float32",
        lookup: int | None = None,
        python: str | None = None,
    ):
        self.backend, self.weights, self.lookup = backend, weights, lookup
        self.blocks, self.head = weights, "int8" if weights == "int4" else weights
        self.name = f"minigpt2 {backend} {weights}" + (", lookup" if lookup else "")
        self.name += ", the other" if python else ""
        self.python = python  # of an environment with another version; None: this one
        self.how = f"backend={backend!r}, weights={weights!r}; last logits only; "
        self.how += "preallocated float32 cache; MINIGPT2_NUM_THREADS"
        self.how += f"; run by {python}" if python else ""
        self.options = {}
        if lookup:
            self.options = {"prompt_lookup_num_tokens": lookup}
            self.how += f"; prompt_lookup_num_tokens={lookup}"

    def load(self, folder: str, threads: int) -> None:
        if self.python:  # a spawned process has its parent's path
            sys.path[:] = import_path(self.python)
        import numpy as np

        from minigpt2 import GPT2LMHeadModel

        self.array = np.array
        options = {} if self.weights == "float32" else {"weights": self.weights}
        self.model = GPT2LMHeadModel.from_pretrained(
            folder, backend=self.backend, **options
        )

    def logits(self, ids: list[int]) -> np.ndarray:
        """By way of the cache: the last id follows the others' pass."""
        *others, last = ids
        past = self.model(self.array([others]), logits_to_keep=1).past_key_values
        return self.model(self.array([[last]]), past_key_values=past).logits[0, -1]

    def prefill(self, prompts: Prompts) -> float:
        start = time.perf_counter()
        self.model(self.array(prompts), use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start

    def decode(self, prompts: Prompts, n: int) -> tuple[list[list[int]], float]:
        stamps = Stamps()
        out = self.model.generate(
            self.array(prompts),
            max_new_tokens=n + 1,
            eos_token_id=[],
            pad_token_id=0,
            streamer=stamps,
            **self.options,
        )
        return out[:, len(prompts[0]) :].tolist(), stamps.seconds(1)


class Transformers(ModelContestant):
    """Hugging Face's transformers on torch."""

    package = "transformers"

    def __init__(self, attention: str):
        self.attention = attention
        self.name = f"transformers {attention}"
        self.how = f"attn_implementation={attention!r}, float32; logits_to_keep=1; "
        self.how += "DynamicCache, float32; torch.set_num_threads"

    def load(self, folder: str, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.tensor = torch.tensor
        self.model = transformers.GPT2LMHeadModel.from_pretrained(
            folder, attn_implementation=self.attention, dtype=torch.float32
        ).eval()
        self.model.generation_config.eos_token_id = None

    def logits(self, ids: list[int]) -> np.ndarray:
        return self.model(self.tensor([ids]), logits_to_keep=1).logits[0, -1].numpy()

    def prefill(self, prompts: Prompts) -> float:
        ids = self.tensor(prompts)
        start = time.perf_counter()
        self.model(ids, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start

    def decode(self, prompts: Prompts, n: int) -> tuple[list[list[int]], float]:
        ids, stamps = self.tensor(prompts), Stamps()
        out = self.model.generate(
            ids,
            attention_mask=ids.new_ones(ids.shape),
            max_new_tokens=n + 1,
            do_sample=False,
            pad_token_id=0,
            streamer=stamps,
        )
        return out[:, ids.shape[1] :].tolist(), stamps.seconds(1)


class CTranslate2(ModelContestant):
    """OpenNMT's engine for transformers."""

    package = "ctranslate2"

    def __init__(self, weights: str):
        self.weights = self.blocks = self.head = weights
        self.name, self.converted = f"CTranslate2 {weights}", f"ctranslate2-{weights}"
        self.how = f"compute_type={weights!r}; generate_batch, sampling_topk=1, of one "
        self.how += "token for prefill: last logits only; float32 cache; intra_threads"

    def convert(self, folder: Path, file: Path) -> None:
        import ctranslate2

        converter = ctranslate2.converters.TransformersConverter(str(folder))
        converter.convert(str(file), quantization=self.weights)

    def load(self, path: str, threads: int) -> None:
        import ctranslate2

        self.generator = ctranslate2.Generator(
            path, compute_type=self.weights, intra_threads=threads
        )
        self.tokens = json.loads((Path(path) / "vocabulary.json").read_text("utf-8"))

    def logits(self, ids: list[int]) -> np.ndarray:
        import numpy as np

        logits = self.generator.forward_batch([[self.tokens[i] for i in ids]])
        return np.asarray(logits)[0, -1]

    def generate(self, prompts: Prompts, n: int, **options: Any) -> Any:
        """Return CTranslate2's results: n new ids for each prompt, greedily."""
        return self.generator.generate_batch(
            [[self.tokens[i] for i in ids] for ids in prompts],
            max_length=n,
            min_length=n,
            sampling_topk=1,
            include_prompt_in_result=False,
            **options,
        )

    def prefill(self, prompts: Prompts) -> float:
        start = time.perf_counter()
        self.generate(prompts, 1)
        return time.perf_counter() - start

    def decode(self, prompts: Prompts, n: int) -> tuple[list[list[int]], float]:
        stamps = Stamps()  # it gets one row after another
        out = self.generate(prompts, n + 1, callback=stamps.put)
        return [row.sequences_ids[0] for row in out], stamps.seconds(len(prompts) - 1)


class LlamaCpp(ModelContestant):
    """llama.cpp by its C interface, as llama-cpp-python hands it on."""

    package = "llama_cpp"
    cache_bytes = 2
    # (Its GELU, too, is a table of float16.)
    tolerances = ModelContestant.tolerances | {"float32": 1e-3}
    kinds = {"f32": "float32", "bf16": "bfloat16", "q8_0": "int8", "q4_0": "int4"}

    def __init__(self, kind: str):
        self.kind, self.weights = kind, self.kinds[kind]
        self.blocks = {"q8_0": "q8_0"}.get(kind, self.weights)
        self.head = {"q8_0": "q8_0", "q4_0": "q8_0"}.get(kind, self.weights)
        self.name, self.converted = f"llama.cpp {kind}", f"{kind}.gguf"
        self.how = "head q8_0; " if kind == "q4_0" else ""
        self.how += "last logits only; float16 cache; flash attention in prefill and "
        self.how += "not in decode, each its faster; n_threads"

    def convert(self, folder: Path, file: Path) -> None:
        write_gguf(folder, file, self.kind)

    def load(self, path: str, threads: int) -> None:
        import llama_cpp

        self.api, self.threads = llama_cpp, threads
        self.silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.silent, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot read {path}")
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.contexts = {}  # {flash attention or not: (shape, context, batch)}

    def context(
        self, rows: int, width: int, max_new: int, flash: bool
    ) -> tuple[Any, Any]:
        """Return an empty context of llama.cpp's, and a batch to fill.

        It has capacity for rows of width + max_new ids, and takes `width` at a time.
        """
        api, shape = self.api, (rows, width, max_new)
        if flash in self.contexts and self.contexts[flash][0] != shape:
            _, context, batch = self.contexts.pop(flash)
            api.llama_batch_free(batch)
            api.llama_free(context)
        if flash not in self.contexts:
            p = api.llama_context_default_params()
            p.n_seq_max, p.n_batch = rows, rows * width
            p.n_ctx = rows * (width + max_new)
            p.n_threads = p.n_threads_batch = self.threads
            p.flash_attn_type = int(flash)
            context = api.llama_init_from_model(self.model, p)
            if not context:
                raise RuntimeError(f"llama.cpp makes no context of {shape}")
            self.contexts[flash] = (
                shape,
                context,
                api.llama_batch_init(rows * width, 0, 1),
            )
        _, context, batch = self.contexts[flash]
        api.llama_memory_clear(api.llama_get_memory(context), False)
        return context, batch

    def read(
        self, context: Any, batch: Any, ids: list[list[int]], start: int
    ) -> list[np.ndarray]:
        """Read ids [R, T] at the positions from start on; return the last logits [R, V]."""
        import numpy as np

        last = []
        batch.n_tokens = 0
        for row, row_ids in enumerate(ids):
            for place, id in enumerate(row_ids):
                i = batch.n_tokens
                batch.token[i], batch.pos[i] = id, start + place
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, row, False
                batch.n_tokens += 1
            last.append(i)
            batch.logits[i] = True
        if status := self.api.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode returned {status}")
        logits = [self.api.llama_get_logits_ith(context, i) for i in last]
        return [np.ctypeslib.as_array(row, (self.vocabulary,)) for row in logits]

    def logits(self, ids: list[int]) -> np.ndarray:
        """By way of the cache: the last id follows the others' pass."""
        context, batch = self.context(1, len(ids), 0, flash=False)
        self.read(context, batch, [ids[:-1]], 0)
        return self.read(context, batch, [ids[-1:]], len(ids) - 1)[0].copy()

    def prefill(self, prompts: Prompts) -> float:
        context, batch = self.context(len(prompts), len(prompts[0]), 0, flash=True)
        start = time.perf_counter()
        self.read(context, batch, prompts, 0)
        return time.perf_counter() - start

    def decode(self, prompts: Prompts, n: int) -> tuple[list[list[int]], float]:
        width = len(prompts[0])
        context, batch = self.context(len(prompts), width, n + 1, flash=False)
        logits = self.read(context, batch, prompts, 0)
        columns = [[int(row.argmax()) for row in logits]]
        start = time.perf_counter()
        for step in range(n):
            ids = [[id] for id in columns[-1]]
            logits = self.read(context, batch, ids, width + step)
            columns.append([int(row.argmax()) for row in logits])
        seconds = time.perf_counter() - start
        return [list(row) for row in zip(*columns)], seconds


class LlamaBench(LlamaCpp):
    """llama.cpp by its own llama-bench, a program that the user has."""

    package = "gguf"

    def __init__(self, kind: str, program: str):
        super().__init__(kind)
        self.program = program
        self.name = f"llama-bench {kind}"
        self.how += " (its own clock, its own random ids, its own warm-up)"

    def load(self, path: str, threads: int) -> None:
        self.path, self.threads = path, threads

    def logits(self, ids: list[int]) -> None:
        return None

    def run(self, rows: int, *arguments: object) -> float:
        """Return the seconds of one repetition."""
        if rows > 1:
            raise NotImplementedError("llama-bench runs one sequence")
        command = [self.program, "-m", self.path, "-t", str(self.threads), "-r", "1"]
        command += ["-o", "json", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)[0]["avg_ns"] / 1e9

    def prefill(self, prompts: Prompts) -> float:
        width = len(prompts[0])
        return self.run(len(prompts), "-p", width, "-n", 0, "-b", width, "-fa", 1)

    def decode(self, prompts: Prompts, n: int) -> tuple[None, float]:
        return None, self.run(
            len(prompts), "-p", 0, "-n", n, "-d", len(prompts[0]), "-fa", 0
        )


MODELS = (
    MiniGPT2("numpy"),
    MiniGPT2("numba"),
    MiniGPT2("numba", "bfloat16"),
    MiniGPT2("numba", "int8"),
    MiniGPT2("numba", "int4"),
    Transformers("eager"),
    Transformers("sdpa"),
    CTranslate2("float32"),
    CTranslate2("int8"),
    *map(LlamaCpp, LlamaCpp.kinds),
)


class ReadStream:
    """The ceiling: how fast all threads together read a large float32 array.

    Each thread takes the maximum of its part of the array, which NumPy does with vector
    instructions and without the interpreter's lock. (np.dot of the array with itself,
    which loads every number twice, reads 15 % slower.)
    """

    name = "read stream"
    package = "numpy"
    weights = None
    bytes = 512 * 2**20  # about 124M's weights
    how = "np.max of a 512 MiB float32 array, one part a thread"

    def load(self, path: str, threads: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        self.maximum = np.max
        self.parts = np.array_split(np.ones(self.bytes // 4, np.float32), threads)
        self.pool = ThreadPoolExecutor(threads)

    def read(self, times: int) -> float:
        """Read the array so many times; return bytes per second."""
        start = time.perf_counter()
        for _ in range(times):
            list(self.pool.map(self.maximum, self.parts))
        return times * self.bytes / (time.perf_counter() - start)


class Speculation:
    """What assisted decoding is made of, in one process as in real use."""

    package = "minigpt2"
    weights = "float32"

    def __init__(self, drafting: str):
        self.drafting = drafting  # the weight format of the model that drafts
        self.name = f"minigpt2 numba, {drafting} drafts"
        self.how = f"backend='numba'; float32 verifies, assistant_model={drafting!r}"

    def load(self, folder: str, threads: int) -> None:
        from minigpt2 import GPT2LMHeadModel, GPT2Tokenizer

        model = GPT2LMHeadModel.from_pretrained(folder, backend="numba")
        copy = model.with_weights(self.drafting)
        self.models = {"float32": model, self.drafting: copy}
        self.tokenizer = GPT2Tokenizer.from_pretrained(folder)

    def step(
        self, weights: str, rows: int, prompt: list[int], ids: list[int], passes: int
    ) -> float:
        """Return the seconds of a pass of `rows` ids, each pass after the last."""
        import numpy as np

        model = self.models[weights]
        past = model(np.array([prompt]), logits_to_keep=1).past_key_values
        for i in range(passes + 1):
            if i == 1:  # the first moves the cache to larger buffers
                start = time.perf_counter()
            some = np.array([ids[i * rows : (i + 1) * rows]])
            past = model(some, past_key_values=past).past_key_values
        return (time.perf_counter() - start) / passes

    def acceptance(
        self, text: str, draft: int, prompts: int, context: int, tokens: int
    ) -> tuple[list[int], dict[str, float], bool]:
        """Continue places of a text greedily, plainly and assisted.

        Returns:
            How many ids each verifying pass had (the prompts' own passes do not count),
            the seconds of both ways, and whether all tokens were the same.
        """
        import numpy as np

        ids = np.array(self.tokenizer.encode(text, verbose=False))
        starts = np.linspace(0, len(ids) - context, prompts).astype(int)
        options = {"max_new_tokens": tokens, "eos_token_id": [], "pad_token_id": 0}
        ways = {
            "plain": options,
            "assisted": options
            | {"assistant_model": self.drafting, "num_assistant_tokens": draft},
        }
        rows, seconds, same = [], dict.fromkeys(ways, 0.0), True
        with counted_passes(self.models["float32"]) as (generate, passes):
            for chosen in ways.values():  # warm-up
                generate(ids[None, :context], **chosen)
            for start in starts:
                results = []
                for way, chosen in ways.items():
                    passes.clear()
                    begin = time.perf_counter()
                    results.append(
                        generate(ids[None, start : start + context], **chosen)
                    )
                    seconds[way] += time.perf_counter() - begin
                rows += passes[1:]
                same = same and np.array_equal(*results)
        return rows, seconds, same


@contextlib.contextmanager
def counted_passes(
    model: GPT2LMHeadModel,
) -> Iterator[tuple[Callable[..., Any], list[int]]]:
    """In a with statement: model.generate, and a list of each pass's number of ids."""
    passes, forward = [], model.forward

    def counted(ids, *arguments, **options):
        passes.append(ids.shape[1])
        return forward(ids, *arguments, **options)

    model.forward = counted
    try:
        yield model.generate, passes
    finally:
        del model.forward


class MiniGPT2Tokenizer:
    """minigpt2's own tokenizer.

    The others override `load`. It reads vocab.json and merges.txt, with no cache of what
    was seen before, and sets `ids`, a function from a text to its ids.
    """

    package = "minigpt2"
    name = "minigpt2 tokenizer"
    weights = None
    how = "pure Python; split_special_tokens=True"

    def load(self, folder: str, threads: int) -> None:
        from minigpt2 import GPT2Tokenizer

        tokenizer = GPT2Tokenizer.from_pretrained(folder)
        self.ids = lambda text: tokenizer.encode(text, split_special_tokens=True)

    def encode(self, text: str) -> tuple[float, tuple[int, int]]:
        """Return the seconds that a text takes, and what tells its ids from others."""
        start = time.perf_counter()
        ids = self.ids(text)
        return time.perf_counter() - start, (len(ids), hash(tuple(ids)))


class Tiktoken(MiniGPT2Tokenizer):
    """OpenAI's tiktoken."""

    package = "tiktoken"
    name = "tiktoken"
    how = "Rust; encode_ordinary"

    def load(self, folder: str, threads: int) -> None:
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
    """Hugging Face's tokenizers."""

    package = "transformers"
    name = "transformers tokenizer"
    how = "Rust (tokenizers); split_special_tokens=True"

    def load(self, folder: str, threads: int) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()  # "longer than 1024"
        tokenizer = transformers.GPT2TokenizerFast.from_pretrained(folder)
        self.ids = lambda text: tokenizer.encode(text, split_special_tokens=True)


TOKENIZERS = (MiniGPT2Tokenizer(), Tiktoken(), TransformersTokenizer())
