"""Their names and layouts, and ours.

Known are Hugging Face's module paths (and those of PyTorch hooks on them), what
transformers' models return (`hidden_states`, `attentions`, `logits`), TransformerLens's
cache and llm.c's activations; others need a mapping {their name: our name}, in which `{i}`
stands for a layer's number.

An array that has our shape is taken as it is. Otherwise it is read, if that gives our
shape, as one with the heads' axis behind the positions, with the heads side by side, flat,
without the batch's axis, with its axes in another order, or with a padded vocabulary. One
array of several steps is taken apart: the queries, keys and values, or all layers.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .golden import INPUTS
from .replay import Arrays

# TransformerLens's names in a block, and outside of them, and llm.c's (one array for all
# layers, or one a layer).
TRANSFORMER_LENS = {
    "ln1.hook_normalized": "ln_1",
    "attn.hook_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_attn_scores": "attn.masked",
    "attn.hook_pattern": "attn.weights",
    "attn.hook_z": "attn.z",
    "hook_attn_out": "attn.c_proj",
    "hook_resid_mid": "resid_mid",
    "ln2.hook_normalized": "ln_2",
    "mlp.hook_pre": "mlp.c_fc",
    "mlp.hook_post": "mlp.act",
    "hook_mlp_out": "mlp.c_proj",
    "hook_resid_post": "",
}
LLM_C = {
    "ln1": "ln_1",
    "qkv": "attn.c_attn",
    "preatt": "attn.masked",  # of which it has the lower triangle
    "att": "attn.weights",
    "atty": "attn.z",
    "attproj": "attn.c_proj",
    "residual2": "resid_mid",
    "ln2": "ln_2",
    "fch": "mlp.c_fc",
    "fch_gelu": "mlp.act",
    "fcproj": "mlp.c_proj",
    "residual3": "",
}
OUTSIDE = {
    "hook_embed": "wte",
    "hook_pos_embed": "wpe",
    "ln_final.hook_normalized": "ln_f",
    "encoded": "drop",
    "lnf": "ln_f",
    "logits": "lm_head",
    "last_hidden_state": "ln_f",
}
# Names of what holds queries, keys and values beside c_attn's own.
MERGED = ("attn.qkv", "attn.c_attn")


@dataclass
class Aligned:
    """Their arrays by our names, in our layout and float64.

    Attributes:
        arrays: {our name: array}.
        notes: which names are unknown, which shapes do not fit, what was rearranged.
        ids: the ids that they say they read.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ids: np.ndarray | None = None


def align(
    theirs: Mapping[str, Any],
    ours: Arrays,
    layers: int,
    names: Mapping[str, str] | None = None,
) -> Aligned:
    """Return what they have of the steps that ours are, by our names."""
    aligned = Aligned()
    unknown = []
    for name, value in theirs.items():
        if name.removeprefix(INPUTS) == "input_ids":
            aligned.ids = as_array(value).astype(np.int64)
            continue
        if name.startswith(INPUTS):
            continue  # of a golden: what its pass was given
        array = as_array(value)
        targets = list(named(name, array, layers, names or {}, ours))
        if not targets:
            unknown.append(name)
        for mine, part in targets:
            fitted, how = fit(mine, part, ours)
            if fitted is None:
                aligned.notes.append(
                    f"{name} has shape {list(part.shape)}, {mine} {list(ours[mine].shape)}"
                )
                continue
            aligned.arrays[mine] = fitted
            if how:
                aligned.notes.append(f"{name} was read {how}")
    if unknown:
        some = ", ".join(unknown[:4]) + (" ..." if len(unknown) > 4 else "")
        aligned.notes.append(f"{len(unknown)} names are of no step: {some}")
    return aligned


def as_array(value: Any) -> np.ndarray:
    """Return an array, or a tensor of torch, in float64."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, np.float64)


def named(
    name: str, array: np.ndarray, layers: int, names: Mapping[str, str], ours: Arrays
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (our name, array) of the steps that an array of theirs holds."""
    name = mapped(name, names)
    name = re.sub(r"^(?:GPT2\w+\.)?(?:model\.)?(?:transformer\.)?", "", name)
    name = re.sub(r"\.?_?outputs?(?:_0)?$", "", name)
    if name in OUTSIDE:
        name = OUTSIDE[name]
    if name in ours:
        yield name, array
        return
    for stacked in ("hidden_states", "attentions"):
        if name == stacked:  # [layers (and 1), ...]
            for i, part in enumerate(array):
                yield from named(f"{name}.{i}", part, layers, {}, ours)
    match = re.fullmatch(r"(hidden_states|attentions)[._\[](\d+)\]?", name)
    if match:
        kind, i = match[1], int(match[2])
        mine = f"h.{i}.attn.weights"
        if kind == "hidden_states":  # before each block, and ln_f of the last one's
            mine = "drop" if i == 0 else "ln_f" if i == layers else f"h.{i - 1}"
        if mine in ours:
            yield mine, array
        return
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if match:
        i = int(match[1])
        if match[2] == "hook_resid_pre":
            mine = f"h.{i - 1}" if i else "drop"
        else:
            mine = f"h.{i}.{TRANSFORMER_LENS.get(match[2], '?')}".removesuffix(".")
        if mine in ours:
            yield mine, array
        return
    match = re.fullmatch(r"(\w+?)(?:[._\[](\d+)\]?)?", name)
    if match and match[1] in LLM_C:
        numbered = {int(match[2]): array} if match[2] else {}
        if not match[2] and array.size % layers == 0:
            numbered = dict(enumerate(array.reshape(layers, -1)))
        for i, part in numbered.items():
            mine = f"h.{i}.{LLM_C[match[1]]}".removesuffix(".")
            if mine not in ours:
                continue
            if match[1] == "preatt":
                part = lower(part, ours[mine])
            if match[1] == "atty" and part.size == ours[mine].size:  # [B, T, C]
                b, h, t, d = ours[mine].shape
                part = part.reshape(b, t, h * d)
            yield mine, part
        return
    match = re.fullmatch(r"(h\.\d+\.)(attn\.\w+)", name)
    if match and match[2] in MERGED:
        yield match[1] + "attn.c_attn", array


