"""GPT-2 on one page: ids in, logits of the next id out, and the greedy loop around it.

    python -m minigpt2.plain "To be, or not to be"

The page to read first. The parameters are a dict of arrays by Hugging Face's names, the
arithmetic is that of ops.py, and every id is computed from scratch. model/ computes the
same numbers for batches, with a cache, masks and options; tests hold the two together.

Shapes: T ids, C n_embd, H heads, D = C / H, V vocabulary.
Source: Radford et al. 2019; openai/gpt-2 src/model.py.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from . import hub, ops
from .checkpoints.layouts import gpt2_tensors
from .checkpoints.open import open_checkpoint
from .config import GPT2Config
from .tokenizer import GPT2Tokenizer


def gpt2(
    ids: Sequence[int], parameters: Mapping[str, np.ndarray], n_layer: int, n_head: int
) -> np.ndarray:
    """Return the logits [T, V] of the id that follows each of the ids [T]."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return ops.linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        gain, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        return ops.layer_norm(x, gain, bias)

    wte, wpe = parameters["wte.weight"], parameters["wpe.weight"]
    x = wte[ids] + wpe[: len(ids)]  # what each id means, and where it stands: [T, C]
    for i in range(n_layer):
        qkv = linear(f"h.{i}.attn.c_attn", norm(f"h.{i}.ln_1", x))  # [T, 3C]
        x = x + linear(f"h.{i}.attn.c_proj", attention(qkv, n_head))
        hidden = ops.gelu_new(linear(f"h.{i}.mlp.c_fc", norm(f"h.{i}.ln_2", x)))
        x = x + linear(f"h.{i}.mlp.c_proj", hidden)  # hidden: [T, 4C]
    return norm("ln_f", x) @ wte.T  # [T, V]: how like each id's embedding it is


def attention(qkv: np.ndarray, n_head: int) -> np.ndarray:
    """[T, 3C] -> [T, C]: each position takes from itself and those before it."""
    q, k, v = ops.split_heads(qkv, n_head)  # [H, T, D] each
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # [H, T, T]
    future = np.triu(np.ones(scores.shape[-2:], bool), k=1)
    scores = np.where(future, -np.inf, scores)  # the causal rule
    return ops.merge_heads(ops.softmax(scores) @ v)


def greedy(
    ids: Sequence[int],
    parameters: Mapping[str, np.ndarray],
    n_layer: int,
    n_head: int,
    count: int,
) -> Iterator[int]:
    """Yield `count` new ids, each the likeliest after all that stand before it."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(gpt2(ids, parameters, n_layer, n_head)[-1].argmax()))
        yield ids[-1]


def load(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the parameters in a model's folder, in float32."""
    tensors = gpt2_tensors(open_checkpoint(folder))
    return {name: np.asarray(array, np.float32) for name, array in tensors.items()}


if __name__ == "__main__":
    text = sys.argv[1] if len(sys.argv) > 1 else "To be, or not to be"
    folder = hub.model_folder(hub.EMBEDDED_MODEL)
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    config = GPT2Config.from_pretrained(folder)
    print(text, end="", flush=True)
    for id in greedy(
        tokenizer.encode(text), load(folder), config.n_layer, config.n_head, count=40
    ):
        print(tokenizer.decode([id]), end="", flush=True)
    print()
