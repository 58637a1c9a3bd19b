"""What is fuzzed beside files: options of generation, the command line, kernels.

Each case is a JSON file, so that it is judged, reduced and kept as files are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_formats import Arrays, Base, Files, Format, Wrong, tiny_model, written
from fuzz_mutations import VALUES, dump_json, mutate_json

FEW = (
    *VALUES,
    3,
    4,
    5,
    0.9,
    1.1,
    15,
    16,
    17,
    298,
    299,
    300,
    50256,
    [299],
    [1, 2],
    [[1]],
)
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
        from dataclasses import fields

        from minigpt2 import GenerationConfig

        self.model = tiny_model()
        self.names = [field.name for field in fields(GenerationConfig)]
        self.names += [
            "input_ids",
            "attention_mask",
            "negative_prompt_ids",
            "assistant_model",
        ]
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

    def witness(self, files: Files) -> None:
        return None


class CommandLine(Format):
    """Arguments of the command: exit status 0, 1 or 2, and never a traceback."""

    name = "command line"
    gate = ("minigpt2.hub", "model_folder")
    modules = tuple(
        f"commands/{name}.py"
        for name in (
            "__init__",
            "generate",
            "tokenize",
            "score",
            "info",
            "convert",
            "verify",
        )
    )
    refusals = ()
    names_file = False
    WORDS = (
        *(
            "",
            "-",
            "--",
            "-1",
            "0",
            "1",
            "2",
            "3",
            "nan",
            "inf",
            "-inf",
            "1e999",
            "1.5",
        ),
        *(
            "x",
            "１",
            "\udc80",
            "a\nb",
            "Hello world",
            "é",
            ".",
            "/",
            "/dev/null",
            "MODEL",
        ),
        *(
            "MODEL/config.json",
            "PROMPTS",
            "int8",
            "int4",
            "bfloat16",
            "float32",
            "numpy",
        ),
        *(
            "999999999999999999999",
            "0x10",
            "none",
            "gpt2",
            "shakespeare-1m",
            "\\n",
            ",",
        ),
        *(
            "OUT",
            "OUT/x.safetensors",
            "OUT/x.npz",
            "OUT/model.ckpt",
            "safetensors",
            "tf",
        ),
    )

    def make_bases(self) -> list[Base]:
        from minigpt2 import GPT2Tokenizer
        from minigpt2.cli import parser

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
            name: [
                option
                for action in command._actions
                for option in action.option_strings
                if option not in ("-h", "--help")
            ]
            for name, command in actions[0].choices.items()
            if name != "download"
        }
        given = [
            [
                "generate",
                "Hello",
                "--greedy",
                "--max-new-tokens",
                "2",
                "--model",
                "MODEL",
            ],
            ["generate", "--prompts", "PROMPTS", "--json", "--model", "MODEL"],
            ["generate", "-", "--num-beams", "2", "--model", "MODEL"],
            [
                "generate",
                "Hi",
                "--interactive",
                "--max-new-tokens",
                "2",
                "--model",
                "MODEL",
            ],
            ["tokenize", "Hello world", "--model", "MODEL"],
            ["score", "-", "--model", "MODEL"],
            ["info", "MODEL"],
            ["convert", "MODEL", "OUT"],
        ]
        return [
            Base({"argv.json": dump_json({"argv": argv, "stdin": "Hello\nwo\n"})}, {})
            for argv in given
        ]

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        case = json.loads(base.files["argv.json"])
        argv = case["argv"]
        for rng in rngs:
            options = self.options.get(argv[0] if argv else "", ["--model"])
            at = rng.randrange(len(argv) + 1)
            match rng.randrange(8):
                case 0 if at < len(argv):
                    del argv[at]
                case 1 if at < len(argv):
                    argv[at] = rng.choice(self.WORDS)
                case 2:
                    argv.insert(at, rng.choice(self.WORDS))
                case 3:
                    argv.append(rng.choice(options or ["--help"]))
                case 4 if repaired:
                    case["stdin"] = rng.choice(
                        ("", "\n", "a\n\nb", '{"prompt": "a"}\n', '"', "{", "[1]", "é",
                         "\udcff", "\x00", '{"prompt": 1}', "x" * 5000, "\u2028a\x0c")
                    )  # fmt: skip
                case _:
                    argv += [rng.choice(options or ["--help"]), rng.choice(self.WORDS)]
        return {"argv.json": dump_json(case)}

    def read(self, folder: Path) -> Arrays:
        from minigpt2.cli import main

        case = json.loads((folder / "argv.json").read_bytes())
        model = folder / "model"
        model.mkdir()
        for name, data in self.model.items():
            (model / name).write_bytes(data)
        stdin = str(case["stdin"]).encode("utf-8", "surrogateescape")
        (folder / "prompts.txt").write_bytes(stdin)
        places = {
            "MODEL": model,
            "OUT": folder / "out",
            "PROMPTS": folder / "prompts.txt",
        }
        argv = []
        for word in map(str, case["argv"]):
            first, slash, rest = word.partition("/")
            argv.append(f"{places[first]}{slash}{rest}" if first in places else word)
        for number, (option, value) in enumerate(pairwise(argv)):
            if option in LABORIOUS and value.isascii() and len(value) > 2:
                argv[number + 1] = "17"
        before = sys.stdin, socket.socket.connect, os.getcwd()
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
            sys.stdin, socket.socket.connect, cwd = before  # type: ignore[method-assign]
            os.chdir(cwd)
        err.flush()
        said = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
        if status not in (0, 1, 2, None) or "Traceback" in said:
            raise Wrong(f"exit status {status}: {said[-300:]}")
        if status in (1, 2) and "error" not in said and "usage" not in said:
            raise Wrong(f"exit status {status} without a word on why: {said[-300:]}")
        return {}

    def witness(self, files: Files) -> None:
        return None


def _no_network(*_: Any) -> None:
    raise OSError("no network while fuzzing")


class Kernels(Format):
    """Shapes for kernels: what ops compute, or what ops refuse; never past an end."""

    name = "kernels"
    gate = ("minigpt2.kernels.matmul", "pack")
    refusals = (ValueError, TypeError)
    names_file = False
    limited = False
    OPS = ("linear", "layer_norm", "gelu_new", "attention", "norm_linear", "linear_add")

    def make_bases(self) -> list[Base]:
        case = {"op": "linear", "rows": [2, 3], "k": 5, "n": 7, "dtype": "float32",
                "wrong": 0, "seed": 0, "order": "C", "heads": 2, "past": 0}  # fmt: skip
        return [
            Base({"case.json": dump_json(case | {"op": op, "dtype": dtype})}, {})
            for op in self.OPS
            for dtype in ("float32", "float64")
        ]

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        case = json.loads(base.files["case.json"])
        for rng in rngs:
            sizes = (
                0,
                1,
                2,
                3,
                4,
                7,
                8,
                9,
                15,
                16,
                17,
                31,
                32,
                33,
                48,
                63,
                64,
                65,
                100,
            )
            case["rows"] = [rng.choice(sizes[:12]) for _ in range(rng.randrange(4))]
            case["k"], case["n"] = rng.choice(sizes), rng.choice(sizes)
            case["heads"], case["past"] = (
                rng.choice((1, 2, 3)),
                rng.choice((0, 1, 5, 33)),
            )
            case["order"] = rng.choice("CFS")
            case["dtype"] = rng.choice(("float32", "float64"))
            case["seed"] = rng.getrandbits(16)
            # Not repaired: one array is of another shape or dtype than the rest.
            case["wrong"] = 0 if repaired else rng.randrange(1, 6)
        return {"case.json": dump_json(case)}

    def read(self, folder: Path) -> Arrays:
        from minigpt2 import kernels, ops

        case = json.loads((folder / "case.json").read_bytes())
        results = []
        for space in (ops, kernels):
            try:
                results.append(self._run(space, case))
            except (ValueError, TypeError, IndexError) as error:
                results.append(error)
        expected, got = results
        if isinstance(got, IndexError):
            raise got
        if isinstance(got, Exception):
            # Kernels may ask for more than broadcasting does, and for some numbers.
            wrong = isinstance(expected, Exception) or case["wrong"]
            if wrong or not case["k"] or not expected.size:
                raise got
            raise Wrong(f"kernels refuse what ops take: {got!r}"[:300])
        if isinstance(expected, Exception):
            if not got.size:
                raise ValueError("nothing is read for nothing")
            raise Wrong("kernels take what ops refuse: do they read past an end?")
        tolerance = 2e-5 if case["dtype"] == "float32" else 1e-12
        if got.shape != expected.shape or not np.allclose(
            got, expected, tolerance, tolerance, equal_nan=True
        ):
            raise Wrong(f"kernels differ from ops: {got.shape} {expected.shape}")
        return {}

    def _run(self, space: Any, case: dict) -> np.ndarray:
        rng = np.random.default_rng(case["seed"])
        wrong = case["wrong"]

        def array(number: int, *shape: int) -> np.ndarray:
            if wrong == number and shape:
                shape = (*shape[:-1], shape[-1] + 1)
            made = rng.standard_normal(shape).astype(case["dtype"])
            if wrong == 5 and number == 2:
                made = made.astype("float16")
            if case["order"] == "F":
                made = np.asfortranarray(made)
            if case["order"] == "S":
                made = np.repeat(made, 2, -1)[..., ::2] if shape else made
            return made

        rows, k, n = case["rows"], case["k"], case["n"]
        x = array(1, *rows, k)
        match case["op"]:
            case "linear":
                return space.linear(x, space.pack(array(2, k, n)), array(3, n))
            case "linear_add":
                weight, bias = space.pack(array(2, k, n)), array(3, n)
                return space.linear_add(x, weight, bias, array(4, *rows, n))
            case "norm_linear":
                weight, bias = array(2, k), array(3, k)
                packed = space.pack(array(4, k, n))
                return space.norm_linear(x, weight, bias, 1e-5, packed)
            case "layer_norm":
                return space.layer_norm(x, array(2, k), array(3, k), 1e-5)
            case "gelu_new":
                return space.gelu_new(x)
            case _:
                batch, length = [*rows, 1, 1][:2]
                heads, past = case["heads"], case["past"]
                q = array(1, batch, heads, length, k)
                key = array(2, batch, heads, length + past, k)
                return space.attention(q, key, array(3, batch, heads, length + past, k))

    def witness(self, files: Files) -> None:
        return None


def surfaces() -> list[Format]:
    """Every surface that can be fuzzed here: kernels only where Numba is."""
    kernels = [Kernels()] if importlib.util.find_spec("numba") else []
    return [Options(), CommandLine(), *kernels]