def mapped(name: str, names: Mapping[str, str]) -> str:
    """Return the name that a mapping has for theirs; `{i}` stands for a number."""
    if name in names:
        return names[name]
    for theirs, mine in names.items():
        pattern = re.escape(theirs).replace(r"\{i\}", r"(\d+)")
        if "{i}" in theirs and (match := re.fullmatch(pattern, name)):
            return mine.replace("{i}", match[1])
    return name


def lower(part: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Return llm.c's scores with -inf above the diagonal, where it writes nothing."""
    if part.size != masked.size:
        return part
    seen = np.tri(masked.shape[-2], masked.shape[-1], dtype=np.bool)
    return np.where(seen, part.reshape(masked.shape), -np.inf)


def fit(name: str, array: np.ndarray, ours: Arrays) -> tuple[np.ndarray | None, str]:
    """Return an array in our layout, and how it was read; None if it does not fit."""
    target = ours[name]
    shape = target.shape
    ways = [
        (way, how) for way, how in layouts(array, shape) if way.shape == shape
    ]  # as it is, first
    if not ways:
        return None, ""
    if ways[0][0] is not array or array.ndim != 4 or shape[1] != shape[2]:
        return ways[0]
    # [B, T, H, D] cannot be told from [B, H, T, D] by T = H: take what is nearer.
    turned = array.swapaxes(1, 2)
    if not name.endswith(("q", "k", "v", "z")) or far(array, target) <= far(
        turned, target
    ):
        return array, ""
    return turned, "as [B, T, H, D]"


def far(array: np.ndarray, target: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(np.nan_to_num(np.abs(array - target), nan=np.inf).sum())


def layouts(
    array: np.ndarray, shape: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, str]]:
    """Yield what an array may mean where `shape` is expected; it may have another."""
    yield array, ""
    if array.size != math.prod(shape):
        vocabulary = len(shape) == 3 and array.shape[:-1] == shape[:-1]
        if vocabulary and array.shape[-1] > shape[-1]:  # llm.c pads it
            yield array[..., : shape[-1]], f"up to column {shape[-1]}"
        return
    squeezed = array.reshape([n for n in array.shape if n != 1])
    tight = tuple(n for n in shape if n != 1)
    if squeezed.shape == tight:
        yield array.reshape(shape), ""
    if array.ndim == 1:
        yield array.reshape(shape), ""
    if len(shape) == 4:
        b, h, t, d = shape
        if array.shape in ((b, t, h, d), (t, h, d)):
            yield array.reshape(b, t, h, d).swapaxes(1, 2), "as [B, T, H, D]"
        if array.shape in ((b, t, h * d), (t, h * d)):
            yield array.reshape(b, t, h, d).swapaxes(1, 2), ""
        if array.shape == (b * h, t, d):
            yield array.reshape(shape), "as [B H, T, D]"
    if len(shape) == 3:
        b, t, c = shape
        if array.ndim > 3 and array.shape[-2:] == (t, c):  # [B, choices, T, C]
            yield array.reshape(shape), ""
        if array.ndim > 3 and array.shape[:2] == (b, t):  # [B, T, 3, H, D]
            yield array.reshape(shape), "with its last axes merged"
        if array.ndim == 5 and array.shape[:2] == (3, b):  # [3, B, H, T, D]
            yield (
                np.moveaxis(array, (0, 2), (2, 3)).reshape(shape),
                "as [3, B, H, T, D]",
            )
        if array.ndim == 4 and array.shape[1] != t:  # [B, H, T, D]
            yield array.swapaxes(1, 2).reshape(shape), "as [B, H, T, D]"
        if array.shape == (b * t, c):
            yield array.reshape(shape), ""
    for axes in itertools.permutations(range(array.ndim)):
        turned = array.transpose(axes)
        if turned.shape == shape:
            yield turned, f"with its axes in the order {', '.join(map(str, axes))}"
        elif turned.shape == tight:
            order = ", ".join(map(str, axes))
            yield turned.reshape(shape), f"with its axes in the order {order}"
