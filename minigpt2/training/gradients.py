"""loss_and_grads: how the loss changes with every parameter, layer by layer in reverse.

A forward pass of model/ leaves a few arrays behind (kept.py). `WayBack` then walks through
the model from the loss to the embeddings. It has a method for each part of model/gpt2.py,
which begins with the part's forward line, and goes back through that line with the
functions of backward.py:

    loss                          dlogits: the probabilities, less 1 at what was right
    logits = ln_f(x) E^T          dE, and the first dx
    x = x + mlp(ln_2(x))          dx += what goes back through the MLP     } each block,
    x = x + attn(ln_1(x))         dx += what goes back through attention   } last first
    x = wte[ids] + wpe[...]       d_wte, to which the tied head has added dE; d_wpe

dx is the gradient of the residual stream: how much the loss would grow if that did,
there. A block's `x + ...` hands it down unchanged and adds the block's own part,
which is why so many blocks can be trained at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from .. import ops
from ..model import inputs
from ..model.double_heads import GPT2DoubleHeadsModel, choice_loss
from ..model.gpt2 import Attention, Block, GPT2LMHeadModel, GPT2Model, next_ids
from ..model.layers import Embedding, LayerNorm, Linear, Module
from ..model.outputs import BaseModelOutputWithPast
from ..model.pretrained import PreTrainedModel
from ..tracing.trace import matching, step_names
from . import backward
from .kept import Kept, inside_summary

LOGITS_AT_ONCE = 1 << 24  # the head and its loss go in chunks of so many numbers
INSIDE_ATTENTION = ("q", "k", "v", "scores", "masked", "weights")


def loss_and_grads(
    model: PreTrainedModel,
    input_ids: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    *,
    attention_mask: npt.ArrayLike | None = None,
    token_type_ids: npt.ArrayLike | None = None,
    position_ids: npt.ArrayLike | None = None,
    head_mask: npt.ArrayLike | None = None,
    inputs_embeds: npt.ArrayLike | None = None,
    mc_token_ids: npt.ArrayLike | None = None,
    mc_labels: npt.ArrayLike | None = None,
    output_grad: npt.ArrayLike | None = None,
    generator: np.random.Generator | None = None,
    wrt: str | Iterable[str] = (),
    parameters: str | Iterable[str] = "*",
    recompute: bool = False,
) -> tuple[np.floating, dict[str, np.ndarray]]:
    """Compute the loss, and its gradient by every parameter.

    >>> loss, grads = loss_and_grads(model, ids, labels=ids)
    >>> grads["transformer.h.0.attn.c_attn.weight"].shape
    (64, 192)

    The loss is that of the model's forward: the cross entropy of `labels`, with a second
    head that of `mc_labels`, or the sum of both. To follow another number back, give its
    gradient by the model's output (the last hidden states of a GPT2Model, the logits of
    the others) as output_grad; the loss then is sum(output * output_grad). That of one
    logit has 1 in its place and 0 elsewhere.

    Args:
        model: a GPT2Model, GPT2LMHeadModel or GPT2DoubleHeadsModel.
        labels: ids [B, T], the input_ids themselves; -100 and -1 do not count.
        attention_mask: of GPT2Model.forward, as are the next arguments.
        mc_token_ids: of GPT2DoubleHeadsModel.forward, as is mc_labels.
        output_grad: an array of the output's shape, in place of `labels`.
        generator: draws the dropout; needed in train mode.
        wrt: names of steps, or patterns, whose gradients are wanted too:
            "transformer.h.0", "h.*.attn.weights". tracing/steps.py lists them;
            `transformer.` may be left out.
        parameters: names of parameters, or patterns, whose gradients are wanted: all, or
            with () none, which saves a third of the work.
        recompute: keep the input of each block alone and compute the rest once more on
            the way back: a tenth of the memory, a third more work, and the same bits.

    Returns:
        The loss, and {name: gradient}: the parameters by their names in state_dict, tied
        ones once, and the steps of `wrt`.

    Raises:
        ValueError: nothing to go back from, a name that fits nothing, and as the model's
            forward does.
        TypeError: another model.
    """
    if type(model) not in (GPT2Model, GPT2LMHeadModel, GPT2DoubleHeadsModel):
        raise TypeError(
            "loss_and_grads takes a GPT2Model, GPT2LMHeadModel or GPT2DoubleHeadsModel, "
            f"not a {type(model).__name__}: for another head, compute its gradient by the "
            "last hidden states, and give that as output_grad with model.transformer"
        )
    goals = {"labels": labels, "mc_labels": mc_labels, "output_grad": output_grad}
    check_goals(model, {name for name, goal in goals.items() if goal is not None})
    base = model.base_model
    assert isinstance(base, GPT2Model)
    kept = Kept(base, recompute)
    way = WayBack(model, kept, wrt, parameters)
    output = base.forward(
        input_ids,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
        head_mask=head_mask,
        inputs_embeds=inputs_embeds,
        use_cache=False,
        output_attentions=False,
        output_hidden_states=False,
        return_dict=True,
        generator=generator,
        trace=kept,
    )
    assert isinstance(output, BaseModelOutputWithPast)
    hidden = output.last_hidden_state  # [..., T, C]

    loss = hidden.dtype.type(0.0)
    dhidden = np.zeros_like(hidden)
    if labels is not None:
        loss += way.language_model(hidden, labels, dhidden)
    if mc_labels is not None:
        loss += way.choices(hidden, mc_token_ids, mc_labels, dhidden)
    if output_grad is not None:
        loss += way.output(hidden, output_grad, dhidden)
    dx = way.last_norm(dhidden)
    for layer in reversed(range(len(base.h))):
        dx = way.block(layer, dx)
    way.embeddings(dx, input_ids, token_type_ids, position_ids)
    return loss, way.gradients()


def check_goals(model: PreTrainedModel, given: set[str]) -> None:
    """Raise ValueError unless there is something to go back from that the model has."""
    goals = ["output_grad"]
    if isinstance(model, GPT2LMHeadModel):
        goals.insert(0, "labels")
    if isinstance(model, GPT2DoubleHeadsModel):
        goals.insert(1, "mc_labels")
    if not given or not given <= set(goals):
        instead = f", and has no {' or '.join(given - set(goals))}" if given else ""
        raise ValueError(
            f"a {type(model).__name__} goes back from {' or '.join(goals)}{instead}"
        )
    if given >= {"labels", "output_grad"}:
        raise ValueError("labels and output_grad are two goals: give one of them")


class WayBack:
    """The parts of the way back through a model, and the gradients found so far."""

    def __init__(
        self,
        model: PreTrainedModel,
        kept: Kept,
        wrt: str | Iterable[str],
        parameters: str | Iterable[str],
    ):
        self.model, self.base, self.kept = model, kept.base, kept
        self.paths = {module: path for path, module in model.named_modules()}
        tied = model.tied_parameters()
        self.names = {
            slot: tied.get(name, name) for name, slot in model.parameter_slots().items()
        }
        self.parameters = chosen_parameters(model, parameters)
        self.asked = asked_steps(model, wrt)
        self.wrt = {name for names in self.asked.values() for name in names}
        self.grads: dict[str, np.ndarray] = {}

    # What is found

    def add(self, module: Module, attribute: str, gradient: np.ndarray) -> None:
        """Add to a parameter's gradient. (A tied one is met twice.)"""
        name = self.names[module, attribute]
        if name in self.grads:
            self.grads[name] += gradient
        else:
            self.grads[name] = gradient

    def wants(self, module: Module, attribute: str) -> bool:
        """Say whether a parameter's gradient is wanted."""
        return self.names[module, attribute] in self.parameters

    def see(self, module: Module, name: str, gradient: np.ndarray) -> None:
        """Take note of a step's gradient, if it is wanted."""
        if self.sees(module, name):
            path = (self.paths[module] + name).removesuffix(".")
            self.grads[path] = np.array(gradient)

    def sees(self, module: Module, *names: str) -> bool:
        """Say whether the gradient of one of a module's steps is wanted."""
        path = self.paths[module]
        return any((path + name).removesuffix(".") in self.wrt for name in names)

    def gradients(self) -> dict[str, np.ndarray]:
        """Return {name: gradient} of all parameters that are wanted, then of the steps."""
        for name, (module, attribute) in self.model.own_slots().items():
            if name in self.parameters and name not in self.grads:
                # It had no part in the loss, as a head that was not asked.
                self.grads[name] = np.zeros(module.shapes[attribute], self.model.dtype)
        for pattern, names in self.asked.items():
            if not any(name in self.grads for name in names):
                raise ValueError(f"this pass has no step {pattern!r} to go back to")
        order = [*self.model.own_slots(), *step_names(self.model)]
        return {name: self.grads[name] for name in order if name in self.grads}

    # From the loss to the last hidden states. Each adds to dhidden and returns its loss.

    def language_model(
        self, hidden: np.ndarray, labels: npt.ArrayLike, dhidden: np.ndarray
    ) -> float:
        """loss = cross_entropy(lm_head(hidden) at t, the label at t + 1)

        Only rows whose label counts have logits, and those of one chunk at a time.
        """
        model = self.model
        assert isinstance(model, GPT2LMHeadModel)
        width, vocabulary = model.config.n_embd, model.config.vocab_size
        labels = next_ids(labels, hidden.shape[:-1]).reshape(-1)
        rows = hidden[..., :-1, :].reshape(-1, width)
        drows = np.zeros_like(rows)
        dlogits = None
        if self.sees(model.lm_head, ""):
            dlogits = np.zeros((len(rows), vocabulary), rows.dtype)
        loss = 0.0
        counted = np.flatnonzero(~np.isin(labels, ops.IGNORED_LABELS))
        if not len(counted):
            loss = float("nan")
        size = max(1, LOGITS_AT_ONCE // vocabulary)
        for first in range(0, len(counted), size):
            chunk = counted[first : first + size]
            share = len(chunk) / len(counted)  # of the mean over all
            logits = model.lm_head(rows[chunk])  # [N, V]
            loss += share * float(ops.cross_entropy(logits, labels[chunk]))
            dchunk = backward.cross_entropy(share, logits, labels[chunk])
            if dlogits is not None:
                dlogits[chunk] = dchunk
            drows[chunk] = self.linear(model.lm_head, dchunk, rows[chunk])
        if dlogits is not None:
            whole = np.zeros((*hidden.shape[:-1], vocabulary), rows.dtype)
            whole[..., :-1, :] = dlogits.reshape(whole[..., :-1, :].shape)
            self.see(model.lm_head, "", whole)
        dhidden[..., :-1, :] += drows.reshape(hidden[..., :-1, :].shape)
        self.see(model, "loss", np.ones((), rows.dtype))
        return loss

    def choices(
        self,
        hidden: np.ndarray,
        mc_token_ids: npt.ArrayLike | None,
        mc_labels: npt.ArrayLike,
        dhidden: np.ndarray,
    ) -> float:
        """mc_loss = cross_entropy(multiple_choice_head(hidden), the right choice)

        logits = drop(activation(summary(drop(select(hidden))))): few numbers, which go
        back one step after another.
        """
        model = self.model
        assert isinstance(model, GPT2DoubleHeadsModel)
        head, generator = model.multiple_choice_head, self.kept.forward_pass.generator
        self.kept.wanted |= inside_summary(head)
        logits = model.choice_logits(hidden, mc_token_ids, generator, self.kept)
        loss = choice_loss(logits, mc_labels)
        self.see(model, "mc_loss", np.ones((), hidden.dtype))
        dy = backward.cross_entropy(1.0, logits, np.asarray(mc_labels))
        self.see(head, "", dy)
        selected = before = self.kept.take(head, "selected")  # [..., C]
        if head.summary is not None:
            before = self.kept.take(head.summary)  # [..., 1 or C]
        dy = self.dropout(
            head, "last_kept", dy.reshape(before.shape), head.last_dropout
        )
        if head.activation is not None:
            dy = backward.ACTIVATIONS[head.activation.name](dy, before)
        if head.summary is not None:
            dy = self.linear(head.summary, dy, selected)
        dy = self.dropout(head, "first_kept", dy, head.first_dropout)
        length = hidden.shape[-2]
        if head.type == "mean":
            dhidden += dy[..., None, :] / length
        else:  # one position of each sequence
            at = head.positions(mc_token_ids, hidden.shape[:-2], length)
            there = np.take_along_axis(dhidden, at, axis=-2)
            np.put_along_axis(dhidden, at, there + dy[..., None, :], axis=-2)
        return float(loss)

    def output(
        self, hidden: np.ndarray, output_grad: npt.ArrayLike, dhidden: np.ndarray
    ) -> float:
        """loss = sum(output * output_grad), output = lm_head(hidden) or hidden itself"""
        doutput = np.asarray(output_grad, hidden.dtype)
        head = self.model.lm_head if isinstance(self.model, GPT2LMHeadModel) else None
        output = hidden if head is None else head(hidden)
        if doutput.shape != output.shape:
            raise ValueError(
                f"output_grad has shape {doutput.shape}; the output's is {output.shape}"
            )
        if head is not None:
            self.see(head, "", doutput)
            dhidden += self.linear(head, doutput, hidden)
        else:
            dhidden += doutput
        return float(np.vdot(output, doutput))

    # From the last hidden states to the embeddings

    def last_norm(self, dhidden: np.ndarray) -> np.ndarray:
        """hidden = ln_f(x)"""
        base = self.base
        x = self.kept.take_input(len(base.h))  # [B, T, C]
        dy = dhidden.reshape(x.shape)
        self.see(base.ln_f, "", dy)
        return self.norm(base.ln_f, dy, x)

    def block(self, layer: int, dx: np.ndarray) -> np.ndarray:
        """x = resid_mid + mlp(ln_2(resid_mid)), where resid_mid = x + attn(ln_1(x))"""
        block = self.base.h[layer]
        x = self.kept.take_block(layer)  # [B, T, C]
        self.see(block, "", dx)
        dx = self.mlp(block, dx)
        self.see(block, "resid_mid", dx)
        return self.attention(block, x, dx)

    def mlp(self, block: Block, dx: np.ndarray) -> np.ndarray:
        """resid_mid + drop(c_proj(act(c_fc(ln_2(resid_mid)))))"""
        mlp = block.mlp
        resid_mid = self.kept.take(block, "resid_mid")
        c_fc = self.kept.take(mlp.c_fc)  # [B, T, 4C]
        dy = self.dropout(mlp.c_proj, "kept", dx, mlp.resid_pdrop)
        self.see(mlp.c_proj, "", dy)
        dy = self.linear(mlp.c_proj, dy, mlp.act(c_fc))
        self.see(mlp.act, "", dy)
        dy = backward.ACTIVATIONS[mlp.act.name](dy, c_fc)
        self.see(mlp.c_fc, "", dy)
        dy = self.linear(mlp.c_fc, dy, block.ln_2(resid_mid))
        self.see(block.ln_2, "", dy)
        return dx + self.norm(block.ln_2, dy, resid_mid)

    def attention(self, block: Block, x: np.ndarray, dx: np.ndarray) -> np.ndarray:
        """x + drop(c_proj(z)), where z is the attention of c_attn(ln_1(x))"""
        attn = block.attn
        qkv = self.kept.take(attn.c_attn)  # [B, T, 3C]
        z = ops.merge_heads(self.kept.take(attn, "z"))  # [B, T, C]
        dy = self.dropout(attn.c_proj, "kept", dx, attn.resid_pdrop)
        self.see(attn.c_proj, "", dy)
        dz = self.linear(attn.c_proj, dy, z)
        self.see(attn, "z", backward.merge_heads(dz, attn.n_head))
        dqkv = self.attention_itself(attn, dz, z, qkv)
        self.see(attn.c_attn, "", dqkv)
        dy = self.linear(attn.c_attn, dqkv, block.ln_1(x))
        self.see(block.ln_1, "", dy)
        return dx + self.norm(block.ln_1, dy, x)

    def attention_itself(
        self, attn: Attention, dz: np.ndarray, z: np.ndarray, qkv: np.ndarray
    ) -> np.ndarray:
        """z = (F softmax(mask(scale q k^T))) v; F: see `factors`

        In blocks of queries; or step by step, where a step's gradient is wanted or the
        pass has a rule of its own.
        """
        forward_pass, factors = self.kept.forward_pass, self.factors(attn, qkv)
        step_by_step = (
            forward_pass.score_mask is not None
            or attn.upcast
            or self.sees(attn, *INSIDE_ATTENTION)
        )
        key_mask = forward_pass.key_mask
        if not step_by_step:
            return backward.cached_attention(
                dz, z, qkv, attn.n_head, key_mask, attn.scale, factors
            )
        q, k, v = ops.split_heads(qkv, attn.n_head)  # [B, H, T, D] each
        if attn.upcast:
            q, k = q.astype(np.float32), k.astype(np.float32)
        masked = ops.mask_scores(
            ops.attention_scores(q, k, attn.scale), key_mask, forward_pass.score_mask
        )
        weights = ops.softmax(masked)  # [B, H, T, T]
        used = weights.astype(v.dtype, copy=False)
        if factors is not None:
            used = used * factors
        dz = backward.merge_heads(dz, attn.n_head)
        dv = used.swapaxes(-1, -2) @ dz
        dy = dz @ v.swapaxes(-1, -2)
        self.see(attn, "weights", dy)
        if factors is not None:
            dy *= factors
        dy = backward.softmax(dy.astype(weights.dtype, copy=False), weights)
        self.see(attn, "masked", dy)
        dy = backward.mask_scores(dy, masked)
        self.see(attn, "scores", dy)
        dq, dk = backward.attention_scores(dy, q, k, attn.scale)
        for name, gradient in zip("qkv", (dq, dk, dv)):
            self.see(attn, name, gradient.astype(v.dtype, copy=False))
        return backward.split_heads(dq, dk, dv).astype(v.dtype, copy=False)

    def factors(self, attn: Attention, qkv: np.ndarray) -> np.ndarray | None:
        """Return what multiplies the attention weights, [B, H, T, T]; None if nothing.

        The factor of each head, and dropout's 0 or 1 / (1 - p).
        """
        forward_pass = self.kept.forward_pass
        kept = self.kept.pop(attn, "weights.kept")
        if kept is None and forward_pass.head_mask is None:
            return None
        factors = np.ones((1, 1, 1, 1), qkv.dtype)
        if forward_pass.head_mask is not None:
            factors = forward_pass.head_mask[attn.layer][:, None, None]  # [H, 1, 1]
        if kept is not None:
            return backward.dropout(factors, kept, attn.attn_pdrop)
        batch, new, _ = qkv.shape
        return np.broadcast_to(factors, (batch, attn.n_head, new, new))

    def embeddings(
        self,
        dx: np.ndarray,
        input_ids: npt.ArrayLike | None,
        token_type_ids: npt.ArrayLike | None,
        position_ids: npt.ArrayLike | None,
    ) -> None:
        """x = drop(wte[ids] + wpe[positions] + wte[types])"""
        base, config = self.base, self.base.config
        batch, new, _ = dx.shape
        self.see(base, "drop", dx)
        dx = self.dropout(base, "drop.kept", dx, config.embd_pdrop)
        if input_ids is not None:
            ids = inputs.ids(input_ids, "input_ids", config.vocab_size)
            self.rows(base.wte, "", inputs.folded(ids), dx)
        else:  # inputs_embeds stand where these rows would
            self.see(base.wte, "", dx)
        positions = inputs.positions(position_ids, 0, batch, new, config.n_positions)
        self.rows(base.wpe, "", positions, dx)
        if token_type_ids is not None:
            types = inputs.rows_of_ids(
                token_type_ids, "token_type_ids", config.vocab_size, batch, new
            )
            self.rows(base.wte, "types", types, dx)

    # The layers that hold parameters

    def rows(
        self, table: Embedding, name: str, ids: np.ndarray, dy: np.ndarray
    ) -> None:
        """y = table[ids], for ids [B, T], or [1, T] in all rows alike"""
        if len(ids) < len(dy):
            dy = dy.sum(axis=0, keepdims=True)
        self.see(table, name, dy)
        if self.wants(table, "weight"):
            full = self.names[table, "weight"]
            if full not in self.grads:
                self.grads[full] = np.zeros(table.shapes["weight"], dy.dtype)
            found, gradients = backward.embedding(dy, ids)
            self.grads[full][found] += gradients

    def linear(self, layer: Linear, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        """y = x W + b, for a `weight` that is W, or W^T"""
        transposed = layer.weight_is_rows
        if self.wants(layer, "weight"):
            pair = (x, dy) if transposed else (dy, x)
            self.add(layer, "weight", backward.linear_weight(*pair))
        if layer.bias is not None and self.wants(layer, "bias"):
            self.add(layer, "bias", backward.linear_bias(dy))
        weight = layer.weight
        return backward.linear_input(dy, weight.T if transposed else weight)

    def norm(self, layer: LayerNorm, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        """y = layer_norm(x)"""
        dx, dweight, dbias = backward.layer_norm(dy, x, layer.weight, layer.eps)
        if self.wants(layer, "weight"):
            self.add(layer, "weight", dweight)
        if self.wants(layer, "bias"):
            self.add(layer, "bias", dbias)
        return dx

    def dropout(
        self, module: Module, name: str, dy: np.ndarray, probability: float
    ) -> np.ndarray:
        """y = drop(x), or x where nothing was dropped"""
        kept = self.kept.pop(module, name)
        return dy if kept is None else backward.dropout(dy, kept, probability)


def chosen_parameters(
    model: PreTrainedModel, patterns: str | Iterable[str]
) -> set[str]:
    """Return the names of the parameters that patterns fit, tied ones by their own."""
    known, tied = list(model.parameter_slots()), model.tied_parameters()
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = [n for n in known if fnmatchcase(n, pattern)]
        if not names:
            raise ValueError(f"the model has no parameter {pattern!r}")
        found.update(tied.get(name, name) for name in names)
    return found


def asked_steps(
    model: PreTrainedModel, patterns: str | Iterable[str]
) -> dict[str, list[str]]:
    """Return {pattern: the names of the steps that it fits}."""
    known = step_names(model)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return {pattern: matching(pattern, known) for pattern in patterns}
