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
from .loading import in_format, own_names, set_parameters
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
    optional_parameters: tuple[str, ...] = ()  # beginnings of what a file may lack

    def __init__(
        self,
        config: GPT2Config,
        *,
        dtype: npt.DTypeLike = np.float32,
        backend: str = "auto",
        seed: int | None = 0,
    ):
        if not isinstance(config, GPT2Config):
            raise TypeError(
                f"{type(self).__name__} takes a GPT2Config, not a "
                f"{type(config).__name__}; from_pretrained loads by name or folder"
            )
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

    @property
    def own_prefix(self) -> str:
        """What the names of the base model's parameters begin with here."""
        return "" if self.base_model is self else names.PREFIX

    # Files

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        config: GPT2Config | str | os.PathLike | None = None,
        state_dict: Mapping[str, npt.ArrayLike] | None = None,
        from_tf: bool = False,
        output_loading_info: bool = False,
        dtype: npt.DTypeLike = np.float32,
        backend: str = "auto",
        weights: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model from a folder, or by a name that `minigpt2.hub` knows.

        Args:
            pretrained_model_name_or_path: OpenAI's folder (hparams.json, model.ckpt.*)
                or Hugging Face's (config.json, model.safetensors); "shakespeare-1m" is
                the small model that comes with the package. The format is found out.
            config: in place of the folder's own; or a folder or name to read it from.
            state_dict: {name: array}, parameters in place of the folder's, under
                whichever names `load_tensors` takes.
            from_tf: read the folder's TensorFlow checkpoint even if there is another;
                the path may then also be that of the model.ckpt.index file.
            output_loading_info: return (model, what `load_tensors` returns).
            dtype: as for the class itself. Parameters of other dtypes are converted;
                those of float32 stay in the memory-mapped file.
            backend: as for the class itself.
            weights: the weight format: "float32", "bfloat16", "int8" or "int4", by the
                formulas in `minigpt2.quantization`. The large matrices are quantized
                one by one while loading. None: as the folder was saved, which is float32
                for those of others. A quantized folder can be asked for in another
                format, too: what was rounded away is not in it any more. Quantized
                models compute in float32 only; with "float32" it is `dtype` that counts.
            kwargs: cache_dir, revision, local_files_only, force_download and token, see
                `minigpt2.hub`; others override fields of the configuration.

        Raises:
            OSError: there is no such folder or model.
            ImportError: that takes huggingface_hub, and it is not installed.
            CheckpointError: a file is damaged, does not fit the configuration, or is
                quantized by another program.
            TypeError: a keyword that nothing knows.
            ValueError: a quantized model in float64.
        """
        where = hub.options_of(kwargs)
        path = pretrained_model_name_or_path
        if from_tf and not Path(path).is_dir():
            folder = Path(path).parent
        else:
            folder = path = hub.model_folder(path, **where)
        given = config is not None and not isinstance(config, (str, os.PathLike))
        generation = cls._options_of_generation(kwargs)
        if config is None:
            config, kwargs = cls.config_class.from_pretrained(
                folder, return_unused_kwargs=True, **kwargs
            )
        elif isinstance(config, (str, os.PathLike)):
            config = cls.config_class.from_pretrained(config, **where)
        if kwargs:
            raise TypeError(
                f"from_pretrained() got {', '.join(kwargs)}: no option of its own, and "
                "no field of the configuration that it loads"
            )
        if state_dict is None:
            refuse_other_quantization(config, folder)
            state_dict = TFBundle(path) if from_tf else open_checkpoint(folder)
        if config.n_layer > len(state_dict):  # before that many are made
            raise CheckpointError(
                f"{folder}: the configuration's n_layer is {config.n_layer}, and the "
                f"checkpoint has only {len(state_dict)} tensors"
            )
        if not given:
            vars(config).pop("quantization_config", None)  # is about that file
        stored = quantized_files.weight_format_of(state_dict)
        weights = stored if weights is None else weights
        model = cls(config, dtype=dtype, backend=backend, seed=None)
        model._choose_weights(weights)
        with backends.preparing(model.ops, model.dtype, weights):
            info = model.load_tensors(state_dict)
        if model.can_generate():
            cast(Any, model)._load_generation_config(folder, generation)
        if info["missing_keys"]:
            warnings.warn(
                f"{folder} has no {', '.join(info['missing_keys'])}: freshly drawn, and "
                "meaningless until trained",
                stacklevel=2,
            )
        if output_loading_info:  # (the return type is of the usual case)
            return model, info  # type: ignore[return-value]
        return model

    @classmethod
    def can_generate(cls) -> bool:
        """Say whether models of this class have `generate`."""
        return False

    @classmethod
    def _options_of_generation(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take options of `generate` out of keywords, where a model has it."""
        return {}

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
        try:
            found, foreign = own_names(self, tensors, self.own_prefix)
            missing = set_parameters(self, found, optional=self.optional_parameters)
        except ValueError as error:
            file = f"{tensors.path}: " if hasattr(tensors, "path") else ""
            raise CheckpointError(f"{file}{error}") from None
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
        if self.can_generate():
            options = cast(Any, self)._generation_config
            cast(Any, model)._generation_config = copy.deepcopy(options)
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

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Write config.json and model.safetensors, as transformers reads and writes them.

        The folder is made if it isn't there; what it holds besides is left alone. Tied
        parameters are written once. Each file is written whole or not at all, the
        parameters first. `from_pretrained` reads them back, here and in transformers. A
        tokenizer is saved by its own `save_pretrained`.

        A quantized model is saved as it is, in a form that only minigpt2 reads (see
        quantization/files.py): `with_weights("float32")` gives one that others read.
        """
        if self.can_generate():
            cast(Any, self).generation_config.validate()  # it may have been changed
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_safetensors(
            folder / CHECKPOINT_NAME,
            quantized_files.TensorsToWrite(self.own_slots(), self.weights),
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
        if self.can_generate():
            cast(Any, self)._save_generation_config(folder)


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
