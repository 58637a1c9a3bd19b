"""A model folder in one format -> a new folder in another.

    safetensors   Hugging Face's layout: config.json, model.safetensors, vocab.json, ...
    npz           the same with model.npz, which NumPy alone can read
    tf            OpenAI's layout: hparams.json, model.ckpt.*, encoder.json, vocab.bpe
    llm.c         Hugging Face's with model.bin, and tokenizer.bin, as llm.c has them

The new folder gathers under another name beside its place. Every tensor in it is read
again and compared, bit for bit, with what should be there, and only then does the folder
take its name: there is a whole folder or none.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import hub
from ..checkpoints import CheckpointError, names
from ..checkpoints.layouts import Tensor
from ..checkpoints.llmc_data import save_token_bytes
from ..checkpoints.llmc_file import LlmcFile, save_llmc
from ..checkpoints.open import open_checkpoint
from ..checkpoints.safetensors_file import save_safetensors
from ..checkpoints.tensor_file import TensorFile, as_kind
from ..checkpoints.tf_bundle_writer import save_tf_bundle
from ..config import GPT2Config
from ..hub import HPARAMS_NAME
from ..model.double_heads import GPT2DoubleHeadsModel
from ..model.gpt2 import GPT2LMHeadModel
from ..model.loading import checked_tensors, naming_file
from ..quantization.files import TensorsToWrite, weight_format_of
from ..runtime.files import new_folder, write_whole
from ..runtime.progress import Progress
from ..tokenizer import GPT2Tokenizer

FORMATS = ("safetensors", "npz", "tf", "llm.c")
DTYPES = ("float16", "bfloat16", "float32")
# Fields that change what is computed and that OpenAI's hparams.json has no word for.
UNSAID = (
    "n_inner activation_function layer_norm_epsilon scale_attn_weights "
    "scale_attn_by_inverse_layer_idx reorder_and_upcast_attn tie_word_embeddings "
    "pruned_heads bos_token_id eos_token_id"
).split()
LLMC_UNSAID = UNSAID[:-2]  # its tokenizer file has the last two


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    format: str = "safetensors",
    dtype: str | None = None,
    weights: str | None = None,
) -> Path:
    """Write a model into a new folder; return the folder.

    Parameters of a further head are kept, but OpenAI's layout has no place for them, and
    with `weights` only GPT2DoubleHeadsModel's are. What is no parameter (optimizer
    slots, old mask buffers) is left behind. The tokenizer comes along if there is one.

    Args:
        source: the model's folder or name.
        target: the folder to make.
        format: one of FORMATS.
        dtype: one of DTYPES, to which parameters are rounded, to the nearest and ties
            to even; None keeps each tensor's own (bfloat16 is read as float32, which
            holds it exactly). npz has no bfloat16; llm.c has float32, which None stands
            for there, and bfloat16.
        weights: the weight format, one of WEIGHT_FORMATS in quantization/policy.py, in
            a folder that only minigpt2 reads (see quantization/files.py). It goes with
            safetensors alone, and not with dtype. A quantized source needs it:
            "float32" gives the numbers that are computed with.

    Raises:
        FileExistsError: there is something at `target`.
        CheckpointError: the source is damaged or incomplete.
        ValueError: the format can't say what the model is.
    """
    if format not in FORMATS or dtype not in (None, *DTYPES):
        known = f"formats {', '.join(FORMATS)}; dtypes {', '.join(DTYPES)}"
        raise ValueError(f"cannot write {format!r} with {dtype!r}; there are {known}")
    if weights is not None and (format != "safetensors" or dtype is not None):
        raise ValueError(
            f"weights={weights!r} goes with format='safetensors', and without dtype"
        )
    folder, target = hub.model_folder(source), Path(target)
    tensors = open_checkpoint(folder)
    if weights is None and weight_format_of(tensors) != "float32":
        raise ValueError(
            f"{folder} has {weight_format_of(tensors)} weights, which only minigpt2 reads: "
            "convert the model that it was made from, or give weights='float32'"
        )
    with new_folder(target) as unfinished:
        if format == "llm.c":
            write_llmc(unfinished, folder, tensors, dtype or "float32")
        elif weights is None:
            write_renamed(unfinished, folder, tensors, format, dtype)
        else:
            write_in_weight_format(unfinished, folder, tensors, weights)
        write_tokenizer(unfinished, folder, format)
    return target


def write_renamed(
    folder: Path, source: Path, tensors: TensorFile, format: str, dtype: str | None
) -> None:
    """Write the tensors of the open `source`, one at a time, and the configuration."""
    config = GPT2Config.from_pretrained(source)
    renamed = RenamedTensors(tensors, config, format)
    with Progress("writing", len(renamed)) as renamed.progress:
        write_checkpoint(folder, renamed, format, dtype)
    with Progress("checking", len(renamed)) as renamed.progress:
        compare(open_checkpoint(folder), renamed, dtype)
    write_config(folder, config, format, dtype)


def write_in_weight_format(
    folder: Path, source: Path, tensors: TensorFile, weights: str
) -> None:
    """Write the model of the open `source` as `from_pretrained(weights=...)` keeps it."""
    two_heads = any(name.startswith("multiple_choice_head.") for name in tensors)
    model_class = GPT2DoubleHeadsModel if two_heads else GPT2LMHeadModel
    model = model_class.from_pretrained(source, backend="numpy", weights=weights)
    model.save_pretrained(folder)
    expected = TensorsToWrite(model.own_slots(), model.weights)
    compare(open_checkpoint(folder), expected, dtype=None)


def write_llmc(folder: Path, source: Path, tensors: TensorFile, dtype: str) -> None:
    """Write the tensors of the open `source` as llm.c's model file, and config.json."""
    config = GPT2Config.from_pretrained(source)
    refuse_unsaid(config, GPT2Config(**sizes_of(config)), LLMC_UNSAID, "llm.c")
    model = GPT2LMHeadModel(config, backend="numpy", seed=None)
    others = model.load_tensors(tensors)["unexpected_keys"]
    if others := [name for name in others if "/" not in name]:
        raise ValueError(f"llm.c has no place for {others[0]}")
    parameters = model.transformer.state_dict()
    save_llmc(folder / "model.bin", parameters, config, dtype)
    compare(LlmcFile(folder / "model.bin"), parameters, dtype)
    write_config(folder, config, "llm.c", dtype)


