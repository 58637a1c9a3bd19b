"""GPT-2 itself: from ids to hidden states and to the scores of the next id.

The legend of the shapes, here and everywhere:

    B  rows of a batch            C  n_embd, the width of the residual stream
    T  new positions              H  n_head
    S  all positions:             D  C / H, the width of a head
       cached ones, then new      V  vocab_size

Read from the bottom of a block to the top: `Attention` is the only place where
positions look at one another; `MLP` works on each alone; a `Block` adds both to the
residual stream; `GPT2Model` is embeddings, blocks and a last norm; `GPT2LMHeadModel`
turns the result into scores of the next id. The arithmetic is in ops.py, the parameters
in modules.py and parameters.py, files in pretrained.py, generation in generation/, and
the model with a second head in double_heads.py.

Follows openai/gpt-2 src/model.py and Hugging Face's later arguments.
"""

import math
from dataclasses import dataclass

import numpy as np

from .. import ops as reference_ops
from ..generation.mixin import GenerationMixin
from . import inputs
from .cache import KVCache
from .layers import Embedding, Head, LayerNorm, Linear, Module
from .outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from .pretrained import PreTrainedModel


@dataclass
class ForwardPass:
    """What one forward pass hands to every block besides the residual stream."""

    cache: KVCache | None  # takes the new keys and values, gives all
    key_mask: np.ndarray | None  # [B, S] bool: False hides a key from every query
    head_mask: list | None  # [H] a layer: factors of the attention weights
    generator: np.random.Generator | None  # for dropout; None drops nothing
    attentions: list | None  # collects [B, H, T, S] a layer, if asked for

    def dropout(self, x, probability):
        if self.generator is None:
            return x
        return reference_ops.dropout(x, probability, self.generator)


class Attention(Module):
    """Multi-head attention: every position takes from those before it."""

    def __init__(self, config, layer, ops):
        self.layer = layer
        pruned = config.pruned_heads.get(layer, [])
        self.heads = [head for head in range(config.n_head) if head not in pruned]
        width = len(self.heads) * (config.n_embd // config.n_head)  # C, if all are here
        self.c_attn = Linear(config.n_embd, 3 * width, ops)
        self.c_proj = Linear(width, config.n_embd, ops)
        self.ops = ops
        self.attn_pdrop = config.attn_pdrop
        self.resid_pdrop = config.resid_pdrop
        self.upcast = config.reorder_and_upcast_attn
        self.scale = 1.0
        if config.scale_attn_weights:
            self.scale /= math.sqrt(config.n_embd // config.n_head)
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1

    @property
    def n_head(self):
        return len(self.heads)

    def __call__(self, x, run):
        context = self.context(self.c_attn(x), run)  # [B, T, C]
        return run.dropout(self.c_proj(context), self.resid_pdrop)

    def context(self, qkv, run):
        """What each position takes from all: [B, T, 3C], c_attn's output -> [B, T, C]."""
        if self.needs_weights(run):
            return self.explicit_context(qkv, run)
        batch, new, width = qkv.shape
        if run.cache is None:
            room = batch, self.n_head, new, width // 3 // self.n_head
            (keys, values), start = np.empty((2, *room), qkv.dtype), 0
        else:
            keys, values, start = run.cache.room(self.layer, new)
        return self.ops.cached_attention(
            qkv, keys, values, start, run.key_mask, self.scale
        )

    def split_heads(self, qkv):
        """[B, T, 3C] -> queries, keys and values, [B, H, T, D] each."""
        batch, new, _ = qkv.shape
        return qkv.reshape(batch, new, 3, self.n_head, -1).transpose(2, 0, 3, 1, 4)

    def prune_heads(self, heads):
        """Remove heads, by their numbers in the whole model, as far as they are here.

        Their columns of c_attn go, of queries, keys and values, and rows of c_proj.
        """
        kept = [i for i, head in enumerate(self.heads) if head not in heads]
        rows = np.arange(self.c_proj.shapes["weight"][0])  # H blocks of D
        rows = rows.reshape(self.n_head, -1)[kept].reshape(-1)
        columns = np.arange(self.c_attn.shapes["bias"][0])  # 3 blocks of H blocks of D
        columns = columns.reshape(3, self.n_head, -1)[:, kept].reshape(-1)
        self.c_attn.replace(self.c_attn.weight[:, columns], self.c_attn.bias[columns])
        self.c_proj.replace(self.c_proj.weight[rows], self.c_proj.bias)
        self.heads = [self.heads[i] for i in kept]

    def needs_weights(self, run):
        """Say whether something must be done to the attention weights themselves."""
        return (
            run.attentions is not None
            or run.head_mask is not None
            or run.generator is not None
            or self.upcast
        )

    def explicit_context(self, qkv, run):
        """The same by way of the attention weights, which a fused kernel never holds."""
        batch, new, _ = qkv.shape
        q, k, v = self.split_heads(qkv)  # [B, H, T, D] each
        if run.cache is not None:
            k, v = run.cache.write(self.layer, k, v)  # [B, H, S, D] each
        if self.upcast:
            q, k = q.astype(np.float32), k.astype(np.float32)
        weights = reference_ops.attention_weights(q, k, run.key_mask, self.scale)
        weights = run.dropout(weights.astype(v.dtype, copy=False), self.attn_pdrop)
        if run.head_mask is not None:
            weights = weights * run.head_mask[self.layer][:, None, None]  # [B, H, T, S]
        if run.attentions is not None:
            run.attentions.append(weights)
        return (weights @ v).swapaxes(1, 2).reshape(batch, new, -1)  # [B, T, C]


class MLP(Module):
    """Two linear layers with the activation between them, on each position alone."""

    def __init__(self, config, ops):
        inner = config.n_inner if config.n_inner is not None else 4 * config.n_embd
        self.c_fc = Linear(config.n_embd, inner, ops)
        self.c_proj = Linear(inner, config.n_embd, ops)
        self.activation = getattr(ops, config.activation_function)
        self.has_gelu_new = config.activation_function == "gelu_new"
        self.resid_pdrop = config.resid_pdrop

    def __call__(self, x, run):
        hidden = self.activation(self.c_fc(x))  # [B, T, 4C]
        return run.dropout(self.c_proj(hidden), self.resid_pdrop)  # [B, T, C]


class Block(Module):
    """One transformer block: both sub-layers read a normed stream and add to it."""

    def __init__(self, config, layer, ops):
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, ops)
        self.attn = Attention(config, layer, ops)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, ops)
        self.mlp = MLP(config, ops)

    def __call__(self, x, run):
        joinable = self.mlp.has_gelu_new and run.generator is None
        return self.joined(x, run) if joinable else self.in_parts(x, run)

    def in_parts(self, resid_pre, run):
        resid_mid = resid_pre + self.attn(self.ln_1(resid_pre), run)
        return resid_mid + self.mlp(self.ln_2(resid_mid), run)  # [B, T, C]

    def joined(self, resid_pre, run):
        """The same without dropout, in larger ops."""
        attn, mlp = self.attn, self.mlp
        qkv = attn.c_attn.of_norm(resid_pre, self.ln_1)  # [B, T, 3C]
        context = attn.context(qkv, run)  # [B, T, C]
        resid_mid = attn.c_proj.added_to(resid_pre, context)
        hidden = mlp.c_fc.of_norm(resid_mid, self.ln_2, gelu=True)  # [B, T, 4C]
        return mlp.c_proj.added_to(resid_mid, hidden)


