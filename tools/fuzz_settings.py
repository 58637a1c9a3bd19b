"""Files that people edit: settings in JSON, and vocabularies.

There is no other reader of them here. What is accepted must work: a model computes and
generates, a tokenizer encodes, decodes, and is the same after it was saved and loaded.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_formats import Arrays, Base, Files, Format, Wrong, written
from fuzz_mutations import dump_json, mutate_json, mutate_text

from minigpt2 import GenerationConfig, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from minigpt2.checkpoints.names import openai_name
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle
from minigpt2.tasks.verify import KINDS, verify
from minigpt2.tokenizer import AddedToken


class Edited(Format):
    """A folder of which one file, JSON or lines, is changed.

    `read` returns arrays that no such file can change; `use` uses what was read.
    """

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        data = base.files[self.file]
        if self.file.endswith(".json") and repaired:
            tree = json.loads(data)
            for rng in rngs:
                tree = mutate_json(tree, rng)
            return base.files | {self.file: dump_json(tree)}
        for rng in rngs:
            data = mutate_text(data, rng)
        return base.files | {self.file: data}


def tiny_config(**fields: Any) -> dict:
    return {
        "model_type": "gpt2", "vocab_size": 300, "n_positions": 16, "n_ctx": 16,
        "n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": None,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1,
        "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02,
        "bos_token_id": 299, "eos_token_id": 299, "scale_attn_weights": True,
        "pruned_heads": {}, "tie_word_embeddings": True,
        "architectures": ["GPT2LMHeadModel"],
        "use_cache": True, "dtype": "float32", "num_labels": 1, "summary_type": "cls_index",
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    } | fields  # fmt: skip


def tiny_model(**fields: Any) -> Any:
    return GPT2LMHeadModel(GPT2Config(**tiny_config(**fields)), backend="numpy")


def parameters(model: Any) -> Arrays:
    return {name: np.asarray(array) for name, array in model.state_dict().items()}


class Config(Edited):
    name = "config.json"
    file = "config.json"
    gate = ("minigpt2.config", "read_json")
    modules = ("config.py",)

    def make_bases(self) -> list[Base]:
        model = tiny_model()
        bases = []
        for weights in ("float32", "int8"):
            made = model.with_weights(weights)
            files = written(made.save_pretrained)
            said = json.loads(files["config.json"])
            files["config.json"] = dump_json(tiny_config() | said)
            bases.append(Base(files, parameters(made)))
        return bases

    def read(self, folder: Path) -> Arrays:
        self.model = GPT2LMHeadModel.from_pretrained(folder, backend="numpy")
        return parameters(self.model)

    def use(self, folder: Path) -> None:
        self.model([[1, 2, 3]])
        self.model.generate(
            [[1, 2, 3]], max_new_tokens=2, eos_token_id=[], pad_token_id=0
        )
        text = self.model.config.to_json_string()
        again = GPT2Config.from_dict(json.loads(text))
        if again != self.model.config and "NaN" not in text:
            raise Wrong("a configuration that does not survive being written and read")


class Hparams(Config):
    name = "hparams.json"
    file = "hparams.json"

    def make_bases(self) -> list[Base]:
        model = tiny_model()
        tensors = {
            openai_name(name.removeprefix("transformer.")): array
            for name, array in parameters(model).items()
            if not name.startswith("lm_head")
        }
        files = written(lambda folder: save_tf_bundle(folder / "model.ckpt", tensors))
        hparams = {"n_vocab": 300, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}
        files["hparams.json"] = dump_json(hparams)
        return [Base(files, parameters(model))]


class Generation(Edited):
    name = "generation_config.json"
    file = "generation_config.json"
    gate = ("minigpt2.generation.config", "read_json")
    modules = ("generation/config.py", "generation/options.py")

    def make_bases(self) -> list[Base]:
        self.model = tiny_model()
        options: list[dict] = [
            {"eos_token_id": [299], "pad_token_id": 0, "max_length": 6, "do_sample": True,
             "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 1, "min_length": 4,
             "repetition_penalty": 1.2, "bad_words_ids": [[1, 2], [3]],
             "sequence_bias": [[[1], 0.5]], "transformers_version": "4.57.0",
             "exponential_decay_length_penalty": [3, 1.1]},
            {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5,
             "early_stopping": "never", "max_length": 5, "no_repeat_ngram_size": 2,
             "suppress_tokens": [1], "begin_suppress_tokens": [2],
             "forced_eos_token_id": 299, "forced_bos_token_id": 1,
             "_from_model_config": True},
        ]  # fmt: skip
        return [Base({self.file: dump_json(each)}, {}) for each in options]

    def read(self, folder: Path) -> Arrays:
        self.config = GenerationConfig.from_pretrained(folder)
        return {}

    def use(self, folder: Path) -> None:
        config = self.config
        few = {"max_new_tokens": 2, "max_time": 2.0}
        for name in ("num_beams", "num_return_sequences", "num_beam_groups"):
            if getattr(config, name, 1) > 64:
                return  # an honest request for much work
        self.model.generate([[1, 2, 3]], generation_config=config, **few)


class Tokenizer(Edited):
    """A file of a tokenizer's folder, each of them in turn."""

    gate = ("minigpt2.tokenizer.files", "read_json")
    modules = ("tokenizer/*.py", "bpe.py")
    TEXT = "Hello  world\n<|x|> é ROMEO: <|endoftext|>"

    def __init__(self, file: str, layout: str):
        self.name, self.file, self.layout = f"{file}, {layout}", file, layout
        if file in ("vocab.json", "encoder.json"):
            self.gate = ("minigpt2.bpe", "read_json")
        elif not file.endswith(".json"):
            self.gate = ("minigpt2.tokenizer.gpt2", "read_merges")
        super().__init__()

    def make_bases(self) -> list[Base]:
        folder = Path(__file__).parents[1] / "minigpt2/data/gpt2/vocab.bpe"
        lines = folder.read_text("utf-8").split("\n")[:31]
        with tempfile.TemporaryDirectory() as made:
            merges = Path(made) / "vocab.bpe"
            merges.write_text("\n".join([*lines, ""]), "utf-8")
            tokenizer = GPT2Tokenizer(
                None, merges, pad_token="<|pad|>", model_max_length=16
            )
            tokenizer.add_tokens([AddedToken("<|x|>", lstrip=True, single_word=True)])
            files = written(tokenizer.save_pretrained)
        if self.layout == "openai":
            files = {
                "encoder.json": files["vocab.json"], "vocab.bpe": files["merges.txt"]
            }  # fmt: skip
        elif self.layout == "old":
            config = json.loads(files["tokenizer_config.json"])
            del config["added_tokens_decoder"]
            files["tokenizer_config.json"] = dump_json(config)
        elif self.layout == "tokenizer.json":
            files = self._whole(files)
        return [Base(files, {})]

    def _whole(self, files: Files) -> Files:
        config = json.loads(files["tokenizer_config.json"])
        added = [
            {"id": int(id), **token}
            for id, token in config["added_tokens_decoder"].items()
        ]
        del config["added_tokens_decoder"]
        ids = json.loads(files["vocab.json"])
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        end = added[0]
        first, second = (
            {"Sequence": {"id": text, "type_id": type}}
            for text, type in (("A", 0), ("B", 1))
        )
        special = {"SpecialToken": {"id": "end", "type_id": 0}}
        known = {"id": "end", "ids": [end["id"]], "tokens": [end["content"]]}
        template = {
            "type": "TemplateProcessing", "single": [special, first],
            "pair": [special, first, second], "special_tokens": {"end": known},
        }  # fmt: skip
        whole = {
            "version": "1.0", "added_tokens": added,
            "truncation": {
                "direction": "Right", "max_length": 9, "strategy": "LongestFirst",
                "stride": 0,
            },
            "padding": {
                "strategy": "BatchLongest", "direction": "Right", "pad_id": end["id"],
                "pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": end["content"],
            },
            "normalizer": None, "pre_tokenizer": level | {"use_regex": True},
            "post_processor": {"type": "Sequence", "processors": [level, template]},
            "decoder": level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                "byte_fallback": False, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "vocab": ids,
                "merges": files["merges.txt"].decode().split("\n")[1:-1],
            },
        }  # fmt: skip
        return {
            "tokenizer.json": dump_json(whole),
            "tokenizer_config.json": dump_json(config),
        }

    def read(self, folder: Path) -> Arrays:
        self.tokenizer = GPT2Tokenizer.from_pretrained(folder)
        return {}

    def use(self, folder: Path) -> None:
        tokenizer = self.tokenizer
        ids = tokenizer.encode(self.TEXT)
        known = set(tokenizer.get_vocab().values())
        if not all(type(id) is int and id >= 0 and id in known for id in ids):
            raise Wrong(f"ids that are none: {ids}"[:200])
        if any(type(id) is not int or id < 0 for id in known):
            raise Wrong("a token whose id is no whole number from 0 on")
        if not isinstance(tokenizer.decode(ids), str):
            raise Wrong("no text")
        tokenizer.convert_ids_to_tokens(ids)
        tokenizer(["a", "Hello world"], truncation=True, max_length=4)
        repr(tokenizer)
        again = folder / "again"
        tokenizer.save_pretrained(again)
        if type(tokenizer).from_pretrained(again).encode(self.TEXT) != ids:
            raise Wrong("other ids after being saved and loaded")