class RenamedTensors(Mapping[str, np.ndarray]):
    """A checkpoint's tensors under the names, and in the shapes, that a format has.

    They are read one at a time when asked for, and `progress` is told of each.
    """

    progress: Progress

    def __init__(self, tensors: TensorFile, config: GPT2Config, format: str):
        with naming_file(tensors):
            found = checked_tensors(config, tensors)
        self._openai = format == "tf"
        self._tensors: dict[str, Tensor] = {}  # by their new names
        for here, tensor in found.items():
            if "/" in here:  # an optimizer's slot
                continue
            if names.is_gpt2_parameter(here):
                here = names.openai_name(here) if self._openai else names.PREFIX + here
            elif config.tie_word_embeddings and here == "lm_head.weight":
                continue
            elif self._openai:
                raise ValueError(f"OpenAI's layout has no place for {here}")
            self._tensors[here] = tensor
        # Refuses a tied head that differs from wte, which is left out above, and dtypes
        # that no parameter can have.
        GPT2LMHeadModel(config, seed=None).load_tensors(tensors)

    def __getitem__(self, name: str) -> np.ndarray:
        self.progress.step(name)
        array = np.asarray(self._tensors[name])
        if self._openai and name.endswith("/w"):
            array = array[None]  # [1, in, out]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def write_checkpoint(
    folder: Path, tensors: Mapping[str, np.ndarray], format: str, dtype: str | None
) -> None:
    """Write {name: array} as a format's checkpoint, rounded to `dtype`."""
    if format == "tf":
        save_tf_bundle(folder / "model.ckpt", tensors, dtype)
    elif format == "safetensors":
        path = folder / "model.safetensors"
        save_safetensors(path, tensors, metadata={"format": "pt"}, dtype=dtype)
    else:
        from ..checkpoints.npz_file import save_npz  # zipfile is slow to import

        save_npz(folder / "model.npz", tensors, dtype)


def compare(
    written: TensorFile, tensors: Mapping[str, np.ndarray], dtype: str | None
) -> None:
    """Raise CheckpointError unless what was written holds the tensors, bit for bit."""
    for name in tensors:
        expected, found = as_kind(tensors[name], dtype), as_kind(written[name], dtype)
        if expected.tobytes() != found.tobytes() or expected.shape != found.shape:
            raise CheckpointError(
                f"{written.path}: {name} reads otherwise than it was written; is the "
                "disk full or failing?"
            )


def write_config(
    folder: Path, config: GPT2Config, format: str, dtype: str | None
) -> None:
    """Write config.json, or for OpenAI's layout hparams.json.

    ValueError if hparams.json can't say what the configuration says.
    """
    if format != "tf":
        if dtype is not None:
            vars(config).pop("torch_dtype", None)  # dtype's name before 4.56
            config.dtype = dtype
        config.save_pretrained(folder)
        return
    sizes = sizes_of(config)
    hparams = {"n_vocab": sizes.pop("vocab_size"), "n_ctx": sizes.pop("n_positions")}
    hparams |= sizes
    plain = GPT2Config.from_hparams(hparams)
    refuse_unsaid(config, plain, UNSAID, f"OpenAI's {HPARAMS_NAME}")
    write_whole(folder / HPARAMS_NAME, json.dumps(hparams, indent=2).encode())


def sizes_of(config: GPT2Config) -> dict[str, Any]:
    """Return what every format says of a model."""
    names = ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer")
    return {name: getattr(config, name) for name in names}


def refuse_unsaid(
    config: GPT2Config, plain: GPT2Config, names: list[str], format: str
) -> None:
    """Raise ValueError for a field that is not as in `plain`: the format can't say it."""
    for name in names:
        said, meant = getattr(plain, name), getattr(config, name)
        if meant != said and not (name == "n_inner" and meant == 4 * config.n_embd):
            raise ValueError(
                f"{format} can't say {name}={meant!r}; there it is always {said!r}"
            )


def write_tokenizer(folder: Path, source: Path, format: str) -> None:
    """Write the tokenizer of `source`, if it has one, under a format's file names."""
    try:
        tokenizer = GPT2Tokenizer.from_pretrained(source)
    except FileNotFoundError:  # the folder has the parameters alone
        return
    if format == "llm.c":
        tokens = [tokenizer.bpe.bytes_of[id] for id in range(len(tokenizer))]
        end = tokenizer.eos_token_id or 0
        save_token_bytes(folder / "tokenizer.bin", tokens, end)
    if format != "tf":
        tokenizer.save_pretrained(folder)
        return
    vocab, merges = tokenizer.save_vocabulary(folder)
    os.rename(vocab, folder / "encoder.json")
    os.rename(merges, folder / "vocab.bpe")
