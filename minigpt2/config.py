"""GPT2Config: the numbers that make a GPT-2, from and to dicts and JSON files.

`PretrainedConfig` is what any configuration does (dicts, files, equality); `GPT2Config`
adds GPT-2's fields. A field is declared once, in the class's body: name, type, default,
meaning, and what refuses a wrong value. Names are Hugging Face's; OpenAI's
`hparams.json` comes in by `GPT2Config.from_hparams`.
"""

import copy
import functools
import inspect
import json
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, overload

from . import hub
from .runtime.files import read_json, write_whole

END_OF_TEXT_ID = 50256  # <|endoftext|>, the last of GPT-2's 50,257 ids

PROBLEM_TYPES = (
    "regression",
    "single_label_classification",
    "multi_label_classification",
)

Fields = Mapping[str, Any]
Check = Callable[[str, Any], None]  # (name, value); raises ValueError, naming the field
T = TypeVar("T")
Config = TypeVar("Config", bound="PretrainedConfig")


# --- Fields ---


def option(default: T, help: str, check: Check | None = None) -> T:
    """Declare a field: its default, what it means, and what refuses a wrong value."""
    return field(default=default, metadata={"help": help, "check": check})


def positive(name: str, value: Any) -> None:
    """Refuse what is not a whole number above 0."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 0 < value < 2**31:  # as NumPy's sizes on any system
        raise ValueError(f"{name} must be a whole number above 0, not {value!r:.100}")


def positive_or_none(name: str, value: Any) -> None:
    """Refuse what is neither a whole number above 0 nor None."""
    if value is not None:
        positive(name, value)


def probability(name: str, value: Any) -> None:
    """Refuse what is not a number from 0 to 1."""
    if not isinstance(value, Real) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"{name} must lie in 0 to 1, not {value!r}")


def not_negative(name: str, value: Any) -> None:
    """Refuse what is not a finite number of 0 or more."""
    if not isinstance(value, Real) or not 0 <= value <= sys.float_info.max:  # type: ignore[operator]
        raise ValueError(f"{name} must be 0 or more, not {value!r}")


def flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false; None is false, as 0 is."""
    whole = isinstance(value, Integral) or type(value).__name__ == "bool"  # NumPy's
    if value is not None and not (whole and value in (0, 1)):
        raise ValueError(f"{name} must be true or false, not {value!r:.100}")


def ids(name: str, value: Any) -> None:
    """Refuse what is neither an id, nor a list of ids, nor None."""
    for each in value if isinstance(value, list | tuple) else [value]:
        if each is not None and (
            isinstance(each, bool) or not isinstance(each, Integral)
        ):
            raise ValueError(
                f"{name} must be a whole number, a list of them, or None, not "
                f"{value!r:.100}"
            )


def activation(name: str, value: Any) -> None:
    """Refuse what is not the name of an activation."""
    from .ops import ACTIVATIONS  # takes NumPy to import

    if not isinstance(value, str) or value not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"unknown {name} {value!r}; known are {known}")


def problem_type(name: str, value: Any) -> None:
    """Refuse what is no kind of problem that a classifier has a loss for."""
    if value not in PROBLEM_TYPES:
        known = ", ".join(map(repr, PROBLEM_TYPES))
        raise ValueError(f"{name} is {value!r:.100}; known are None, {known}")


def configuration(cls: type[Config]) -> type[Config]:
    """Have a dataclass of fields keep other keys too, check itself, and show its fields.

    The __init__ that @dataclass has made refuses what is no field. This one keeps it as
    an attribute, takes the other names in `attribute_map`, and in place of vocab_size
    the path of a JSON file, as pytorch-transformers did.
    """
    set_fields = cls.__init__
    names = {each.name for each in fields(cls)}

    @functools.wraps(set_fields)
    def __init__(self: Config, *args: Any, **kwargs: Any) -> None:
        kwargs = cls._by_own_names(kwargs)
        path = args[0] if args else kwargs.get("vocab_size")
        if isinstance(path, str | os.PathLike):
            kwargs.pop("vocab_size", None)
            args, kwargs = (), {**cls._by_own_names(read_json(path)), **kwargs}
        model_type = kwargs.pop("model_type", None) or self.model_type
        if model_type != self.model_type:
            raise ValueError(
                f"this is the configuration of a {model_type!r} model, and "
                f"{type(self).__name__} reads {self.model_type!r}"
            )
        others = {name: kwargs.pop(name) for name in list(kwargs) if name not in names}
        set_fields(self, *args, **kwargs)
        for name, value in others.items():
            if hasattr(cls, name):
                raise ValueError(f"{name} is a method here, and cannot be a field")
            setattr(self, name, value)
        self.check()

    signature = inspect.signature(set_fields)
    others = inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD)
    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), others]
    )
    cls.__init__ = __init__  # type: ignore[assignment]
    cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nArgs:\n{_explained(cls)}"
    return cls


