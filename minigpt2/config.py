"""GPT2Config: the numbers that make a GPT-2, from and to dicts and JSON files.

`PretrainedConfig` is what any configuration does (dicts, files, equality); `GPT2Config`
adds GPT-2's fields, their defaults and what is possible. Names are Hugging Face's;
OpenAI's `hparams.json` comes in by `GPT2Config.from_hparams`.
"""

import copy
import json
import math
import os
from numbers import Integral
from pathlib import Path

from .runtime.files import read_json, write_whole

CONFIG_NAME = "config.json"
HPARAMS_NAME = "hparams.json"
END_OF_TEXT_ID = 50256  # <|endoftext|>, the last of GPT-2's 50,257 ids
ACTIVATIONS = (  # as in ops.py, which takes NumPy to import
    *("gelu_new", "gelu", "relu", "silu", "swish", "tanh"),
    *("gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_python"),
    *("gelu_fast", "gelu_10", "quick_gelu", "relu2", "relu6", "leaky_relu"),
    *("sigmoid", "hardswish", "mish", "laplace", "linear"),
)
SIZE_FIELDS = ("vocab_size", "n_positions", "n_ctx", "n_embd", "n_layer", "n_head")

# The four sizes that OpenAI released, by Hugging Face's names and by OpenAI's, which
# count the parameters (at first wrongly: 117M and 345M are the same files).
GPT2_SIZES = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},  # 124,439,808 parameters
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},  # 354,823,168
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},  # 774,030,080
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},  # 1,557,611,200
}

# The models that have a name of their own on the Hugging Face Hub, and its addresses.
HUB_IDS = {name: f"openai-community/{name}" for name in GPT2_SIZES} | {
    "distilgpt2": "distilbert/distilgpt2"
}


def _addresses(file):
    return {
        name: f"https://huggingface.co/{id}/resolve/main/{file}"
        for name, id in HUB_IDS.items()
    }


GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP = _addresses("config.json")
GPT2_PRETRAINED_MODEL_ARCHIVE_MAP = _addresses("model.safetensors")
PRETRAINED_VOCAB_FILES_MAP = {
    "vocab_file": _addresses("vocab.json"),
    "merges_file": _addresses("merges.txt"),
}
PRETRAINED_POSITIONAL_EMBEDDINGS_SIZES = dict.fromkeys(HUB_IDS, 1024)


