"""Changing the shape of a model: more ids or fewer, other embeddings, fewer heads."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import GPT2Config
from ..runtime.randomness import normal
from .layers import Embedding, Head
from .loading import set_parameters
from .parameters import ParameterTree

if TYPE_CHECKING:
    from .gpt2 import Attention, GPT2Model


class SurgeryMixin(ParameterTree):
    """What changes a model's shape. The models are made of it."""

    own_prefix: str  # what the names of the base model's parameters begin with here

    @property
    def base_model(self) -> GPT2Model:
        """The GPT2Model inside a model with a head; a GPT2Model itself."""
        raise NotImplementedError

    def tie_weights(self) -> None:
        """Make tied parameters one matrix, where a model ties any."""

    def get_input_embeddings(self) -> Embedding:
        """Return the layer whose `weight` [V, C] embeds the ids."""
        return self.base_model.wte

    def get_output_embeddings(self) -> Head | None:
        """Return the layer whose `weight` [V, C] gives the logits, or None (no head)."""
        return getattr(self, "lm_head", None)

    def set_input_embeddings(self, value: Any) -> None:
        """Take other embeddings: an array [V, C], or a layer that has one as `weight`.

        A head that is tied to them follows. ValueError for another shape:
        `resize_token_embeddings` changes V.
        """
        array = np.asarray(getattr(value, "weight", value))
        set_parameters(self, {f"{self.own_prefix}wte.weight": array}, optional="")

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        """Take another head's weight: an array [V, C], or a layer that has one.

        ValueError for another shape, for a model without a head, and if the head is
        tied to the embeddings: `set_input_embeddings` sets both.
        """
        head = self.get_output_embeddings()
        if head is None or self.config.tie_word_embeddings:
            why = "no head" if head is None else "its head tied to its embeddings"
            raise ValueError(f"this {type(self).__name__} has {why}")
        array = np.asarray(getattr(new_embeddings, "weight", new_embeddings))
        set_parameters(self, {"lm_head.weight": array}, optional="")

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> Embedding:
        """Change V, the number of ids, to new_num_tokens; return the input embeddings.

        The first min(old, new) rows stay. A new row, of the embeddings and of a head
        that is not tied to them, is

        - the mean of the old rows, with mean_resizing=True: a new id gets the average
          of all logits. transformers does so since 4.46, and adds noise of 1e-9 of the
          old rows' variance.
        - drawn as `init_weights` draws, with mean_resizing=False: the rule before. All
          of GPT-2's logits lie far below 0, and a row near 0 gives a logit near 0:
          until it is trained, such a model will prefer the new ids to all others.

        With new_num_tokens=None nothing changes, unless pad_to_multiple_of is given,
        to a multiple of which the number is rounded up. The configuration that the model
        was made from is left alone: the model gets one of its own. ValueError for a
        number below 1, and in a quantized model.
        """
        if pad_to_multiple_of is not None:
            if not isinstance(pad_to_multiple_of, int) or pad_to_multiple_of < 1:
                raise ValueError(
                    "pad_to_multiple_of must be a whole number above 0, not "
                    f"{pad_to_multiple_of!r}"
                )
            wanted = new_num_tokens or self.config.vocab_size
            new_num_tokens = wanted + -wanted % pad_to_multiple_of
        if new_num_tokens is None:
            return self.get_input_embeddings()
        self._refuse_quantized("resize_token_embeddings")
        config = self._changed_config(vocab_size=new_num_tokens)
        std = None if mean_resizing else self.config.initializer_range
        words = np.random.PCG64(0)
        own = [module for module, _ in self.own_slots().values()]
        for layer in (self.get_input_embeddings(), self.get_output_embeddings()):
            if layer in own:
                layer.weight = _resized(layer.weight, new_num_tokens, std, words)
            if layer is not None:
                layer.shapes = {"weight": layer.weight.shape}
        self.config = self.base_model.config = config
        return self.get_input_embeddings()

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Remove attention heads for good: {layer: [head, ...]}.

        Heads are numbered as in the whole model, whatever has been removed before;
        layer -1 is the last. What is removed is remembered in config.pruned_heads,
        which a saved folder keeps, and no forward pass can tell it from a head_mask of
        zeros. The configuration that the model was made from is left alone.

        ValueError, and nothing is removed, for layers or heads that there aren't, if a
        layer would be left without any, and in a quantized model.
        """
        self._refuse_quantized("prune_heads")
        pruned = copy.deepcopy(self.config.pruned_heads)
        for layer, heads in heads_to_prune.items():
            pruned.setdefault(int(layer), []).extend(heads)
        config = self._changed_config(pruned_heads=pruned)
        for layer, heads in config.pruned_heads.items():
            _prune(self.base_model.h[layer].attn, heads)
        self.config = self.base_model.config = config

    def _refuse_quantized(self, method: str) -> None:
        if self.weights != "float32":
            raise ValueError(
                f"{method}() takes a float32 model, and this one has {self.weights} "
                f"weights: change the model that it came from, then with_weights()"
            )

    def _changed_config(self, **fields: Any) -> GPT2Config:
        """Return a copy of the configuration with other fields, checked."""
        config = copy.deepcopy(self.config)
        for name, value in fields.items():
            setattr(config, name, value)
        config.check()
        return config


def _resized(
    rows: np.ndarray, count: int, std: float | None, words: np.random.BitGenerator
) -> np.ndarray:
    """Return `count` rows: the first of `rows` [V, C], then new ones.

    std: of the new rows' random numbers, drawn from `words`; None takes the mean row.
    """
    kept = rows[:count]
    shape = (count - len(kept), rows.shape[1])
    if std is None:
        fresh = np.empty(shape, rows.dtype)
        fresh[...] = rows.mean(axis=0, dtype=np.float64)
    else:
        fresh = normal(words, shape, std, rows.dtype)
    return np.concatenate([kept, fresh])


def _prune(attn: Attention, heads: Iterable[int]) -> None:
    """Remove heads, by their numbers in the whole model, as far as they are here.

    Their columns of c_attn go, of queries, keys and values, and rows of c_proj.
    """
    kept = [i for i, head in enumerate(attn.heads) if head not in heads]
    rows = np.arange(attn.c_proj.shapes["weight"][0])  # H blocks of D
    rows = rows.reshape(attn.n_head, -1)[kept].reshape(-1)
    columns = np.arange(attn.c_attn.shapes["bias"][0])  # 3 blocks of H blocks of D
    columns = columns.reshape(3, attn.n_head, -1)[:, kept].reshape(-1)
    attn.c_attn.replace(attn.c_attn.weight[:, columns], attn.c_attn.bias[columns])
    attn.c_proj.replace(attn.c_proj.weight[rows], attn.c_proj.bias)
    attn.heads = [attn.heads[i] for i in kept]
