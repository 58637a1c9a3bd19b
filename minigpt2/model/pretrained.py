"""PreTrainedModel: what every model class can do, whatever it computes.

It is made from a configuration, loaded from a folder and saved to one. Its parameters by
name are in parameters.py, how they are set in loading.py, and how its shape is changed
in surgery.py; what GPT-2 computes is in gpt2.py, and what files look like inside in
checkpoints/.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt

from .. import hub
from ..checkpoints import CheckpointError, names
from ..checkpoints.open import open_checkpoint
from ..checkpoints.safetensors_file import save_safetensors
from ..checkpoints.tf_bundle import TFBundle
from ..config import GPT2Config
from ..quantization import files as quantized_files
from ..quantization.policy import check_weight_format, parameter_format
from . import backends
from .keywords import (
    LOADING,
    SAVING,
    automatic_dtype,
    overridable,
    size_in_bytes,
    take_foreign,
)
from .loading import (
    checked_tensors,
    in_format,
    naming_file,
    own_names,
    set_parameters,
)
from .parameters import ParameterTree, checked_dtype
from .surgery import SurgeryMixin

if TYPE_CHECKING:
    from .gpt2 import GPT2Model

CHECKPOINT_NAME = "model.safetensors"


class PreTrainedModel(SurgeryMixin, ParameterTree):
    """The base of the models: a configuration, a tree of parameters, and files.

    Calling a model is calling its `forward`. A model starts in eval mode, and no
    forward pass changes it, so one model may serve many threads.

    Args:
        config: the sizes and settings.
        dtype: float32 or float64, of parameters and of all that is computed.
        backend: "numpy", "numba" or "auto", the ops that the model is made of; what
            "auto" comes to, `backends.choose` says.
        seed: the parameters are drawn from it as `init_weights` says; with None they
            are left unset, to be loaded.

    Attributes:
        weights: the weight format, in which the large matrices are kept: "float32",
            which means in `dtype`, or less; see `from_pretrained` and `with_weights`.
    """

    config_class = GPT2Config
    base_model_prefix = "transformer"
    own_prefix = names.PREFIX  # what the base model's parameters' names begin with here
    optional_parameters: tuple[str, ...] = ()  # beginnings of what a file may lack

    def __init__(
        self,
        config: GPT2Config,
        *,
        dtype: npt.DTypeLike = np.float32,
        backend: str = "auto",
        seed: int | None = 0,
    ):
        _require_config(type(self), config)
        config.check()  # it may have been changed since it was made
        self.config = config
        self.dtype = checked_dtype(dtype)
        self.backend, self.ops = backends.choose(backend, config, self.dtype)
        self.training = False
        self.build()
        if seed is not None:
            self.init_weights(seed)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what this model computes."""
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __repr__(self) -> str:
        c = self.config
        summary = (
            f"{type(self).__name__}(n_layer={c.n_layer}, n_embd={c.n_embd}, "
            f"n_head={c.n_head}, vocab_size={c.vocab_size}, "
            f"n_positions={c.n_positions}, dtype={self.dtype}, backend={self.backend}"
            + (")" if self.weights == "float32" else f", weights={self.weights})")
        )
        return "\n".join([summary, *self.tree()[1:]])

    @property
    def base_model(self) -> GPT2Model:
        """The GPT2Model inside a model with a head; a GPT2Model itself."""
        return getattr(self, self.base_model_prefix, cast("GPT2Model", self))

    @property
    def vocab_size(self) -> int:
        """V, the number of ids."""
        return self.config.vocab_size

    # Files

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *,
        config: GPT2Config | str | os.PathLike | None = None,
        state_dict: Mapping[str, npt.ArrayLike] | None = None,
        from_tf: bool = False,
        use_safetensors: bool | None = None,
        output_loading_info: bool = False,
        dtype: npt.DTypeLike | None = None,
        backend: str = "auto",
        weights: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model from a folder, or by a name that `minigpt2.hub` knows.

        Args:
            pretrained_model_name_or_path: OpenAI's folder (hparams.json, model.ckpt.*),
                Hugging Face's (config.json, model.safetensors) or nanoGPT's (ckpt.pt),
                or the file with the parameters in it; "shakespeare-1m" is the small
                model that comes with the package. The format is found out. None: config
                and state_dict are all there is.
            config: in place of the folder's own; or a folder or name to read it from.
            state_dict: {name: array}, parameters in place of the folder's, under
                whichever names `load_tensors` takes.
            from_tf: read the folder's TensorFlow checkpoint even if there is another;
                the path may then also be the prefix of a checkpoint's files.
            use_safetensors: read the folder's safetensors (True), or its file of another
                format (False), and nothing else.
            output_loading_info: return (model, what `load_tensors` returns).
            dtype: as for the class itself, or "auto": float64 for a checkpoint of it,
                else float32. None is float32. Parameters of other dtypes are converted;
                those of float32 stay in the memory-mapped file. torch_dtype is its older
                name.
            backend: as for the class itself.
            weights: the weight format: "float32", "bfloat16", "int8" or "int4", by the
                formulas in `minigpt2.quantization`. The large matrices are quantized
                one by one while loading. None: as the folder was saved, which is float32
                for those of others. A quantized folder can be asked for in another
                format, too: what was rounded away is not in it any more. Quantized
                models compute in float32 only; with "float32" it is `dtype` that counts.
            kwargs: cache_dir, revision, local_files_only, force_download and token, see
                `minigpt2.hub`; generation_config, and options of `generate`; fields of
                the configuration, which they override. Options of transformers that
                cannot change a number (low_cpu_mem_usage, attn_implementation,
                device_map="cpu" and the like, see keywords.py) are passed over.

        Raises:
            OSError: there is no such folder or model.
            ImportError: that takes huggingface_hub, and it is not installed.
            CheckpointError: a file is damaged, does not fit the configuration, or is
                quantized by another program.
            TypeError: a keyword that nothing knows.
            ValueError: a quantized model in float64, or an option of transformers that
                asks for what is not done here.
        """
        where = hub.options_of(kwargs)
        take_foreign(kwargs, LOADING)
        older_dtype = kwargs.pop("torch_dtype", None)
        dtype = older_dtype if dtype is None else dtype
        generation = cls._options_of_generation(kwargs)
        known = overridable(cls.config_class) if config is None else set()
        if unknown := sorted(kwargs.keys() - known):
            raise TypeError(
                f"from_pretrained() got {', '.join(unknown)}: no option of its own, and "
                "no field of the configuration that it loads"
            )
        given, path = config, pretrained_model_name_or_path
        if path is None and (config is None or state_dict is None):
            raise ValueError("from_pretrained(None) takes a config and a state_dict")
        file, folder = _places(path, from_tf, where)
        if config is None:
            source = _config_source(file, folder)
            config = cls.config_class.from_pretrained(source, **kwargs)
        elif isinstance(config, (str, os.PathLike)):
            config = cls.config_class.from_pretrained(config, **where)
        _require_config(cls, config)
        assert isinstance(config, GPT2Config)
        if state_dict is None:
            refuse_other_quantization(config, file)
            if from_tf:
                state_dict = TFBundle(file)
            else:
                state_dict = open_checkpoint(file, safetensors=use_safetensors)
        with naming_file(state_dict):  # before anything is made
            tensors = checked_tensors(config, state_dict, cls.own_prefix)
        if config is not given:
            vars(config).pop("quantization_config", None)  # is about that file
        stored = quantized_files.weight_format_of(state_dict)
        weights = stored if weights is None else weights
        if isinstance(dtype, str) and dtype == "auto":
            quantized = weights != "float32"
            dtype = None if quantized else automatic_dtype(config, tensors)
        dtype = np.float32 if dtype is None else dtype
        model = cls(config, dtype=dtype, backend=backend, seed=None)
        model._choose_weights(weights)
        with backends.preparing(model.ops, model.dtype, weights):
            info = model.load_tensors(state_dict)
        model._load_generation_config(None if path is None else folder, generation)
        if info["missing_keys"]:
            warnings.warn(
                f"{'state_dict' if path is None else file} has no "
                f"{', '.join(info['missing_keys'])}: freshly drawn, and meaningless until "
                "trained",
                stacklevel=2,
            )
        if output_loading_info:  # (the return type is of the usual case)
            return model, info  # type: ignore[return-value]
        return model

    # What GenerationMixin overrides, of the models that have `generate`

    _generation_config: Any = None

    @classmethod
    def can_generate(cls) -> bool:
        """Say whether models of this class have `generate`."""
        return False

    @classmethod
    def _options_of_generation(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take options of `generate` out of the keywords of from_pretrained."""
        if kwargs.get("generation_config") is None:
            kwargs.pop("generation_config", None)
        return {}

    def _load_generation_config(
        self, folder: Path | None, options: dict[str, Any]
    ) -> None:
        """Read generation_config.json; options take the place of what it says."""

    def _options_of_model(self) -> Any:
        """Return the GenerationConfig to save."""
        return None

    def load_tensors(self, tensors: Mapping[str, Any]) -> dict[str, list[str]]:
        """Set the parameters from a file's tensors, under OpenAI's or whichever names.

        A base model's parameters fit a model with a head and the other way round: names
        may have the prefix `transformer.` or not. What is no parameter here (optimizer
        slots, counters, other heads) is passed over. A new head's parameters, where the
        file lacks them, stay as they are, or are drawn as `init_weights` says.

        Args:
            tensors: {name in the file: array}.

        Returns:
            {"missing_keys": [...], "unexpected_keys": [...], "error_msgs": []}: the new
            head's, and what was passed over.

        Raises:
            CheckpointError: any other parameter is missing, one is misshapen, or the
                file has layers that the model lacks. Nothing has been set then.
        """
        with naming_file(tensors):
            found, foreign = own_names(self, tensors, self.own_prefix)
            missing = set_parameters(self, found, optional=self.optional_parameters)
        return {"missing_keys": missing, "unexpected_keys": foreign, "error_msgs": []}

    def _choose_weights(self, weights: str) -> None:
        """Have the parameters, which are not set yet, kept in a weight format."""
        check_weight_format(weights, self.dtype)
        for _, module in self.named_modules():
            if isinstance(module, ParameterTree):
                module.weights = weights

    def with_weights(self, weights: str) -> Self:
        """Return a model with the same parameters, kept in another weight format.

        What is not changed is shared with this model, which stays as it is; the
        configuration is copied.

        Args:
            weights: as `from_pretrained` takes it.

        Raises:
            ValueError: another word, or a quantized model in float64.
        """
        config = copy.deepcopy(self.config)
        model = type(self)(config, dtype=self.dtype, backend=self.backend, seed=None)
        model._choose_weights(weights)
        model.train(self.training)
        model._generation_config = copy.deepcopy(self._generation_config)
        slots = self.parameter_slots()
        for name, (module, attribute) in model.own_slots().items():
            mine, _ = slots[name]
            weight_format = parameter_format(name, weights)
            if weight_format == parameter_format(name, self.weights):
                module.share(attribute, mine)
            else:
                value = in_format(weight_format, module, mine.stored(attribute))
                setattr(module, attribute, value)
        return model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        max_shard_size: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Write config.json and model.safetensors, as transformers reads and writes them.

        The folder is made if it isn't there; what it holds besides is left alone. Tied
        parameters are written once. Each file is written whole or not at all, the
        parameters first. `from_pretrained` reads them back, here and in transformers. A
        tokenizer is saved by its own `save_pretrained`.

        A quantized model is saved as it is, in a form that only minigpt2 reads (see
        quantization/files.py): `with_weights("float32")` gives one that others read.

        Args:
            save_directory: the folder.
            max_shard_size: as transformers takes it, "5GB" say. One file is written in
                any case: this says that it must not be larger.
            kwargs: options of transformers that change nothing here, such as
                safe_serialization=True.

        Raises:
            ValueError: the configuration or the generation_config was changed to what
                can't be, the file would be too large, or an option asks for what is not
                done here.
            TypeError: a keyword that nothing knows.
        """
        take_foreign(kwargs, SAVING)
        if kwargs:
            raise TypeError(f"save_pretrained() has no option {', '.join(kwargs)}")
        options = self._options_of_model()
        if options is not None:
            options.validate()  # it may have been changed
        self._check_config()
        tensors = quantized_files.TensorsToWrite(self.own_slots(), self.weights)
        if max_shard_size is not None:
            size = sum(array.nbytes for array in tensors.values())
            if size > size_in_bytes(max_shard_size):
                raise ValueError(
                    f"the parameters take {size} bytes, more than max_shard_size="
                    f"{max_shard_size!r}, and minigpt2 writes one file: leave it out"
                )
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_safetensors(
            folder / CHECKPOINT_NAME,
            tensors,
            metadata=quantized_files.metadata_of(self.weights),
        )
        config = copy.deepcopy(self.config)
        vars(config).pop("quantization_config", None)
        if self.weights != "float32":
            config.quantization_config = quantized_files.quantization_config(
                self.weights
            )
        config.architectures = [type(self).__name__]
        config.dtype = self.dtype.name
        vars(config).pop("torch_dtype", None)  # dtype's name before transformers 4.56
        config.save_pretrained(folder)
        if options is not None:
            options.save_pretrained(folder)

    def _check_config(self) -> None:
        """Raise ValueError if the configuration no longer describes this model."""
        self.config.check()
        slots = self.base_model.parameter_slots()
        own = {name: module.shapes[each] for name, (module, each) in slots.items()}
        if names.parameter_shapes(self.config) != own:
            raise ValueError(
                "the configuration was changed since the model was made, and describes "
                "a model of another shape: the folder could not be loaded"
            )


def _require_config(owner: type, config: object) -> None:
    """Raise TypeError for what is no GPT2Config."""
    if not isinstance(config, GPT2Config):
        raise TypeError(
            f"{owner.__name__} takes a GPT2Config, not a {type(config).__name__}; "
            "from_pretrained loads by name or folder"
        )


def _places(
    path: str | os.PathLike | None, from_tf: bool, where: hub.Options
) -> tuple[Path, Path]:
    """Return (what to open, the folder of all other files) of a folder, file or name."""
    if path is None:
        return Path(), Path()  # nothing is read
    file = Path(path)
    if file.is_file() or (from_tf and not file.is_dir()):  # the prefix of two files
        return file, file.parent
    folder = hub.model_folder(path, **where)
    return folder, folder


def _config_source(file: Path, folder: Path) -> Path:
    """Return where the configuration is: in the folder, or in nanoGPT's file itself."""
    beside = any((folder / n).is_file() for n in (hub.CONFIG_NAME, hub.HPARAMS_NAME))
    return file if file.suffix in (".pt", ".pth") and not beside else folder


def refuse_other_quantization(config: GPT2Config, folder: str | os.PathLike) -> None:
    """Raise CheckpointError if a folder is quantized by another program.

    Its matrices would be integers, whose scales nothing here would look for.
    """
    said = getattr(config, "quantization_config", None) or {}
    method = said.get("quant_method") if isinstance(said, dict) else said
    if said and method != quantized_files.FORMAT:
        raise CheckpointError(
            f"{folder} is quantized by {method!r}, which minigpt2 does not read: load "
            "the model that it was made from, with weights='int8' or the like"
        )


def load_tf_weights_in_gpt2(
    model: PreTrainedModel, gpt2_checkpoint_path: str | os.PathLike
) -> PreTrainedModel:
    """Load the parameters of a TensorFlow checkpoint into a model; return the model.

    global_step, optimizer slots and object graphs are passed over.

    Args:
        model: GPT2Model, GPT2LMHeadModel or another head's.
        gpt2_checkpoint_path: the folder, the prefix (.../model.ckpt), its .index file
            or the `checkpoint` file beside it.

    Raises:
        CheckpointError: the checkpoint is damaged, or a parameter missing or misshapen;
            the model is then as it was.
    """
    model.load_tensors(TFBundle(gpt2_checkpoint_path))
    return model
