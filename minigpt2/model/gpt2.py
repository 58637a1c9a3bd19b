"""GPT-2 itself: from ids to hidden states and to the logits of the next id.

The legend of the shapes, here and everywhere:

    B  rows of a batch            C  n_embd, the width of the residual stream
    T  new positions              H  n_head
    S  all positions:             D  C / H, the width of a head
       cached ones, then new      V  vocab_size

and in generation/ also R, the rows under way: B times the sequences or beams of each. A
letter that is not here (N, K, P, W) is explained where it stands.

Read from the bottom of a block to the top: `Attention` is the only place where
positions look at one another; `MLP` works on each alone; a `Block` is one after the
other, each adding to the residual stream; `GPT2Model` is embeddings, blocks and a last
norm; `GPT2LMHeadModel` turns the result into logits of the next id. plain.py has the
same on one page. The arithmetic is in ops.py, the layers that hold parameters in
layers.py, what a pass is given, remembers and returns in inputs.py, cache.py and
outputs.py, files in pretrained.py, and the model with a second head in double_heads.py.

Follows openai/gpt-2 src/model.py and Hugging Face's later arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops
from ..config import GPT2Config
from ..generation.mixin import GenerationMixin
from . import inputs
from .cache import KVCache
from .layers import (
    Activation,
    Embedding,
    Head,
    LayerNorm,
    Linear,
    Module,
    Observer,
    dropping,
    linear_add,
    norm_linear,
    seen,
)
from .outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from .pretrained import PreTrainedModel


@dataclass
class ForwardPass:
    """What one forward pass hands to every block besides the residual stream."""

    cache: KVCache | None  # what attention writes the new keys and values to
    key_mask: np.ndarray | None  # [B, S] bool: False hides a key from every query
    score_mask: (
        np.ndarray | None
    )  # [B, H or 1, T, S]: added, in place of the causal rule
    head_mask: list[np.ndarray] | None  # [H] a layer: factors of attention weights
    generator: np.random.Generator | None  # for dropout; None drops nothing
    attentions: list[np.ndarray] | None  # collects [B, H, T, S] a layer, if asked for
    trace: Observer | None = None  # looks at every step, and may replace what it gives

    def see(self, module: Module, name: str, array: np.ndarray) -> np.ndarray:
        """Show the trace, if there is one, what a module's step gave; see `seen`."""
        return seen(self.trace, module, name, array)

    def dropout(
        self, module: Module, name: str, probability: float
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a function that drops with this probability; None if nothing is."""
        return dropping(self.trace, module, name, probability, self.generator)

    def buffers(
        self, layer: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Return a layer's keys and values [B, H, capacity, D], and how many are there.

        shape [B, H, T, D]: that of the new ones, which are to be written behind them.
        """
        if self.cache is None:  # nobody reads on from here
            return np.empty(shape, dtype), np.empty(shape, dtype), 0
        return self.cache.buffers(layer, shape[2])


class Attention(Module):
    """Multi-head attention: every position takes from those before it."""

    def __init__(self, config: GPT2Config, layer: int, ops: ModuleType):
        self.layer = layer
        pruned = config.pruned_heads.get(layer, [])
        self.heads = [head for head in range(config.n_head) if head not in pruned]
        self.head_size = config.n_embd // config.n_head  # D
        width = len(self.heads) * self.head_size  # C, if no head is pruned
        self.c_attn = Linear(config.n_embd, 3 * width, ops)
        self.c_proj = Linear(width, config.n_embd, ops)
        self.ops = ops
        self.attn_pdrop = config.attn_pdrop
        self.resid_pdrop = config.resid_pdrop
        self.upcast = config.reorder_and_upcast_attn
        self.scale = 1.0
        if config.scale_attn_weights:
            self.scale /= math.sqrt(self.head_size)
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1

    @property
    def n_head(self) -> int:
        return len(self.heads)

    def __call__(
        self, x: np.ndarray, norm: LayerNorm, forward_pass: ForwardPass
    ) -> np.ndarray:
        """x + c_proj(z), where z is the attention of c_attn(norm(x))."""
        qkv = norm_linear(x, norm, self.c_attn, forward_pass)  # [B, T, 3C]
        batch, new, _ = qkv.shape
        keys, values, start = forward_pass.buffers(
            self.layer, (batch, self.n_head, new, self.head_size), qkv.dtype
        )
        if self.needs_weights(forward_pass):
            z = self.explicit_attention(qkv, keys, values, start, forward_pass)
        else:
            z = self.ops.cached_attention(
                qkv, keys, values, start, forward_pass.key_mask, self.scale
            )
            if forward_pass.trace is not None:
                parted = z.reshape(batch, new, self.n_head, -1).swapaxes(1, 2)
                z = ops.merge_heads(forward_pass.see(self, "z", parted))
        return linear_add(z, self.c_proj, x, forward_pass, self.resid_pdrop)

    def needs_weights(self, forward_pass: ForwardPass) -> bool:
        """Say whether something must be done to the attention weights themselves."""
        trace, generator = forward_pass.trace, forward_pass.generator
        return (
            forward_pass.attentions is not None
            or (trace is not None and not trace.joined)
            or forward_pass.score_mask is not None
            or forward_pass.head_mask is not None
            or (generator is not None and self.attn_pdrop > 0.0)
            or self.upcast
        )

    def explicit_attention(
        self,
        qkv: np.ndarray,
        keys: np.ndarray,
        values: np.ndarray,
        start: int,
        forward_pass: ForwardPass,
    ) -> np.ndarray:
        """ops.cached_attention by way of the attention weights, which no kernel holds."""
        end, see = start + qkv.shape[1], forward_pass.see
        q, k, v = ops.split_heads(qkv, self.n_head)  # [B, H, T, D] each
        q, k, v = see(self, "q", q), see(self, "k", k), see(self, "v", v)
        keys[:, :, start:end], values[:, :, start:end] = k, v
        k, v = keys[:, :, :end], values[:, :, :end]  # [B, H, S, D] each
        if self.upcast:
            q, k = q.astype(np.float32), k.astype(np.float32)
        scores = see(self, "scores", ops.attention_scores(q, k, self.scale))
        masked = ops.mask_scores(scores, forward_pass.key_mask, forward_pass.score_mask)
        weights = ops.softmax(see(self, "masked", masked)).astype(v.dtype, copy=False)
        drop = forward_pass.dropout(self, "weights.kept", self.attn_pdrop)
        if drop is not None:
            weights = drop(weights)
        if forward_pass.head_mask is not None:
            weights = weights * forward_pass.head_mask[self.layer][:, None, None]
        weights = see(self, "weights", weights)
        if forward_pass.attentions is not None:
            forward_pass.attentions.append(weights)  # [B, H, T, S]
        return ops.merge_heads(see(self, "z", weights @ v))  # [B, T, C]


class MLP(Module):
    """Two linear layers with the activation between them, on each position alone."""

    def __init__(self, config: GPT2Config, ops: ModuleType):
        inner = config.n_inner if config.n_inner is not None else 4 * config.n_embd
        self.c_fc = Linear(config.n_embd, inner, ops)
        self.act = Activation(config.activation_function, ops)
        self.c_proj = Linear(inner, config.n_embd, ops)
        self.resid_pdrop = config.resid_pdrop

    def __call__(
        self, x: np.ndarray, norm: LayerNorm, forward_pass: ForwardPass
    ) -> np.ndarray:
        """x + c_proj(act(c_fc(norm(x))))"""
        hidden = norm_linear(x, norm, self.c_fc, forward_pass, self.act)  # [B, T, 4C]
        return linear_add(hidden, self.c_proj, x, forward_pass, self.resid_pdrop)


class Block(Module):
    """One transformer block: attention, then an MLP.

    Both read the residual stream through a layer norm of their own, and add to it: each
    is given its norm and adds by itself, as a backend joins these with its matrices.
    """

    def __init__(self, config: GPT2Config, layer: int, ops: ModuleType):
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, ops)
        self.attn = Attention(config, layer, ops)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, ops)
        self.mlp = MLP(config, ops)

    def __call__(self, x: np.ndarray, forward_pass: ForwardPass) -> np.ndarray:
        x = self.attn(x, self.ln_1, forward_pass)  # x + attn(ln_1(x)), [B, T, C]
        x = forward_pass.see(self, "resid_mid", x)
        x = self.mlp(x, self.ln_2, forward_pass)  # x + mlp(ln_2(x))
        return forward_pass.see(self, "", x)


