"""What GPT-2's parameters are called, and their shapes: one table.

Inside minigpt2 a parameter has its canonical name, the one in Hugging Face's GPT2Model
(`h.0.attn.c_attn.weight`); a model with heads puts `transformer.` before it. This is the
only file that knows OpenAI's names, and what programs put before names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

PREFIX = "transformer."
HEAD = "lm_head.weight"  # tied to wte.weight, unless the configuration unties it


class Row(NamedTuple):
    """A row of the table, where # stands for a layer's number."""

    name: str
    openai: str  # in OpenAI's checkpoint, where a linear weight is [1, in, out]
    shape: str  # lengths of the axes, by their letters


# V is vocab_size, T n_positions, C n_embd, M n_inner; A is the width of a layer's heads
# side by side: C, or less where heads are pruned. The order is GPT2Model's.
EMBEDDINGS = (
    Row("wte.weight", "model/wte", "V C"),
    Row("wpe.weight", "model/wpe", "T C"),
)
BLOCK = (
    Row("h.#.ln_1.weight", "model/h#/ln_1/g", "C"),
    Row("h.#.ln_1.bias", "model/h#/ln_1/b", "C"),
    Row("h.#.attn.c_attn.weight", "model/h#/attn/c_attn/w", "C 3A"),
    Row("h.#.attn.c_attn.bias", "model/h#/attn/c_attn/b", "3A"),
    Row("h.#.attn.c_proj.weight", "model/h#/attn/c_proj/w", "A C"),
    Row("h.#.attn.c_proj.bias", "model/h#/attn/c_proj/b", "C"),
    Row("h.#.ln_2.weight", "model/h#/ln_2/g", "C"),
    Row("h.#.ln_2.bias", "model/h#/ln_2/b", "C"),
    Row("h.#.mlp.c_fc.weight", "model/h#/mlp/c_fc/w", "C M"),
    Row("h.#.mlp.c_fc.bias", "model/h#/mlp/c_fc/b", "M"),
    Row("h.#.mlp.c_proj.weight", "model/h#/mlp/c_proj/w", "M C"),
    Row("h.#.mlp.c_proj.bias", "model/h#/mlp/c_proj/b", "C"),
)
FINAL_NORM = (
    Row("ln_f.weight", "model/ln_f/g", "C"),
    Row("ln_f.bias", "model/ln_f/b", "C"),
)
TABLE = (*EMBEDDINGS, *BLOCK, *FINAL_NORM)
# How the names of linear layers' matrices end, which other programs transpose.
MATRICES = tuple(
    row.name.partition("#")[2] for row in BLOCK if len(row.shape.split()) == 2
)

_BY_NAME = {row.name: row for row in TABLE}
_BY_OPENAI = {row.openai: row for row in TABLE}
_LAYER = re.compile(r"(h\.|model/h)([0-9]+)(?=[./])")
# What torch's wrappers put before the names of the model that they hold: module. is of
# DistributedDataParallel, _orig_mod. of torch.compile, model. of Lightning.
_WRAPPERS = re.compile(r"(?:module\.|_orig_mod\.|model\.)*")
_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # tf.train.Checkpoint's
# The causal mask and its constant, which old versions saved among the parameters.
_BUFFER = re.compile(r"h\.[0-9]+\.attn\.(?:bias|masked_bias)")


class Sizes(Protocol):
    """What the shapes depend on: a GPT2Config, or anything else that has these."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None  # None is 4 * n_embd

    @property
    def pruned_heads(self) -> Mapping[int, Sequence[int]]:
        """Layer -> the heads that it lacks."""


def parameter_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return {canonical name: shape} of all parameters of a GPT2Model of these sizes."""
    C, H = sizes.n_embd, sizes.n_head
    V, T, M = sizes.vocab_size, sizes.n_positions, sizes.n_inner or 4 * C
    lengths = {"V": V, "T": T, "C": C, "M": M}

    def shapes_of(rows: Iterable[Row], layer: int = 0) -> dict[str, tuple[int, ...]]:
        kept = H - len(sizes.pruned_heads.get(layer, ()))
        here = {**lengths, "A": kept * (C // H), "3A": 3 * kept * (C // H)}
        return {
            row.name.replace("#", str(layer)): tuple(
                here[letter] for letter in row.shape.split()
            )
            for row in rows
        }

    shapes = shapes_of(EMBEDDINGS)
    for layer in range(sizes.n_layer):
        shapes |= shapes_of(BLOCK, layer)
    return shapes | shapes_of(FINAL_NORM)


def canonical(name: str) -> str | None:
    """Return the canonical name of a file's tensor `name`.

    None stands for what is no parameter: old versions' mask buffers. A name that is none
    of GPT2Model's (an optimizer's, a counter's, another head's) comes back as it is, but
    for what wrappers put before it.
    """
    row, layer = _find(name.removesuffix(_OBJECT_SUFFIX), _BY_OPENAI)
    if row:
        return row.name.replace("#", layer)
    name = _WRAPPERS.sub("", name, count=1).removeprefix(PREFIX)
    if _BUFFER.fullmatch(name):
        return None
    # TensorFlow 1's names for a layer norm's parameters, in very old files.
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))


def is_gpt2_parameter(name: str) -> bool:
    """Say whether a canonical name is one of GPT2Model's, of whatever size."""
    return _find(name, _BY_NAME)[0] is not None


def openai_name(name: str) -> str:
    """Return OpenAI's name of a parameter by its canonical one.

    Raises:
        ValueError: for a name that is none of GPT2Model's.
    """
    row, layer = _find(name, _BY_NAME)
    if row is None:
        raise ValueError(f"{name!r} is no parameter of GPT2Model")
    return row.openai.replace("#", layer)


def _find(name: str, rows: Mapping[str, Row]) -> tuple[Row | None, str]:
    """Return the row of a name, or None, and its layer's number."""
    if "#" in name:
        return None, ""
    layer = _LAYER.match(name)
    if layer is None:
        return rows.get(name), ""
    return rows.get(f"{layer[1]}#{name[layer.end() :]}"), layer[2]


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a canonical name is of, or None."""
    _, layer = _find(name, _BY_NAME)
    return int(layer) if layer else None


def foreign_prefix(given: Iterable[str]) -> str | None:
    """Return what stands before a parameter's name in a file, where nothing is known."""
    for name in given:
        before, found, _ = name.rpartition("wte.weight")
        if found and before and canonical(name) != "wte.weight":
            return before
    return None
