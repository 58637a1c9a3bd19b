"""The steps of a forward pass, in the order of computation.

This is the one table of them: trace names what it records by it, and whoever explains,
compares or goes the way back reads it. A name is the path of the module whose output it
is, as Hugging Face's modules have it, or the module's path and a local name; `h.i` stands
for each block, and the names within it are written without that. A model with a head
puts `transformer.` before GPT2Model's steps.

Shapes have the letters of model/gpt2.py's legend. Inputs are names of steps, or of the
pass's arguments; `h.i-1` is the block before, or `drop` before the first. With a past,
the attention scores and z read the cached keys and values too.
"""

from __future__ import annotations

from typing import NamedTuple

from ..checkpoints.names import PREFIX


class Step(NamedTuple):
    """One step of a pass."""

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: str
    meaning: str


def _step(name: str, op: str, inputs: str, shape: str, meaning: str) -> Step:
    return Step(name, op, tuple(inputs.split()), shape, meaning)


STREAM = "the residual stream"
EMBEDDING = (
    _step("wte", "rows", "input_ids", "B T C", "what each id means"),
    _step("wpe", "rows", "position_ids", "B T C", "where it stands"),
    _step("wte.types", "rows", "token_type_ids", "B T C", "what kind it is of"),
    _step("drop", "sum", "wte wpe wte.types", "B T C", STREAM),
)
ATTENTION = (
    _step("ln_1", "layer_norm", "h.i-1", "B T C", "what attention reads"),
    _step("attn.c_attn", "linear", "ln_1", "B T 3C", "queries, keys and values"),
    _step("attn.q", "split_heads", "attn.c_attn", "B H T D", "what each looks for"),
    _step("attn.k", "split_heads", "attn.c_attn", "B H T D", "what each is found by"),
    _step("attn.v", "split_heads", "attn.c_attn", "B H T D", "what each gives"),
    _step("attn.scores", "attention_scores", "attn.q attn.k", "B H T S", "scaled fits"),
    _step("attn.masked", "mask_scores", "attn.scores", "B H T S", "-inf is not seen"),
    _step("attn.weights", "softmax", "attn.masked", "B H T S", "how much each takes"),
    _step("attn.z", "product", "attn.weights attn.v", "B H T D", "what each takes"),
    _step("attn.c_proj", "linear", "attn.z", "B T C", "what attention adds"),
    _step("resid_mid", "sum", "h.i-1 attn.c_proj", "B T C", STREAM),
)
MLP = (
    _step("ln_2", "layer_norm", "resid_mid", "B T C", "what the MLP reads"),
    _step("mlp.c_fc", "linear", "ln_2", "B T 4C", "before the activation"),
    _step("mlp.act", "activation", "mlp.c_fc", "B T 4C", "after it"),
    _step("mlp.c_proj", "linear", "mlp.act", "B T C", "what the MLP adds"),
    _step("", "sum", "resid_mid mlp.c_proj", "B T C", STREAM),  # the block's output
)
LAST = (_step("ln_f", "layer_norm", "h.n-1", "B T C", "what the heads read"),)
HEADS = (
    _step("lm_head", "linear", "ln_f", "B T V", "the logits"),
    _step("multiple_choice_head", "summary", "ln_f", "B", "a logit a choice"),
    _step("loss", "cross_entropy", "lm_head labels", "", "in nats"),
    _step("mc_loss", "cross_entropy", "multiple_choice_head mc_labels", "", "in nats"),
)


def steps_of(n_layer: int, with_head: bool) -> list[Step]:
    """Return the steps of a model in order, those among them that need an argument.

    Args:
        n_layer: how many blocks the model has.
        with_head: whether it is a GPT2Model with a head, whose names have the prefix.
    """
    steps, last = list(EMBEDDING), "drop"
    for layer in range(n_layer):
        block = f"h.{layer}"

        def named(name: str, block: str = block, last: str = last) -> str:
            return last if name == "h.i-1" else f"{block}.{name}".removesuffix(".")

        for step in (*ATTENTION, *MLP):
            inputs = tuple(map(named, step.inputs))
            steps.append(step._replace(name=named(step.name), inputs=inputs))
        last = block
    steps += (step._replace(inputs=(last,)) for step in LAST)
    if not with_head:
        return steps
    own = {step.name for step in steps}

    def prefixed(name: str) -> str:
        return PREFIX + name if name in own else name

    return [
        step._replace(
            name=prefixed(step.name), inputs=tuple(map(prefixed, step.inputs))
        )
        for step in (*steps, *HEADS)
    ]