def _explained(cls: type[Config]) -> str:
    """Return a paragraph for each field: its name, its meaning, its other name."""
    other_names = {own: other for other, own in cls.attribute_map.items()}
    paragraphs = []
    for each in sorted(fields(cls), key=lambda each: each.kw_only is True):
        text = f"{each.name}: {each.metadata['help']}"
        if each.name in other_names:
            text += f"; also named {other_names[each.name]}"
        paragraphs.append(
            textwrap.fill(text, 88, initial_indent=" " * 4, subsequent_indent=" " * 8)
        )
    return "\n".join(paragraphs)


@configuration
@dataclass(kw_only=True, repr=False, eq=False)
class PretrainedConfig:
    """A configuration: attributes, read from and written to dicts and JSON files.

    Unknown keys are kept as attributes, so a file written by another program survives
    being read and written here. Two are known, and not always there: id2label, {number:
    name} of a classifier's outputs, of which num_labels is the length, and label2id.
    """

    model_type: ClassVar[str] = ""
    attribute_map: ClassVar[dict[str, str]] = {}  # another name -> the field's own

    output_hidden_states: bool = option(False, "default of the models' argument", flag)
    output_attentions: bool = option(False, "default of the models' argument", flag)
    use_cache: bool = option(True, "default of the models' argument", flag)
    return_dict: bool = option(True, "default of the models' argument", flag)
    tie_word_embeddings: bool = option(
        True, "the head's weight is the embeddings'", flag
    )
    num_labels: int = option(2, "number of outputs of a classifier", positive)
    problem_type: str | None = option(
        None,
        "the loss of a classifier of sequences: 'regression', 'single_label_classification'"
        " or 'multi_label_classification'; None goes by the labels",
        problem_type,
    )
    pad_token_id: int | None = option(None, "id that fills short sequences up", ids)
    pruned_heads: dict[int, list[int]] = field(
        default_factory=dict,
        metadata={
            "help": "{layer: [head, ...]}, the heads that the model is made without, by "
            "their numbers in the whole one; layer -1 is the last"
        },
    )

    def check(self) -> None:
        """Raise ValueError for what can't be, naming the field."""
        for each in fields(self):
            check, value = each.metadata.get("check"), getattr(self, each.name)
            if check and not (value is None and each.default is None):
                check(each.name, value)
        if self.problem_type == "single_label_classification" and self.num_labels == 1:
            raise ValueError(
                "problem_type='single_label_classification' needs num_labels above 1"
            )
        pruned: dict[int, list[int]] = {}
        try:
            for layer, heads in (self.pruned_heads or {}).items():
                # (JSON has "0" for 0.)
                number = int(layer) if isinstance(layer, str) else index(layer)
                pruned.setdefault(number, []).extend(map(index, heads))
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise ValueError(
                "pruned_heads must be {layer: [head, ...]}, all of them whole numbers, "
                f"not {self.pruned_heads!r:.200}"
            ) from None
        self.pruned_heads = pruned

    def __getattr__(self, name: str) -> Any:  # only asked when all else has failed
        if name == "id2label":
            return {number: f"LABEL_{number}" for number in range(self.num_labels)}
        if name == "label2id":
            return {label: number for number, label in self.id2label.items()}
        own = type(self).attribute_map.get(name)
        if own is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, own)

    def __setattr__(self, name: str, value: Any) -> None:
        name = type(self).attribute_map.get(name, name)
        labels = vars(self).get("id2label")
        if name == "num_labels" and labels is not None and len(labels) != value:
            del self.id2label  # as in transformers: the numbers have their usual names
            vars(self).pop("label2id", None)
        elif name in ("id2label", "label2id") and value is None:
            vars(self).pop(name, None)
            return
        elif name == "id2label":
            value = numbered_labels(value)
            vars(self)["num_labels"] = len(value)
        super().__setattr__(name, value)

    @classmethod
    def _by_own_names(cls, fields: Fields) -> dict[str, Any]:
        return {cls.attribute_map.get(name, name): v for name, v in fields.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a configuration can change

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields in a new dict (a deep copy), with `model_type`."""
        return {**copy.deepcopy(self.__dict__), "model_type": self.model_type}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return `to_dict()` without what any configuration says if nothing is said.

        As in transformers, the fields that are this class's own stay, whatever they say.
        """
        usual, own = PretrainedConfig().to_dict(), type(self)().to_dict()
        return {
            name: value
            for name, value in self.to_dict().items()
            if name not in usual
            or value != usual[name]
            or value != own.get(name, value)
        }

    def to_json_string(self) -> str:
        """Return the fields as JSON: sorted, indented by 2, ending in a newline."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike) -> None:
        """Write `to_json_string()` to a file, whole or not at all.

        Raises:
            ValueError: it was changed to what can't be since it was made.
        """
        self.check()
        write_whole(json_file_path, self.to_json_string().encode("utf-8"))

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Write config.json into the folder, which is made if it isn't there."""
        self.check()
        os.makedirs(save_directory, exist_ok=True)
        self.to_json_file(Path(save_directory) / hub.CONFIG_NAME)

    @overload
    @classmethod
    def from_dict(
        cls,
        config_dict: Fields,
        return_unused_kwargs: Literal[False] = ...,
        **kwargs: Any,
    ) -> Self: ...
    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Fields, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...
    @classmethod
    def from_dict(
        cls, config_dict: Fields, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Make a configuration from a dict of fields; keywords override its fields.

        Returns:
            The configuration; with return_unused_kwargs=True, (configuration, unused),
            where unused are the keywords that name none of its fields.
        """
        kwargs = cls._by_own_names(kwargs)
        if "num_labels" in kwargs and "id2label" not in kwargs:
            # The labels of the dict stay if there are as many.
            named = config_dict.get("id2label") or {}
            if not hasattr(named, "__len__") or len(named) != kwargs["num_labels"]:
                drop = ("id2label", "label2id")
                config_dict = {n: v for n, v in config_dict.items() if n not in drop}
        if not return_unused_kwargs:
            return cls(**{**config_dict, **kwargs})
        known = {**vars(cls()), **config_dict, "id2label": None, "label2id": None}
        unused = {name: kwargs.pop(name) for name in list(kwargs) if name not in known}
        return cls(**{**config_dict, **kwargs}), unused

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike) -> Self:
        """Read a configuration from a JSON file."""
        return cls._of_file(json_file, read_json(json_file))

    @classmethod
    def _of_file(
        cls, path: str | os.PathLike, fields: Fields, *args: Any, **kwargs: Any
    ) -> Any:
        """Return what `from_dict` returns; its errors name the file."""
        try:
            for name in ("vocab_size", "vocab_size_or_config_json_file"):
                if isinstance(fields.get(name), str):  # else a path, as an argument is
                    positive(name, fields[name])
            return cls.from_dict(fields, *args, **kwargs)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        return_unused_kwargs: Literal[False] = ...,
        **kwargs: Any,
    ) -> Self: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        return_unused_kwargs: Any = False,
        **kwargs: Any,
    ) -> Any:
        """Read the configuration of a model folder or a model's name.

        Args:
            pretrained_model_name_or_path: a folder with config.json, OpenAI's
                hparams.json or nanoGPT's ckpt.pt, such a file itself, or a name that
                `minigpt2.hub` knows.
            return_unused_kwargs: as in `from_dict`.
            **kwargs: options of `minigpt2.hub`; others override fields.
        """
        path = hub.config_file(pretrained_model_name_or_path, **hub.options_of(kwargs))
        return cls._of_file(path, cls.read_fields(path), return_unused_kwargs, **kwargs)

    @classmethod
    def read_fields(cls, path: str | os.PathLike) -> dict[str, Any]:
        """Return the dict of fields that a configuration file holds."""
        return read_json(path)


def numbered_labels(id2label: Any) -> dict[int, str]:
    """Return {number: label} of an id2label, whose numbers JSON has as texts.

    Raises:
        ValueError: it is anything else.
    """
    try:
        labels = {
            int(number) if isinstance(number, str) else index(number): label
            for number, label in id2label.items()
        }
        if labels and all(isinstance(label, str) for label in labels.values()):
            return labels
    except (AttributeError, TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"id2label must be {{number: label}}, not {id2label!r:.100}")


HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")


def fields_of_hparams(hparams: Fields) -> dict[str, Any]:
    """Return GPT2Config's fields for a dict of OpenAI's hparams."""
    missing = set(HPARAMS) - set(hparams)
    if missing:
        raise ValueError(f"hparams lack {', '.join(sorted(missing))}")
    for name in HPARAMS:
        positive(name, hparams[name])
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


def besides_tensors(path: str | os.PathLike) -> dict[str, Any]:
    """Return what a file of torch.save holds beside its state dict."""
    from .checkpoints.torch_file import TorchFile  # takes NumPy to import

    return TorchFile(path).besides


# What nanoGPT's train.py saves as model_args -> fields.
MODEL_ARGS = {
    "vocab_size": "vocab_size",
    "block_size": "n_positions",
    "n_embd": "n_embd",
    "n_layer": "n_layer",
    "n_head": "n_head",
}


def fields_of_model_args(model_args: Any) -> dict[str, Any]:
    """Return GPT2Config's fields for nanoGPT's model_args.

    The activation is the exact GELU, as in its model.py since June 2023; before that it
    was gelu_new, of which no file says a word. Small vocabularies, such as one of
    characters, have no <|endoftext|>.
    """
    if not isinstance(model_args, dict) or not set(MODEL_ARGS) <= set(model_args):
        raise ValueError(
            f"there are no model_args with {', '.join(MODEL_ARGS)}, as nanoGPT's ckpt.pt "
            "has: put a config.json beside it, or give config="
        )
    if others := set(map(str, model_args)) - {*MODEL_ARGS, "bias", "dropout"}:
        raise ValueError(
            f"its model_args have {', '.join(sorted(others))}, which nanoGPT's do not: "
            "if it is a GPT-2 all the same, put a config.json beside it, or give config="
        )
    fields = {own: model_args[theirs] for theirs, own in MODEL_ARGS.items()}
    positive("vocab_size", fields["vocab_size"])
    fields |= {"n_ctx": model_args["block_size"], "activation_function": "gelu"}
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        fields[name] = model_args.get("dropout", 0.0)
    if fields["vocab_size"] <= END_OF_TEXT_ID:
        fields |= {"bos_token_id": None, "eos_token_id": None}
    return fields


@configuration
@dataclass(repr=False, eq=False)
class GPT2Config(PretrainedConfig):
    """The sizes and settings of a GPT-2.

    The first argument may also be the path of a JSON file, as in pytorch-transformers.
    Keywords that are no fields are kept as attributes. An impossible value is a
    ValueError that names the field; so is add_cross_attention=True, as GPT-2 here is a
    decoder alone.
    """

    model_type = "gpt2"
    attribute_map = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "vocab_size_or_config_json_file": "vocab_size",
    }

    vocab_size: int = option(50257, "number of ids, V", positive)
    n_positions: int = option(1024, "longest sequence", positive)
    n_ctx: int | None = option(
        1024, "older name; kept, but n_positions decides", positive_or_none
    )
    n_embd: int = option(768, "width of the residual stream, C", positive)
    n_layer: int = option(12, "number of blocks", positive)
    n_head: int = option(12, "heads of each block, H; divides n_embd", positive)
    n_inner: int | None = option(
        None, "width inside the MLP; None is 4 * n_embd", positive
    )
    activation_function: str = option(
        "gelu_new", "a name in ops.ACTIVATIONS, relu say", activation
    )
    resid_pdrop: float = option(
        0.1, "dropout, in training only, of what a sub-layer adds", probability
    )
    embd_pdrop: float = option(0.1, "the same of the embeddings", probability)
    attn_pdrop: float = option(0.1, "the same of attention weights", probability)
    layer_norm_epsilon: float = option(1e-5, "added to the variance", not_negative)
    initializer_range: float = option(
        0.02, "standard deviation of fresh parameters", not_negative
    )
    _: KW_ONLY
    scale_attn_weights: bool = option(True, "divide q k^T by sqrt(D)", flag)
    scale_attn_by_inverse_layer_idx: bool = option(
        False, "divide q k^T by (layer + 1) as well", flag
    )
    reorder_and_upcast_attn: bool = option(
        False,
        "q k^T and softmax in float32, whatever the model's dtype, as upstream does it: "
        "a float64 model then has float32 attention",
        flag,
    )
    bos_token_id: int = option(END_OF_TEXT_ID, "<|endoftext|>", ids)
    eos_token_id: int = option(END_OF_TEXT_ID, "<|endoftext|>", ids)
    summary_type: str = option(
        "cls_index", "where GPT2DoubleHeadsModel's second head looks"
    )
    summary_use_proj: bool = option(True, "that head has a linear layer", flag)
    summary_activation: str | None = option(None, "after that linear layer")
    summary_proj_to_labels: bool = option(
        True, "it has one output, a logit for each choice, not n_embd", flag
    )
    summary_first_dropout: float = option(
        0.1, "dropout before that linear layer", probability
    )

    @classmethod
    def from_hparams(cls, hparams: Fields | str | os.PathLike, **kwargs: Any) -> Self:
        """Make a configuration from OpenAI's hparams: a dict, or hparams.json's path.

        Its keys are n_vocab, n_ctx, n_embd, n_head and n_layer. <|endoftext|> is the
        last id of OpenAI's vocabularies, so bos_token_id and eos_token_id become
        n_vocab - 1. Keywords override.

        Raises:
            ValueError: if a key is missing.
        """
        if isinstance(hparams, str | os.PathLike):
            return cls._of_file(hparams, cls.read_fields(hparams), **kwargs)
        return cls.from_dict(fields_of_hparams(hparams), **kwargs)

    @classmethod
    def read_fields(cls, path: str | os.PathLike) -> dict[str, Any]:
        """Return the fields in a config.json, an hparams.json or nanoGPT's ckpt.pt."""
        saved_by_torch = Path(path).suffix in (".pt", ".pth")
        fields = besides_tensors(path) if saved_by_torch else read_json(path)
        try:
            if saved_by_torch:
                return fields_of_model_args(fields.get("model_args"))
            if "n_vocab" not in fields and Path(path).name != hub.HPARAMS_NAME:
                return fields
            return fields_of_hparams(fields)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def check(self) -> None:
        """Raise ValueError for what can't be; bring pruned_heads into order."""
        super().check()
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head})"
            )
        self.pruned_heads = self._checked_pruned_heads()
        if getattr(self, "add_cross_attention", False):
            raise ValueError(
                "add_cross_attention=True is not supported: no encoder here"
            )

    def _checked_pruned_heads(self) -> dict[int, list[int]]:
        """Return {layer: [head, ...]} with layers from 0, and heads once, in order."""
        pruned: dict[int, set[int]] = {}
        for layer, heads in self.pruned_heads.items():
            if not -self.n_layer <= layer < self.n_layer:
                raise ValueError(
                    f"pruned_heads has layer {layer}; there are {self.n_layer}"
                )
            pruned.setdefault(layer % self.n_layer, set()).update(heads)
        for layer, gone in pruned.items():
            if wrong := sorted(h for h in gone if not 0 <= h < self.n_head):
                raise ValueError(
                    f"pruned_heads has head {', '.join(map(str, wrong))} of layer "
                    f"{layer}; heads are numbered 0 to {self.n_head - 1}"
                )
            if len(gone) == self.n_head:
                raise ValueError(f"pruned_heads leaves layer {layer} without a head")
        return {layer: sorted(gone) for layer, gone in pruned.items() if gone}
