"""What is fuzzed beside files: options of generation, the command line, kernels.

Each case is a JSON file, so that it is judged, reduced and kept as files are.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import io
import json
import mmap
import os
import random
import socket
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_formats import Arrays, Base, Files, Format, Wrong, written
from fuzz_mutations import VALUES, dump_json, mutate_json
from fuzz_settings import tiny_model

from minigpt2 import GenerationConfig, GPT2Tokenizer
from minigpt2.cli import main, parser
from minigpt2.hub import transfer
from minigpt2.quantization import quantized

FEW = (
    *VALUES, 3, 4, 5, 0.9, 1.1, 15, 16, 17, 298, 299, 300, 50256, [299], [1, 2], [[1]],
)  # fmt: skip
# Options that ask for much work, and honestly, if they are large.
WORK = ("num_beams", "num_return_sequences", "num_beam_groups", "max_new_tokens")
LABORIOUS = ("--max-new-tokens", "--num-beams", "--num-return-sequences")


class Options(Format):
    """Options of `generate`: a ValueError or TypeError that says what is wrong, or ids."""

    name = "generation options"
    gate = ("minigpt2.generation.config", "check_names")
    modules = (
        *("generation/config.py", "generation/options.py", "generation/features.py"),
        *("generation/prompt.py", "generation/chain.py", "generation/processors.py"),
    )
    refusals = (ValueError, TypeError)
    names_file = False

    def make_bases(self) -> list[Base]:
        self.model = tiny_model()
        self.names = [field.name for field in fields(GenerationConfig)]
        self.names += ["input_ids", "attention_mask", "negative_prompt_ids"]
        self.names += ["assistant_model"]
        bases: list[dict] = [
            {"input_ids": [[1, 2, 3]], "max_new_tokens": 2},
            {"input_ids": [[1, 2, 3], [4, 5, 6]], "max_length": 6, "do_sample": True,
             "seed": 1, "top_k": 5, "temperature": 0.5},
            {"input_ids": [[1, 2, 3]], "num_beams": 3, "max_length": 6,
             "num_return_sequences": 2},
            {"input_ids": [[7, 7, 7]], "attention_mask": [[0, 1, 1]], "max_length": 6,
             "penalty_alpha": 0.6, "top_k": 4},
            {"input_ids": [[7, 8, 7]], "prompt_lookup_num_tokens": 2, "max_length": 8},
            {"input_ids": [[1]], "num_beams": 4, "num_beam_groups": 2, "max_length": 5,
             "diversity_penalty": 0.5},
            {"input_ids": [[1, 2]], "sliding_window": 8, "max_new_tokens": 17},
        ]  # fmt: skip
        return [Base({"options.json": dump_json(each)}, {}) for each in bases]

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        options = json.loads(base.files["options.json"])
        for rng in rngs:
            if repaired or not options:
                options[rng.choice(self.names)] = rng.choice(FEW)
            else:
                changed = mutate_json(options, rng)
                options = changed if isinstance(changed, dict) else options
        return {"options.json": dump_json(options)}

    def read(self, folder: Path) -> Arrays:
        text = (folder / "options.json").read_text("utf-8")
        try:
            options = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("this is no input") from None
        options = {str(name): value for name, value in options.items()}
        for name in WORK:
            value = options.get(name)
            if isinstance(value, int | float) and value > 64:
                options[name] = 17
        options.setdefault("max_time", 2.0)
        options["pad_token_id"] = options.get("pad_token_id", 0)
        ids = self.model.generate(**options)
        ids = np.asarray(ids.sequences if hasattr(ids, "sequences") else ids)
        if ids.dtype != np.int64 or ids.ndim != 2:
            raise Wrong(f"{ids.dtype} {ids.shape} are no rows of ids")
        return {}


class CommandLine(Format):
    """Arguments of the command: exit status 0, 1 or 2, and never a traceback."""

    name = "command line"
    gate = ("minigpt2.hub", "model_folder")
    modules = tuple(
        f"commands/{name}.py"
        for name in "__init__ generate tokenize score info golden convert verify".split()
    )
    refusals = ()
    names_file = False
    WORDS = (
        "make", "show", "convert", "diff", "tiny",
        "", "-", "--", "-1", "0", "1", "2", "3", "nan", "inf", "-inf", "1e999", "1.5",
        "x", "１", "\udc80", "a\nb", "Hello world", "é", ".", "/", "/dev/null", "MODEL",
        "MODEL/config.json", "PROMPTS", "int8", "int4", "bfloat16", "float32", "numpy",
        "9007199254740992", "999999999999999999999", "0x10", "none", "gpt2", "\\n", ",",
        "shakespeare-1m",
        "OUT", "OUT/x.safetensors", "OUT/x.npz", "OUT/model.ckpt", "safetensors", "tf",
    )  # fmt: skip

    INPUTS = (
        "", "\n", "a\n\nb", '{"prompt": "a"}\n', '"', "{", "[1]", "é", "\udcff", "\x00",
        '{"prompt": 1}', "x" * 5000, "\u2028a\x0c",
    )  # fmt: skip
    LINE = {"prompt": "a", "id": "x", "max_new_tokens": 2, "seed": 1}

    def make_bases(self) -> list[Base]:
        merges = Path(__file__).parents[1] / "minigpt2/data/gpt2/vocab.bpe"
        lines = merges.read_text("utf-8").split("\n")[:31]

        def save(folder: Path) -> None:
            tiny_model().save_pretrained(folder)
            (folder / "few.bpe").write_text("\n".join([*lines, ""]), "utf-8")
            GPT2Tokenizer(None, folder / "few.bpe").save_pretrained(folder)
            (folder / "few.bpe").unlink()

        self.model = written(save)
        self.model["generation_config.json"] = b'{"eos_token_id": 299}'
        actions = [
            a for a in parser()._actions if a.choices and isinstance(a.choices, dict)
        ]
        self.options = {
            name: list(options_of(command))
            for name, command in actions[0].choices.items()
            if name != "warm"  # which compiles, for long
        }
        given = (
            "generate Hello --greedy --max-new-tokens 2 --model MODEL",
            "generate --prompts PROMPTS --json --model MODEL",
            "generate - --num-beams 2 --model MODEL",
            "generate Hi --interactive --max-new-tokens 2 --model MODEL",
            "tokenize Hello --model MODEL",
            "score - --model MODEL",
            "info MODEL",
            "convert MODEL OUT",
            "verify MODEL",
            "download gpt2 --from openai --to OUT",
            "golden make --ids 1 2 --model MODEL --out OUT",
            "golden tiny OUT --names one-layer",
            "golden show MODEL/config.json",
            "golden convert MODEL OUT",
            "golden diff OUT MODEL/model.safetensors --model MODEL",
        )
        cases = [{"argv": argv.split(), "stdin": "Hi\nwo\n"} for argv in given]
        return [Base({"argv.json": dump_json(case)}, {}) for case in cases]

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        case = json.loads(base.files["argv.json"])
        argv = case["argv"]
        for rng in rngs:
            options = self.options.get(argv[0] if argv else "", ["--model"])
            at = rng.randrange(len(argv) + 1)
            match rng.randrange(9):
                case 8:
                    argv[:1] = [rng.choice(sorted(self.options))]
                case 0 if at < len(argv):
                    del argv[at]
                case 1 if at < len(argv):
                    argv[at] = rng.choice(self.WORDS)
                case 2:
                    argv.insert(at, rng.choice(self.WORDS))
                case 3:
                    argv.append(rng.choice(options or ["--help"]))
                case 4 if repaired:
                    line = dump_json(mutate_json(self.LINE, rng)).decode()
                    case["stdin"] = rng.choice((*self.INPUTS, line, line, line))
                case _:
                    argv += [rng.choice(options or ["--help"]), rng.choice(self.WORDS)]
        return {"argv.json": dump_json(case)}

    def read(self, folder: Path) -> Arrays:
        case = json.loads((folder / "argv.json").read_bytes())
        model = folder / "model"
        model.mkdir()
        for name, data in self.model.items():
            (model / name).write_bytes(data)
        stdin = str(case["stdin"]).encode("utf-8", "surrogateescape")
        (folder / "prompts.txt").write_bytes(stdin)
        made, prompts = folder / "out", folder / "prompts.txt"
        places = {"MODEL": model, "OUT": made, "PROMPTS": prompts}
        argv = []
        for word in map(str, case["argv"]):
            first, slash, rest = word.partition("/")
            argv.append(f"{places[first]}{slash}{rest}" if first in places else word)
        for number, (option, value) in enumerate(pairwise(argv)):
            if option in LABORIOUS and value.isdecimal() and 2 < len(value) < 12:
                argv[number + 1] = "17"
        before = sys.stdin, socket.socket.connect, os.getcwd(), transfer.ATTEMPTS
        transfer.ATTEMPTS = 1  # there is no network, and no waiting for it
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
        socket.socket.connect = _no_network  # type: ignore[method-assign, assignment]
        out, err = (
            io.TextIOWrapper(io.BytesIO(), "utf-8", errors)
            for errors in ("strict", "backslashreplace")  # as Python opens them
        )
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main(argv)
        except SystemExit as end:
            status = end.code
        finally:
            sys.stdin, socket.socket.connect, cwd, transfer.ATTEMPTS = before  # type: ignore[method-assign]
            os.chdir(cwd)
        err.flush()
        said = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
        if status not in (0, 1, 2, None) or "Traceback" in said:
            raise Wrong(f"exit status {status}: {said[-300:]}")
        if status in (1, 2) and "error" not in said and "usage" not in said:
            raise Wrong(f"exit status {status} without a word on why: {said[-300:]}")
        return {}


def options_of(command: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a command's options, and those of its own subcommands."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for parser in action.choices.values():
                yield from options_of(parser)
        elif "--help" not in action.option_strings:
            yield from action.option_strings


def _no_network(*_: Any) -> None:
    raise OSError("no network while fuzzing")


class Kernels(Format):
    """Shapes for kernels: they compute what ops compute, and refuse what ops refuse.

    They may refuse more (broadcasting, dtypes), and never read past an array's end: there
    a page begins that nobody may read.
    """

    name = "kernels"
    gate = ("minigpt2.kernels.matmul", "_kernel_and_arrays")
    refusals = (ValueError, TypeError)
    names_file = False
    limited = False  # compiling takes memory, and seconds
    SIZES = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 128)
    LAYOUTS = ("panels", "rows", "bfloat16", "int8", "int4")
    CASE = {
        "op": "linear", "layout": "panels", "lead": [2, 3], "k": 5, "n": 7, "heads": 2,
        "past": 0, "spare": 0, "dtype": "float32", "order": "C", "wrong": 0, "seed": 0,
    }  # fmt: skip

    def make_bases(self) -> list[Base]:
        cases: list[dict] = [{"layout": layout} for layout in self.LAYOUTS]
        ops = "linear_add norm_linear layer_norm gelu_new attention cached_attention"
        cases += [{"op": op} for op in ops.split()]
        cases += [{"op": "cached_attention", "k": 64}]  # takes another kernel
        cases += [case | {"dtype": "float64"} for case in cases]
        cases = [
            c for c in cases if (c.get("layout"), c.get("dtype")) not in FLOAT32_ONLY
        ]
        return [Base({"case.json": dump_json(self.CASE | case)}, {}) for case in cases]

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        case, rng = json.loads(base.files["case.json"]), rngs[0]
        case["lead"] = [rng.choice(self.SIZES[:12]) for _ in range(rng.randrange(4))]
        case["k"], case["n"] = rng.choice(self.SIZES), rng.choice(self.SIZES)
        case["heads"], case["past"] = rng.choice((1, 2, 3)), rng.choice((0, 1, 5, 70))
        case["order"], case["seed"] = rng.choice("CFS"), rng.getrandbits(16)
        case["spare"] = rng.choice((0, 1, 64)) if repaired else rng.randrange(-3, 3)
        # Not repaired: one array is of another shape or dtype than the rest.
        case["wrong"] = 0 if repaired else rng.randrange(7)
        return {"case.json": dump_json(case)}

    def read(self, folder: Path) -> Arrays:
        from minigpt2 import kernels, ops

        case = json.loads((folder / "case.json").read_bytes())
        expected: np.ndarray | Exception
        try:
            expected = self._run(ops, case)
        except (ValueError, TypeError, IndexError) as error:
            expected = error
        try:
            got = self._run(kernels, case)
        except (ValueError, TypeError) as error:
            may = isinstance(expected, Exception) or case["wrong"]
            if not may and (case["layout"], case["dtype"]) not in FLOAT32_ONLY:
                raise Wrong(f"kernels refuse what ops take: {error!r}"[:300]) from None
            raise
        if isinstance(expected, Exception):
            raise Wrong(f"kernels take what ops refuse: {expected!r}"[:300])
        tolerance = 1e-12 if case["dtype"] == "float64" else 1e-4
        if got.shape != expected.shape or not np.allclose(
            got, expected, tolerance, tolerance, equal_nan=True
        ):
            raise Wrong(f"kernels differ from ops: {got.shape} {expected.shape}")
        return {}

    def _run(self, space: Any, case: dict) -> np.ndarray:
        rng = np.random.default_rng(case["seed"])
        wrong, dtype = case["wrong"], case["dtype"]

        def array(number: int, *shape: int) -> np.ndarray:
            if wrong == number and shape:
                shape = (*shape[:-1], shape[-1] + 1)
            made = rng.standard_normal(shape).astype(dtype)
            if (wrong, number) in ((5, 2), (6, 1)):
                made = made.astype("float16")
            if case["order"] == "F":
                return np.asfortranarray(made)
            if case["order"] == "S" and shape:
                return np.repeat(made, 2, -1)[..., ::2]
            return guarded(made)

        def weight(number: int) -> Any:
            rows = array(number, n, k)
            if case["layout"] in ("panels", "rows"):
                in_c_order = case["layout"] == "panels"
                return space.pack(
                    np.ascontiguousarray(rows.T) if in_c_order else rows.T
                )
            return quantized(rows.astype("float32"), case["layout"])

        lead, k, n = case["lead"], case["k"], case["n"]
        x = array(1, *lead, k)
        match case["op"]:
            case "linear":
                return space.linear(x, weight(2), array(3, n))
            case "linear_add":
                return space.linear_add(x, weight(2), array(3, n), array(4, *lead, n))
            case "norm_linear":
                norm = array(3, k), array(4, k), 1e-5
                return space.norm_linear(x, *norm, weight(2), None, "gelu_new")
            case "layer_norm":
                return space.layer_norm(x, array(2, k), array(3, k), 1e-5)
            case "gelu_new":
                return space.gelu_new(x)
        batch, new = [*lead, 1, 1][:2]
        heads, seen = case["heads"], new + case["past"]
        mask = None if case["seed"] % 2 else rng.random((batch, seen)) < 0.8
        if case["op"] == "attention":
            q, keys = array(1, batch, heads, new, k), array(2, batch, heads, seen, k)
            return space.attention(q, keys, array(3, *keys.shape), mask)
        keys = array(2, batch, heads, max(seen + case["spare"], 0), k)
        values, qkv = array(3, *keys.shape), array(1, batch, new, 3 * heads * k)
        keys, values = keys.copy(), values.copy()  # which are written to
        return space.cached_attention(qkv, keys, values, case["past"], mask)


# Products with these matrices are defined in float32 only.
FLOAT32_ONLY = {(layout, "float64") for layout in ("bfloat16", "int8", "int4")}


def guarded(array: np.ndarray) -> np.ndarray:
    """Return a copy in C order, which ends where a page begins that cannot be read."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = np.frombuffer(mmap.mmap(-1, size + page), np.uint8)
    address = ctypes.c_void_p(memory.ctypes.data + size)
    if ctypes.CDLL(None).mprotect(address, page, 0) != 0:
        raise OSError("mprotect")
    copy = memory[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def surfaces() -> list[Format]:
    """Every surface that can be fuzzed here: kernels only where Numba is."""
    kernels = [Kernels()] if importlib.util.find_spec("numba") else []
    return [Options(), CommandLine(), *kernels]