class GPT2Model(PreTrainedModel):
    """GPT-2 without a head: ids in, the last hidden states out."""

    own_prefix = ""

    def build(self) -> None:
        config = self.config
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.n_positions, config.n_embd)
        self.h = [Block(config, layer, self.ops) for layer in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon, self.ops)

    def forward(
        self,
        input_ids: npt.ArrayLike | None = None,
        past: Any = None,
        attention_mask: npt.ArrayLike | None = None,
        token_type_ids: npt.ArrayLike | None = None,
        position_ids: npt.ArrayLike | None = None,
        head_mask: npt.ArrayLike | None = None,
        inputs_embeds: npt.ArrayLike | None = None,
        *,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        generator: np.random.Generator | None = None,
        trace: Observer | None = None,
    ) -> BaseModelOutputWithPast | tuple:
        """Compute the hidden states of T new positions, after those of the past.

        Args:
            input_ids: ids [B, T], or [B, choices, T]; more leading axes are folded into
                B and unfolded in the outputs.
            past: what an earlier pass returned (a KVCache), or per layer (keys, values)
                [B, H, S - T, D]. It is never written to.
            attention_mask: 0 or 1 [B, S]; 0 hides a position, such as padding, from all
                others. It covers the past too. What a hidden position itself gives is
                meaningless. Positions are counted without regard to it. Or, in place of
                the causal rule, [B, H or 1, T, S]: bool (True: seen), or floats to add
                to the attention scores.
            token_type_ids: ids [B, T] or [1, T] whose embeddings (in wte) are added.
            position_ids: [B, T] or [1, T]; by default those after the past.
            head_mask: factors [H] or [n_layer, H] of the attention weights; 0 drops a
                head. Where heads were pruned, a row for each layer, of as many as it
                still has.
            inputs_embeds: [B, T, C], in place of input_ids.
            past_key_values: the later name of `past`.
            use_cache: return past_key_values. This and the next three default to what
                the configuration says.
            output_attentions: return the attention weights of each layer.
            output_hidden_states: return the residual stream before each block.
            return_dict: False gives a plain tuple.
            generator: draws the dropout; needed in train mode.
            trace: is shown every step; see minigpt2.trace.

        Raises:
            ValueError: ids outside the vocabulary, positions beyond n_positions, or
                shapes that do not fit one another; the message says which and why.
        """
        config = self.config
        x, leading = self.embed(input_ids, inputs_embeds)  # [B, T, C]
        batch, new, _ = x.shape
        past = only_one(past=past, past_key_values=past_key_values)
        past = self.checked_past(past, batch)
        start = 0 if past is None else past.length
        wants_cache = given_or(use_cache, config.use_cache)
        if past is None and wants_cache:
            past = KVCache.empty(self.cache_shapes(batch), new, self.dtype)
        wants_attentions = given_or(output_attentions, config.output_attentions)
        key_mask = score_mask = None
        if attention_mask is not None and np.ndim(attention_mask) == 4:
            score_mask = inputs.score_mask(
                attention_mask, batch, new, start + new, self.dtype
            )
        else:
            key_mask = inputs.key_mask(attention_mask, batch, start + new)
        forward_pass = ForwardPass(
            cache=None if past is None else past.extended(new),
            key_mask=key_mask,
            score_mask=score_mask,
            head_mask=inputs.head_mask(head_mask, self.h, self.dtype),
            generator=self.dropout_generator(generator),
            attentions=[] if wants_attentions else None,
            trace=trace,
        )
        see = forward_pass.see
        if trace is not None:
            trace.begin(forward_pass)

        positions = inputs.positions(
            position_ids, start, batch, new, config.n_positions
        )
        if input_ids is not None:
            x = see(self.wte, "", x)
        x = x + see(self.wpe, "", self.wpe(positions))
        if token_type_ids is not None:
            types = inputs.rows_of_ids(
                token_type_ids, "token_type_ids", config.vocab_size, batch, new
            )
            x = x + see(self.wte, "types", self.wte(types))
        drop = forward_pass.dropout(self, "drop.kept", config.embd_pdrop)
        x = see(self, "drop", x if drop is None else drop(x))
        hidden_states = self.hidden_states(x, forward_pass)

        def unfolded(arrays: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
            # [B, ...] -> the leading axes of the input
            return tuple(array.reshape(leading + array.shape[1:]) for array in arrays)

        if not given_or(output_hidden_states, config.output_hidden_states):
            hidden_states = hidden_states[-1:]
        states = unfolded(hidden_states)
        attentions = forward_pass.attentions
        output = BaseModelOutputWithPast(
            last_hidden_state=states[-1],
            past_key_values=forward_pass.cache if wants_cache else None,
            hidden_states=states if len(states) > 1 else None,
            attentions=None if attentions is None else unfolded(attentions),
        )
        return output.as_asked(given_or(return_dict, config.return_dict))

    def embed(
        self, input_ids: npt.ArrayLike | None, inputs_embeds: npt.ArrayLike | None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """Return the embeddings [B, T, C], and the leading axes folded into B."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        if input_ids is not None:
            ids = inputs.ids(input_ids, "input_ids", self.config.vocab_size)
            return self.wte(inputs.folded(ids)), ids.shape[:-1]
        embeds = np.asarray(inputs_embeds, self.dtype)
        if embeds.ndim < 2 or embeds.shape[-1] != self.config.n_embd or not embeds.size:
            raise ValueError(
                f"inputs_embeds has shape {embeds.shape}; it must be "
                f"(batch, positions, {self.config.n_embd})"
            )
        return embeds.reshape(-1, *embeds.shape[-2:]), embeds.shape[:-2]

    def hidden_states(
        self, x: np.ndarray, forward_pass: ForwardPass
    ) -> list[np.ndarray]:
        """Return [the residual stream before each block ..., ln_f of it after the last]."""
        states = []
        for block in self.h:
            states.append(x)
            x = block(x, forward_pass)
        return [*states, forward_pass.see(self.ln_f, "", self.ln_f(x))]

    def cache_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        """Return (B, H, D) of each layer's keys and values."""
        return [(batch, block.attn.n_head, block.attn.head_size) for block in self.h]

    def checked_past(self, past: Any, batch: int) -> KVCache | None:
        """Return a caller's past as a KVCache that fits this model and batch."""
        if past is None:
            return None
        past = KVCache.of(past, self.dtype)
        inputs.past_shapes(past, self.cache_shapes(batch))
        return past

    def dropout_generator(
        self, generator: np.random.Generator | None
    ) -> np.random.Generator | None:
        """Return what draws the dropout: nothing in eval mode."""
        if not self.training:
            return None
        if generator is None:
            raise ValueError(
                "in train mode dropout needs generator=numpy.random.default_rng(seed); "
                "eval() is the mode for inference"
            )
        return generator


class GPT2LMHeadModel(GenerationMixin, PreTrainedModel):
    """GPT-2 with its language-modelling head: ids in, logits of the next id out."""

    def build(self) -> None:
        config = self.config
        self.transformer = GPT2Model(
            config, dtype=self.dtype, backend=self.backend, seed=None
        )
        self.lm_head = Head(config.n_embd, config.vocab_size, self.ops)
        self.tie_weights()

    def tied_parameters(self) -> dict[str, str]:
        tied = {"lm_head.weight": "transformer.wte.weight"}
        return tied if self.config.tie_word_embeddings else {}

    def tie_weights(self) -> None:
        """Make the head's weight the token embeddings' own, if config ties them."""
        if self.config.tie_word_embeddings:
            self.lm_head.tied_to = (self.transformer.wte,)

    def forward(
        self,
        input_ids: npt.ArrayLike | None = None,
        past: Any = None,
        attention_mask: npt.ArrayLike | None = None,
        token_type_ids: npt.ArrayLike | None = None,
        position_ids: npt.ArrayLike | None = None,
        head_mask: npt.ArrayLike | None = None,
        inputs_embeds: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        *,
        past_key_values: Any = None,
        logits_to_keep: npt.ArrayLike = 0,
        return_dict: bool | None = None,
        trace: Observer | None = None,
        **options: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """Compute the logits of the id that follows each of T positions.

        Args:
            labels: ids [B, T], the input_ids themselves: the logits at t are judged by
                the label at t + 1. Labels of -100 and -1 do not count. The loss is the
                mean cross entropy in nats.
            logits_to_keep: how many of the last positions to compute logits of (0: all),
                or an array of positions. It saves most of the head's work on a long
                prompt.
            options: of GPT2Model.forward, as are all other arguments.

        Raises:
            ValueError: as GPT2Model.forward does, and for labels of another shape,
                outside the vocabulary, or together with logits_to_keep.
        """
        base = self.transformer.forward(
            input_ids,
            past,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            past_key_values=past_key_values,
            return_dict=True,
            trace=trace,
            **options,
        )
        assert isinstance(base, BaseModelOutputWithPast)
        logits = self.logits_of(base.last_hidden_state, logits_to_keep, labels)
        logits = seen(trace, self.lm_head, "", logits)
        loss = None
        if labels is not None:
            loss = seen(trace, self, "loss", next_id_loss(logits, labels))
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=base.past_key_values,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
        return output.as_asked(given_or(return_dict, self.config.return_dict))

    def logits_of(
        self, hidden: np.ndarray, logits_to_keep: Any = 0, labels: Any = None
    ) -> np.ndarray:
        """Return the logits [..., T or fewer, V] of hidden states [..., T, C]."""
        kept = inputs.kept_positions(logits_to_keep, hidden.shape[-2])
        if labels is not None and not (isinstance(kept, slice) and kept.start == 0):
            raise ValueError(
                "labels need the logits of all positions: logits_to_keep=0"
            )
        return self.lm_head(hidden[..., kept, :])


def next_id_loss(logits: np.ndarray, labels: npt.ArrayLike) -> np.floating:
    """Cross entropy of the logits at each position against the label at the next."""
    return ops.cross_entropy(logits[..., :-1, :], next_ids(labels, logits.shape[:-1]))


def next_ids(labels: npt.ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return the labels [..., T - 1] that positions of the shape [..., T] are judged by.

    The last position has none. ValueError for labels of another shape.
    """
    labels = np.asarray(labels)
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}; they must be "
            f"integers of the ids' shape, {shape}"
        )
    return labels[..., 1:]


def given_or(value: Any, default: Any) -> Any:
    """Return what the caller said, or the default for None."""
    return default if value is None else value


def only_one(**names: Any) -> Any:
    """Return the value of an argument that has an older and a newer name."""
    given = [value for value in names.values() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(names)} are two names of one argument")
    return given[0] if given else None