class PretrainedConfig:
    """A configuration: attributes, read from and written to dicts and JSON files.

    Unknown keys are kept as attributes, so a file written by another program survives
    being read and written here.

    Fields that every configuration has: output_hidden_states, output_attentions,
    use_cache and return_dict (the defaults of the arguments of the same names),
    tie_word_embeddings (True), pruned_heads ({layer: [head, ...]}), pad_token_id (None)
    and num_labels.
    """

    model_type = ""
    attribute_map: dict[str, str] = {}  # another name -> the field that it names

    def __init__(self, **kwargs):
        self.output_hidden_states = kwargs.pop("output_hidden_states", False)
        self.output_attentions = kwargs.pop("output_attentions", False)
        self.use_cache = kwargs.pop("use_cache", True)
        self.return_dict = kwargs.pop("return_dict", True)
        self.tie_word_embeddings = kwargs.pop("tie_word_embeddings", True)
        self.num_labels = kwargs.pop("num_labels", 2)
        self.pad_token_id = kwargs.pop("pad_token_id", None)
        self.pruned_heads = {}
        for layer, heads in (kwargs.pop("pruned_heads", None) or {}).items():
            # JSON turns the layers' numbers into strings.
            self.pruned_heads.setdefault(int(layer), []).extend(heads)
        model_type = kwargs.pop("model_type", self.model_type)
        if model_type != self.model_type:
            raise ValueError(
                f"this is the configuration of a {model_type!r} model, and "
                f"{type(self).__name__} reads {self.model_type!r}"
            )
        for name, value in kwargs.items():
            setattr(self, name, value)

    def __getattr__(self, name):  # only asked when ordinary look-up has failed
        target = type(self).attribute_map.get(name)
        if target is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, target)

    def __setattr__(self, name, value):
        super().__setattr__(type(self).attribute_map.get(name, name), value)

    def __eq__(self, other):
        return isinstance(other, type(self)) and self.to_dict() == other.to_dict()

    __hash__ = None  # a configuration can change

    def __repr__(self):
        return f"{type(self).__name__} {self.to_json_string()}"

    def to_dict(self):
        """Return all fields in a new dict (a deep copy), with `model_type`."""
        return {**copy.deepcopy(self.__dict__), "model_type": self.model_type}

    def to_json_string(self):
        """Return the fields as JSON: sorted, indented by 2, ending in a newline."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path):
        """Write `to_json_string()` to a file, whole or not at all."""
        write_whole(json_file_path, self.to_json_string().encode("utf-8"))

    def save_pretrained(self, save_directory):
        """Write config.json into the folder, which is made if it isn't there."""
        os.makedirs(save_directory, exist_ok=True)
        self.to_json_file(Path(save_directory) / CONFIG_NAME)

    @classmethod
    def from_dict(cls, config_dict, return_unused_kwargs=False, **kwargs):
        """Make a configuration from a dict of fields; keywords override its fields.

        With return_unused_kwargs=True, returns (config, unused): keywords that name no
        field of the configuration are handed back rather than kept.
        """
        kwargs = cls._plain_names(kwargs)
        if not return_unused_kwargs:
            return cls(**{**config_dict, **kwargs})
        known = {**vars(cls()), **config_dict}
        unused = {name: kwargs.pop(name) for name in list(kwargs) if name not in known}
        return cls(**{**config_dict, **kwargs}), unused

    @classmethod
    def _plain_names(cls, fields):
        return {cls.attribute_map.get(name, name): v for name, v in fields.items()}

    @classmethod
    def from_json_file(cls, json_file):
        """Read a configuration from a JSON file."""
        return cls.from_dict(read_json(json_file))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Read the configuration of a model folder or a model's name.

        pretrained_model_name_or_path: a folder with config.json or OpenAI's
        hparams.json, such a file itself, or a name that `minigpt2.hub` knows, whose
        options are taken too. Other keywords override fields; return_unused_kwargs as
        in `from_dict`.
        """
        from . import hub  # hub knows the names that are defined here

        path = hub.config_file(pretrained_model_name_or_path, **hub.options_of(kwargs))
        return cls.from_dict(cls.read_fields(path), **kwargs)

    @classmethod
    def read_fields(cls, path):
        """Return the dict of fields that a configuration file holds."""
        return read_json(path)


def fields_of_hparams(hparams):
    """Return GPT2Config's fields for a dict of OpenAI's hparams."""
    missing = {"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"} - set(hparams)
    if missing:
        raise ValueError(f"hparams lack {', '.join(sorted(missing))}")
    return {
        "vocab_size": hparams["n_vocab"],
        "n_positions": hparams["n_ctx"],
        "n_ctx": hparams["n_ctx"],
        "n_embd": hparams["n_embd"],
        "n_layer": hparams["n_layer"],
        "n_head": hparams["n_head"],
        "bos_token_id": hparams["n_vocab"] - 1,
        "eos_token_id": hparams["n_vocab"] - 1,
    }


class GPT2Config(PretrainedConfig):
    """The sizes and settings of a GPT-2.

    Parameters (with the names that other code knows them by):
    - vocab_size (int, 50257): number of ids, V.
    - n_positions (int, 1024; max_position_embeddings): longest sequence.
    - n_ctx (int, 1024): the same by an older name; kept, but n_positions decides.
    - n_embd (int, 768; hidden_size): width of the residual stream, C.
    - n_layer (int, 12; num_hidden_layers): number of blocks.
    - n_head (int, 12; num_attention_heads): heads of each block, H; divides n_embd.
    - n_inner (int or None): width inside the MLP; None means 4 * n_embd.
    - activation_function (str, "gelu_new"): or "gelu", "relu", "silu" (swish), "tanh".
    - resid_pdrop, embd_pdrop, attn_pdrop (float, 0.1): dropout, in training only, of
      what a sub-layer adds, of the embeddings, and of the attention weights.
    - layer_norm_epsilon (float, 1e-5), initializer_range (float, 0.02: the standard
      deviation of fresh weights).
    - scale_attn_weights (bool, True): divide scores by sqrt(D).
    - scale_attn_by_inverse_layer_idx (bool, False): divide them by (layer + 1) as well.
    - reorder_and_upcast_attn (bool, False): scores and softmax in float32, whatever the
      model's dtype, as upstream does it: a float64 model then has float32 attention.
    - bos_token_id, eos_token_id (int, 50256): <|endoftext|>.
    - summary_type ("cls_index"), summary_use_proj (True), summary_activation (None),
      summary_proj_to_labels (True), summary_first_dropout (0.1): the second head of
      GPT2DoubleHeadsModel.
    - num_labels (int, 1), and the fields of PretrainedConfig; other keys are kept.

    - pruned_heads ({layer: [head, ...]}, {}): heads that the model is made without,
      by their numbers in the whole one; layer -1 is the last.

    Raises ValueError for what can't be, naming the field: sizes below 1, n_embd not
    divisible by n_head, an unknown activation, a dropout outside 0 to 1, pruned_heads
    that there aren't or that leave a layer none, and add_cross_attention=True (GPT-2
    here is a decoder alone).

    The first argument may also be the path of a JSON file, as in pytorch-transformers.
    """

    model_type = "gpt2"
    attribute_map = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "vocab_size_or_config_json_file": "vocab_size",
    }

    def __init__(
        self,
        vocab_size=50257,
        n_positions=1024,
        n_ctx=1024,
        n_embd=768,
        n_layer=12,
        n_head=12,
        n_inner=None,
        activation_function="gelu_new",
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
        layer_norm_epsilon=1e-5,
        initializer_range=0.02,
        **kwargs,
    ):
        if isinstance(vocab_size, (str, os.PathLike)):
            self.__init__(**{**read_json(vocab_size), **kwargs})
            return
        self.vocab_size = vocab_size
        self.n_positions = n_positions
        self.n_ctx = n_ctx
        self.n_embd = n_embd
        self.n_layer = n_layer
        self.n_head = n_head
        self.n_inner = n_inner
        self.activation_function = activation_function
        self.resid_pdrop = resid_pdrop
        self.embd_pdrop = embd_pdrop
        self.attn_pdrop = attn_pdrop
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.scale_attn_weights = kwargs.pop("scale_attn_weights", True)
        self.scale_attn_by_inverse_layer_idx = kwargs.pop(
            "scale_attn_by_inverse_layer_idx", False
        )
        self.reorder_and_upcast_attn = kwargs.pop("reorder_and_upcast_attn", False)
        self.bos_token_id = kwargs.pop("bos_token_id", END_OF_TEXT_ID)
        self.eos_token_id = kwargs.pop("eos_token_id", END_OF_TEXT_ID)
        self.summary_type = kwargs.pop("summary_type", "cls_index")
        self.summary_use_proj = kwargs.pop("summary_use_proj", True)
        self.summary_activation = kwargs.pop("summary_activation", None)
        self.summary_proj_to_labels = kwargs.pop("summary_proj_to_labels", True)
        self.summary_first_dropout = kwargs.pop("summary_first_dropout", 0.1)
        super().__init__(**{"num_labels": 1, **self._plain_names(kwargs)})
        self.check()

    @classmethod
    def from_hparams(cls, hparams, **kwargs):
        """Make a configuration from OpenAI's hparams: a dict, or hparams.json's path.

        Its keys are n_vocab, n_ctx, n_embd, n_head and n_layer. <|endoftext|> is the
        last id of OpenAI's vocabularies, so bos_token_id and eos_token_id become
        n_vocab - 1. Keywords override. ValueError if a key is missing.
        """
        if isinstance(hparams, (str, os.PathLike)):
            hparams = read_json(hparams)
        return cls.from_dict(fields_of_hparams(hparams), **kwargs)

    @classmethod
    def read_fields(cls, path):
        """Return the fields that config.json or hparams.json at `path` holds."""
        fields = read_json(path)
        return fields_of_hparams(fields) if "n_vocab" in fields else fields

    def check(self):
        """Raise ValueError for what can't be; bring pruned_heads into order."""
        sizes = {name: getattr(self, name) for name in SIZE_FIELDS}
        if self.n_inner is not None:
            sizes["n_inner"] = self.n_inner
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(
                    f"{name} must be a whole number above 0, not {value!r}"
                )
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head})"
            )
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"{name} must lie in 0 to 1, not {getattr(self, name)}"
                )
        for name in ("layer_norm_epsilon", "initializer_range"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation_function {self.activation_function!r}; known are "
                + ", ".join(ACTIVATIONS)
            )
        self.pruned_heads = self._checked_pruned_heads()
        if getattr(self, "add_cross_attention", False):
            raise ValueError(
                "add_cross_attention=True is not supported: no encoder here"
            )

    def _checked_pruned_heads(self):
        """Return {layer: [head, ...]} with layers from 0, and heads once, in order."""
        pruned = {}
        for layer, heads in self.pruned_heads.items():
            layer = int(layer)  # JSON turns the layers' numbers into strings
            if not -self.n_layer <= layer < self.n_layer:
                raise ValueError(
                    f"pruned_heads has layer {layer}; there are {self.n_layer}"
                )
            pruned.setdefault(layer % self.n_layer, set()).update(heads)
        for layer, heads in pruned.items():
            if not heads <= set(range(self.n_head)):
                wrong = ", ".join(map(str, sorted(heads - set(range(self.n_head)))))
                raise ValueError(
                    f"pruned_heads has head {wrong} of layer {layer}; heads are "
                    f"numbered 0 to {self.n_head - 1}"
                )
            if len(heads) == self.n_head:
                raise ValueError(f"pruned_heads leaves layer {layer} without a head")
        return {layer: sorted(heads) for layer, heads in pruned.items() if heads}
