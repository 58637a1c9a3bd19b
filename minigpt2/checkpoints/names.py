"""What GPT-2's parameters are called: Hugging Face's names and OpenAI's.

Inside minigpt2 a parameter has the name that it has in Hugging Face's GPT2Model
(`h.0.attn.c_attn.weight`); a model with heads puts `transformer.` before it. This is
the only file that knows the others:

    here                       OpenAI's checkpoint       shape
    wte.weight                 model/wte                 [V, C]   token embeddings
    wpe.weight                 model/wpe                 [n_positions, C]
    h.0.ln_1.weight, .bias     model/h0/ln_1/g, /b       [C]
    h.0.attn.c_attn.weight     model/h0/attn/c_attn/w    [C, 3C]  OpenAI: [1, C, 3C]
    h.0.attn.c_attn.bias       model/h0/attn/c_attn/b    [3C]
    h.0.attn.c_proj...                                   [C, C], [C]
    h.0.ln_2...                                          [C]
    h.0.mlp.c_fc...                                      [C, 4C], [4C]
    h.0.mlp.c_proj...                                    [4C, C], [C]
    ln_f.weight, .bias         model/ln_f/g, /b          [C]
"""

import re

PREFIX = "transformer."
HEAD = "lm_head.weight"  # tied to wte.weight, unless the configuration unties it

_LAYER = r"(?:ln_1|attn/c_attn|attn/c_proj|ln_2|mlp/c_fc|mlp/c_proj)"
_OPENAI = re.compile(
    rf"model/(?:(?P<table>wte|wpe)|(?P<module>ln_f|h\d+/{_LAYER})/(?P<kind>[wgb]))"
)
_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # tf.train.Checkpoint's
# The causal mask and its constant, which old versions saved as if they were weights.
_BUFFER = re.compile(r"h\.\d+\.attn\.(?:bias|masked_bias)")
_HF = re.compile(
    r"(?:wte|wpe)\.weight|(?:ln_f|h\.\d+\.(?:ln_1|ln_2|attn\.c_attn|attn\.c_proj|"
    r"mlp\.c_fc|mlp\.c_proj))\.(?:weight|bias)"
)


def canonical(name):
    """Return the name without prefix that a file's tensor `name` has here, or None.

    None stands for what carries no weight: old versions' mask buffers. A name that is
    no parameter of GPT-2 (an optimizer's, a counter's, another head's) comes back as it
    is.
    """
    openai = _OPENAI.fullmatch(name.removesuffix(_OBJECT_SUFFIX))
    if openai:
        if openai["table"]:
            return f"{openai['table']}.weight"
        module = re.sub(r"^h(\d+)/", r"h.\1/", openai["module"]).replace("/", ".")
        return f"{module}.{'bias' if openai['kind'] == 'b' else 'weight'}"
    name = name.removeprefix(PREFIX)
    if _BUFFER.fullmatch(name):
        return None
    # TensorFlow 1's names for a layer norm's parameters, in very old files.
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))


def is_gpt2_parameter(name):
    """Say whether a canonical name is one of GPT2Model's, of whatever size."""
    return _HF.fullmatch(name) is not None


def openai_name(name):
    """Return OpenAI's name of the canonical `name`: the way back from `canonical`."""
    if name in ("wte.weight", "wpe.weight"):
        return f"model/{name.removesuffix('.weight')}"
    module, _, kind = name.removeprefix("h.").rpartition(".")
    path = "h" + module.replace(".", "/") if name.startswith("h.") else module
    norm = module.rpartition(".")[2].startswith("ln_")
    letter = "b" if kind == "bias" else "g" if norm else "w"
    return f"model/{path}/{letter}"


def without_leading_one(array):
    """Return OpenAI's [1, in, out] weight as [in, out]; anything else as it is.

    Only that axis goes: a real axis of size 1 (n_embd = 1) must stay.
    """
    shape = array.shape
    return array.reshape(shape[1:]) if len(shape) == 3 and shape[0] == 1 else array
