"""PreTrainedModel: what every model class can do with its parameters and files.

Making, drawing, setting, loading and saving are here; what GPT-2 computes is in
model.py, and what the files look like inside in checkpoints/.
"""

import math

import numpy as np

from . import backends, hub
from .checkpoints import CheckpointError, names
from .checkpoints.open import open_checkpoint
from .checkpoints.tf_bundle import TFBundle
from .config import GPT2Config
from .modules import LayerNorm, Module
from .randomness import normal

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class PreTrainedModel(Module):
    """The base of the models: a configuration, a tree of parameters, and files.

    Parameters:
    - config (GPT2Config).
    - dtype (np.float32 or np.float64): of parameters and of all that is computed.
    - backend ("numpy", "numba" or "auto"): the ops that the model is made of.
    - seed (int or None): the parameters are drawn from it as `init_weights` says; with
      None they are left unset, to be loaded.

    Calling a model is calling its `forward`. A model starts in eval mode, and no
    forward pass changes it, so one model may serve many threads.
    """

    config_class = GPT2Config
    base_model_prefix = "transformer"

    def __init__(self, config, *, dtype=np.float32, backend="auto", seed=0):
        if not isinstance(config, GPT2Config):
            raise TypeError(
                f"{type(self).__name__} takes a GPT2Config, not a "
                f"{type(config).__name__}; from_pretrained loads by name or folder"
            )
        self.config = config
        self.dtype = checked_dtype(dtype)
        self.backend, self.ops = backends.choose(backend)
        self.training = False
        self.build()
        if seed is not None:
            self.init_weights(seed)

    def init_weights(self, seed=0):
        """Draw fresh parameters from `seed` (int >= 0), the same on every platform.

        Weights and embeddings have mean 0 and standard deviation
        config.initializer_range, divided by sqrt(2 n_layer) for the two projections of
        each block that add to the residual stream; biases are 0 and the layer norms'
        gains 1. Source: Radford et al. 2019, section 2.3; `randomness.normal` says how
        the numbers are made.
        """
        words = np.random.PCG64(seed)
        std = self.config.initializer_range
        residual_std = std / math.sqrt(2 * self.config.n_layer)
        for name, (module, attribute) in self._own_slots().items():
            shape = module.shapes[attribute]
            if attribute == "bias":
                array = np.zeros(shape, self.dtype)
            elif isinstance(module, LayerNorm):
                array = np.ones(shape, self.dtype)
            else:
                scale = residual_std if name.endswith("c_proj.weight") else std
                array = normal(words, shape, scale, self.dtype)
            setattr(module, attribute, array)
        self.tie_weights()

    def tie_weights(self):
        """Make tied parameters the same array again; models with a head override it."""

    def tied_parameters(self):
        """Return {name: name of the parameter that it is tied to}."""
        return {}

    def _own_slots(self):
        slots, tied = self.parameter_slots(), self.tied_parameters()
        return {name: slot for name, slot in slots.items() if name not in tied}

    def num_parameters(self):
        """Return how many numbers the parameters have, tied ones counted once."""
        return sum(
            math.prod(module.shapes[attribute])
            for module, attribute in self._own_slots().values()
        )

    def state_dict(self):
        """Return {Hugging Face's name: array} of all parameters, tied ones included.

        Weights of linear layers are [in, out], as GPT-2's checkpoints have them. The
        arrays are read-only views: to change parameters, use `load_state_dict`.
        """
        return {
            name: read_only(getattr(module, attribute))
            for name, (module, attribute) in self.parameter_slots().items()
        }

    def load_state_dict(self, state_dict, strict=True):
        """Set the parameters from {Hugging Face's name: array}.

        Arrays are converted to the model's dtype, and copied unless nobody can write to
        them, as to a mapped file. The mask buffers of old versions (`attn.bias`,
        `attn.masked_bias`) are passed over. Returns (missing, unexpected) names.

        ValueError, and nothing has been set, if a shape is wrong, if a tied parameter
        differs from the one that it is tied to, or, with strict=True, if a name is
        missing or unexpected.
        """
        slots, own = self.parameter_slots(), self._own_slots()
        arrays = {n: np.asarray(a) for n, a in state_dict.items() if n in slots}
        missing = [name for name in own if name not in arrays]
        unexpected = [n for n in state_dict if n not in slots and names.canonical(n)]
        problems = self._misfits(arrays)
        if strict:
            problems += [f"{name} is missing" for name in missing]
            problems += [f"{name} is not a parameter here" for name in unexpected]
        if problems:
            raise ValueError(
                f"these weights do not fit this {type(self).__name__}: "
                + shortened(problems)
            )
        for name, (module, attribute) in own.items():
            if name in arrays:
                setattr(module, attribute, as_parameter(arrays[name], self.dtype))
        self.tie_weights()
        return missing, unexpected

    def _misfits(self, arrays):
        """Return what is wrong with the shapes, dtypes and ties of {name: array}."""
        problems = []
        for name, (module, attribute) in self.parameter_slots().items():
            if name not in arrays:
                continue
            array, shape = arrays[name], module.shapes[attribute]
            if array.shape != shape:
                problems.append(f"{name} has shape {array.shape}, not {shape}")
            if not np.can_cast(array.dtype, self.dtype, "same_kind"):
                problems.append(f"{name} has dtype {array.dtype}, not {self.dtype}")
        for name, target in self.tied_parameters().items():
            if not {name, target} <= set(arrays):
                continue
            if not np.array_equal(arrays[name], arrays[target]):
                problems.append(
                    f"{name} differs from {target}, to which it is tied "
                    "(config.tie_word_embeddings=False unties them)"
                )
        return problems

    def load_tensors(self, tensors):
        """Set the parameters from a file's tensors, under OpenAI's or whichever names.

        tensors: {name in the file: array}. A base model's weights fit a model with a
        head and the other way round: names may have the prefix `transformer.` or not.
        What is no parameter here (optimizer slots, counters, other heads) is passed
        over; returns the names of that.

        CheckpointError, and nothing has been set, if a parameter is missing or
        misshapen, or if the file has layers that the model lacks.
        """
        try:
            found, foreign = self._by_own_names(tensors)
            self.load_state_dict(found)
        except ValueError as error:
            file = f"{tensors.path}: " if hasattr(tensors, "path") else ""
            raise CheckpointError(f"{file}{error}") from None
        return foreign

    def _by_own_names(self, tensors):
        """Return ({name here: array}, the names in `tensors` that nothing has here)."""
        slots = self.parameter_slots()
        prefix = names.PREFIX if hasattr(self, self.base_model_prefix) else ""
        found, foreign = {}, []
        for name in tensors:
            here = names.canonical(name)
            if here is None:
                continue
            if names.is_gpt2_parameter(here):
                here = prefix + here
                if here not in slots:
                    raise ValueError(
                        f"{name} is a parameter of a GPT-2 with more layers than this "
                        f"one's {self.config.n_layer}: is it another model's config?"
                    )
            if here not in slots:
                foreign.append(name)
            elif here in found:
                raise ValueError(f"{here} is there twice, as {name} too")
            else:
                found[here] = names.without_leading_one(tensors[name])
        return found, foreign

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *,
        config=None,
        dtype=np.float32,
        backend="auto",
        **kwargs,
    ):
        """Load a model from a folder, or by a name that `minigpt2.hub` knows.

        - pretrained_model_name_or_path: OpenAI's folder (hparams.json, model.ckpt.*) or
          Hugging Face's (config.json, model.safetensors); "shakespeare-1m" is the small
          model that comes with the package.
        - config (GPT2Config): in place of the folder's own.
        - dtype, backend: as for the class itself. Weights of other dtypes are
          converted; float32 weights stay in the memory-mapped file.
        - cache_dir, revision, local_files_only, force_download, token: see
          `minigpt2.hub`.
        - other keywords override fields of the configuration.

        Raises OSError if there is no such folder or model, ImportError if that takes
        huggingface_hub and it is not installed, CheckpointError if a file is damaged or
        does not fit the configuration.
        """
        options = hub.options_of(kwargs)
        folder = hub.model_folder(pretrained_model_name_or_path, **options)
        if config is None:
            config = cls.config_class.from_pretrained(folder, **kwargs)
        model = cls(config, dtype=dtype, backend=backend, seed=None)
        model.load_tensors(open_checkpoint(folder))
        return model

    def train(self, mode=True):
        """Turn dropout on (forward then needs a `generator`) or off; return self."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self):
        """Turn dropout off; return self."""
        return self.train(False)

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def __repr__(self):
        c = self.config
        return (
            f"{type(self).__name__}(n_layer={c.n_layer}, n_embd={c.n_embd}, "
            f"n_head={c.n_head}, vocab_size={c.vocab_size}, "
            f"n_positions={c.n_positions}, dtype={self.dtype}, backend={self.backend})"
        )


def load_tf_weights_in_gpt2(model, gpt2_checkpoint_path):
    """Load the weights of a TensorFlow checkpoint into a model; return the model.

    - model: GPT2Model, GPT2LMHeadModel or another head's.
    - gpt2_checkpoint_path: the folder, the prefix (.../model.ckpt), its .index file or
      the `checkpoint` file beside it.

    global_step, optimizer slots and object graphs are passed over. Raises
    CheckpointError if the checkpoint is damaged, or a parameter missing or misshapen;
    the model is then as it was.
    """
    model.load_tensors(TFBundle(gpt2_checkpoint_path))
    return model


def checked_dtype(dtype):
    """Return `dtype` as NumPy's float32 or float64; ValueError for any other."""
    known = {
        name: found for found in DTYPES for name in (found, found.name, found.type)
    }
    if dtype not in known:
        raise ValueError(f"dtype must be float32 or float64, not {dtype!r}")
    return known[dtype]


def as_parameter(array, dtype):
    """Return `array` in `dtype`; a copy, unless nobody can write to it any more.

    An array on a read-only mapped file stays in the file. A read-only view of an array
    that is writable does not do: who has that array could still change the model.
    """
    base = array
    while isinstance(base, np.ndarray) and not base.flags.writeable:
        base = base.base
    if isinstance(base, np.ndarray):
        return np.array(array, dtype, order="C")
    return np.ascontiguousarray(array, dtype)


def read_only(array):
    """Return a view of `array` that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def shortened(problems, most=8):
    """Join problems into one line, counting those beyond `most`."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