class GPT2Model(PreTrainedModel):
    """GPT-2 without a head: ids in, the last hidden states out."""

    def build(self):
        config, ops = self.config, self.ops
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.n_positions, config.n_embd)
        self.h = [Block(config, layer, ops) for layer in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon, ops)

    def forward(
        self,
        input_ids=None,
        past=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        head_mask=None,
        inputs_embeds=None,
        *,
        past_key_values=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        generator=None,
    ):
        """Compute the hidden states of T new positions, after those of the past.

        - input_ids [B, T] (int): or [B, choices, T]; more leading axes are folded into
          B and unfolded in the outputs.
        - past or past_key_values: what an earlier pass returned (a KVCache), or per
          layer (keys, values) [B, H, S - T, D]. It is never written to.
        - attention_mask [B, S] (0 or 1): 0 hides a position, such as padding, from all
          others; it covers the past too. What a hidden position itself gives is
          meaningless. Positions are counted without regard to it.
        - token_type_ids [B, T] or [1, T] (int): ids whose embeddings (in wte) are added.
        - position_ids [B, T] or [1, T] (int): by default those after the past.
        - head_mask [H] or [n_layer, H]: factors of the attention weights; 0 drops one.
          Where heads were pruned, a row for each layer, of as many as it still has.
        - inputs_embeds [B, T, C]: in place of input_ids.
        - use_cache, output_attentions, output_hidden_states, return_dict (bool): by
          default what the configuration says. return_dict=False gives a plain tuple.
        - generator (numpy.random.Generator): draws the dropout; needed in train mode.

        Returns BaseModelOutputWithPast. Raises ValueError, saying which and why, for
        ids outside the vocabulary, positions beyond n_positions, and shapes that do not
        fit one another.
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

        x = x + self.wpe(
            inputs.positions(position_ids, start, batch, new, config.n_positions)
        )
        if token_type_ids is not None:
            types = inputs.rows_of_ids(
                token_type_ids, "token_type_ids", config.vocab_size, batch, new
            )
            x = x + self.wte(types)
        run = ForwardPass(
            cache=None if past is None else past.extended(new),
            key_mask=inputs.key_mask(attention_mask, batch, start + new),
            head_mask=inputs.head_mask(head_mask, self.h, self.dtype),
            generator=self.dropout_generator(generator),
            attentions=[]
            if given_or(output_attentions, config.output_attentions)
            else None,
        )
        streams = self.residual_streams(run.dropout(x, config.embd_pdrop), run)

        def unfolded(arrays):  # [B, ...] -> the leading axes of the input
            return tuple(array.reshape(leading + array.shape[1:]) for array in arrays)

        if not given_or(output_hidden_states, config.output_hidden_states):
            streams = streams[-1:]
        streams = unfolded(streams)
        output = BaseModelOutputWithPast(
            last_hidden_state=streams[-1],
            past_key_values=run.cache if wants_cache else None,
            hidden_states=streams if len(streams) > 1 else None,
            attentions=None if run.attentions is None else unfolded(run.attentions),
        )
        return output.as_asked(given_or(return_dict, config.return_dict))

    def embed(self, input_ids, inputs_embeds):
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

    def residual_streams(self, x, run):
        """Return [what each block reads ..., ln_f of what the last one leaves]."""
        streams = []
        for block in self.h:
            streams.append(x)
            x = block(x, run)
        return [*streams, self.ln_f(x)]

    def cache_shapes(self, batch):
        """Return (B, H, D) of each layer's keys and values."""
        head = self.config.n_embd // self.config.n_head
        return [(batch, block.attn.n_head, head) for block in self.h]

    def checked_past(self, past, batch):
        if past is None:
            return None
        past = KVCache.of(past, self.dtype)
        inputs.past_shapes(past, self.cache_shapes(batch))
        return past

    def dropout_generator(self, generator):
        if not self.training:
            return None
        if generator is None:
            raise ValueError(
                "in train mode dropout needs generator=numpy.random.default_rng(seed); "
                "eval() is the mode for inference"
            )
        return generator


