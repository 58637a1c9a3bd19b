"""Kept: what a forward pass leaves behind for the way back.

Of each block, in numbers a token: the residual stream at its input (C), c_attn (3 C), z
(C), resid_mid (C) and c_fc (4 C), 10 C together, and which elements dropout kept, as bools.
What is cheap to compute again from these (layer norms, activations, attention weights)
is not kept. With `recompute` it is C alone, and a generator a block: each block runs once
more when the way back comes to it.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from ..model.double_heads import SequenceSummary
from ..model.gpt2 import Block, ForwardPass, GPT2Model
from ..model.layers import Array, Module


class Kept:
    """The observer of a forward pass that keeps what the way back reads.

    Arrays are kept as they are, not copied, under the (module, name) that the pass shows
    them by.
    """

    joined = True  # ops may stay joined: what joined ops give is all that is wanted
    forward_pass: ForwardPass

    def __init__(self, base: GPT2Model, recompute: bool = False):
        self.base = base
        # Where blocks begin: the outputs of the steps before.
        self.starts: set[tuple[Module, str]] = {(base, "drop")}
        self.starts.update((block, "") for block in base.h)
        self.recompute = recompute
        self.arrays: dict[tuple[Module, str], np.ndarray] = {}
        self.generators: list[np.random.Generator | None] = []  # at each block's start
        self.wanted = self.starts | {(base, "drop.kept")}
        if not recompute:
            self.wanted.update(*map(inside, base.h))

    def begin(self, forward_pass: ForwardPass) -> None:
        """Take note of the masks and of what draws the dropout."""
        self.forward_pass = forward_pass

    def see(self, module: Module, name: str, array: Array) -> Array:
        """Keep what a step gave, if it is wanted."""
        if (module, name) in self.wanted:
            self.arrays[module, name] = np.asarray(array)
            if self.recompute and (module, name) in self.starts:
                self.generators.append(copy.deepcopy(self.forward_pass.generator))
        return array

    def pop(self, module: Module, name: str = "") -> np.ndarray | None:
        """Return what a step gave, and let go of it; None if the pass had no such step."""
        return self.arrays.pop((module, name), None)

    def take(self, module: Module, name: str = "") -> np.ndarray:
        """Return what a step gave, and let go of it."""
        return self.arrays.pop((module, name))

    def take_input(self, layer: int) -> np.ndarray:
        """Return the residual stream [B, T, C] before a block, or after the last one."""
        if layer == 0:
            return self.take(self.base, "drop")
        return self.take(self.base.h[layer - 1])

    def take_block(self, layer: int) -> np.ndarray:
        """Return a block's input. What is inside the block can be taken then."""
        x = self.take_input(layer)
        if self.recompute:
            block, again = self.base.h[layer], Kept(self.base)
            again.wanted = inside(block)
            generator = self.generators[layer]
            block(
                x,
                dataclasses.replace(
                    self.forward_pass, generator=generator, trace=again
                ),
            )
            self.arrays |= again.arrays
        return x


def inside_summary(head: SequenceSummary) -> set[tuple[Module, str]]:
    """Return the steps inside the multiple-choice head that its way back reads."""
    steps: set[tuple[Module, str]] = {
        (head, name) for name in ("first_kept", "selected", "last_kept")
    }
    return steps if head.summary is None else steps | {(head.summary, "")}


def inside(block: Block) -> set[tuple[Module, str]]:
    """Return the steps inside a block that its way back reads."""
    return {
        (block.attn.c_attn, ""),
        (block.attn, "weights.kept"),
        (block.attn, "z"),
        (block.attn.c_proj, "kept"),
        (block, "resid_mid"),
        (block.mlp.c_fc, ""),
        (block.mlp.c_proj, "kept"),
    }