class Numbers(Edited):
    """A user's file of numbers for the command `verify`, with a row of every kind."""

    name = "numbers.json"
    file = "numbers.json"
    gate = ("minigpt2.tasks.verify", "read_json")
    modules = ("tasks/verify.py",)
    names_file = False  # which row, or which model, is enough

    def make_bases(self) -> list[Base]:
        files = written(tiny_model().save_pretrained)
        row = {"models": ["tiny"], "source": "here", "prompt": [1, 2],
               "input_ids": [[1, 2]], "file": "config.json", "bytes": 7,
               "sha256": "00", "only": True, "value": 1.5,
               "vectors": [["a", [64]]], "ids": [1, 2, 3], "at": "0, 1:2, :3",
               "values": [0.5, 1.0], "tolerance": 1e-3, "length": 4, "text": "ab",
               "options": {"num_beams": 2}}  # fmt: skip
        rows = [row | {"kind": kind} for kind in KINDS]
        numbers = {"models": {"tiny": {"vocab_size": 300, "n_layer": 2}}, "rows": rows}
        return [Base(files | {self.file: dump_json(numbers)}, {})]

    def read(self, folder: Path) -> Arrays:
        list(verify(folder, folder / self.file))
        return {}


def settings_formats() -> list[Format]:
    """Every file of settings, in each layout of a folder that has it."""
    return [
        *(Config(), Hparams(), Generation(), Numbers()),
        Tokenizer("tokenizer_config.json", "hugging face"),
        Tokenizer("special_tokens_map.json", "old"),
        Tokenizer("tokenizer.json", "tokenizer.json"),
        Tokenizer("added_tokens.json", "old"),
        Tokenizer("vocab.json", "hugging face"),
        Tokenizer("merges.txt", "hugging face"),
        Tokenizer("encoder.json", "openai"),
        Tokenizer("vocab.bpe", "openai"),
    ]