class GPT2LMHeadModel(PreTrainedModel, GenerationMixin):
    """GPT-2 with its language-modelling head: ids in, scores of the next id out."""

    def build(self):
        config = self.config
        self.transformer = GPT2Model(
            config, dtype=self.dtype, backend=self.backend, seed=None
        )
        self.lm_head = Head(config.n_embd, config.vocab_size, self.ops)

    def tied_parameters(self):
        tied = {"lm_head.weight": "transformer.wte.weight"}
        return tied if self.config.tie_word_embeddings else {}

    def tie_weights(self):
        """Make the head's weight the token embeddings' again, if config ties them."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.stored("weight")

    def forward(
        self,
        input_ids=None,
        past=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        head_mask=None,
        inputs_embeds=None,
        labels=None,
        *,
        past_key_values=None,
        logits_to_keep=0,
        return_dict=None,
        **options,
    ):
        """Compute the scores of the id that follows each of T positions.

        - labels [B, T] (int): the ids themselves (the shift by one is made inside: the
          scores at t are judged by the label at t + 1); -100 and -1 do not count.
        - logits_to_keep (int, or an array of positions): scores of the last n positions
          only (0: of all), which saves most of the head's work on a long prompt.
        - the others, also those that are taken by keyword only: see GPT2Model.forward.

        Returns CausalLMOutputWithPast; loss is the mean cross entropy in nats. Raises
        ValueError as GPT2Model.forward does, and for labels of another shape, outside
        the vocabulary, or together with logits_to_keep.
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
            **options,
        )
        logits = self.scores(base.last_hidden_state, logits_to_keep, labels)
        output = CausalLMOutputWithPast(
            loss=None if labels is None else next_id_loss(logits, labels),
            logits=logits,
            past_key_values=base.past_key_values,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
        return output.as_asked(given_or(return_dict, self.config.return_dict))

    def scores(self, hidden, logits_to_keep=0, labels=None):
        """Return the logits [..., T or fewer, V] of hidden states [..., T, C]."""
        kept = inputs.kept_positions(logits_to_keep, hidden.shape[-2])
        if labels is not None and not (isinstance(kept, slice) and kept.start == 0):
            raise ValueError(
                "labels need the logits of all positions: logits_to_keep=0"
            )
        return self.lm_head(hidden[..., kept, :])


def next_id_loss(logits, labels):
    """Cross entropy of the scores at each position against the label at the next."""
    labels = np.asarray(labels)
    if labels.shape != logits.shape[:-1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}; they must be "
            f"integers of the ids' shape, {logits.shape[:-1]}"
        )
    return reference_ops.cross_entropy(logits[..., :-1, :], labels[..., 1:])


def given_or(value, default):
    return default if value is None else value


def only_one(**names):
    """Return the value of an argument that has an older and a newer name."""
    given = [value for value in names.values() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(names)} are two names of one argument")
    return given[0] if given else None
