"""PreTrainedModel: what every model class can do, whatever it computes.

It is made from a configuration, loaded from a folder and saved to one, and its shape
can be changed: more ids, fewer heads. Its parameters by name are in parameters.py, what
GPT-2 computes is in model.py, and what files look like inside in checkpoints/.
"""

import copy
import warnings
from pathlib import Path

import numpy as np

from .. import hub
from ..checkpoints import CheckpointError, names
from ..checkpoints.open import open_checkpoint
from ..checkpoints.safetensors_file import save_safetensors
from ..checkpoints.tensor_file import TensorFile, Unread
from ..checkpoints.tf_bundle import TFBundle
from ..config import GPT2Config
from ..quantization import files as small_files
from ..runtime.randomness import normal
from . import backends
from .parameters import ParameterTree, check_weights, checked_dtype

WEIGHTS_NAME = "model.safetensors"


class PreTrainedModel(ParameterTree):
    """The base of the models: a configuration, a tree of parameters, and files.

    Parameters:
    - config (GPT2Config).
    - dtype (np.float32 or np.float64): of parameters and of all that is computed.
    - backend ("numpy", "numba" or "auto"): the ops that the model is made of; what
      "auto" comes to, `backends.choose` says.
    - seed (int or None): the parameters are drawn from it as `init_weights` says; with
      None they are left unset, to be loaded.

    `weights` says in how many bits the large matrices are kept: "float32", which means
    in `dtype`, or less; see `from_pretrained` and `with_weights`.

    Calling a model is calling its `forward`. A model starts in eval mode, and no
    forward pass changes it, so one model may serve many threads.
    """

    config_class = GPT2Config
    base_model_prefix = "transformer"
    optional_parameters: tuple[str, ...] = ()  # prefixes of what a file may lack

    def __init__(self, config, *, dtype=np.float32, backend="auto", seed=0):
        if not isinstance(config, GPT2Config):
            raise TypeError(
                f"{type(self).__name__} takes a GPT2Config, not a "
                f"{type(config).__name__}; from_pretrained loads by name or folder"
            )
        self.config = config
        self.dtype = checked_dtype(dtype)
        self.backend, self.ops = backends.choose(backend, config, self.dtype)
        self.training = False
        self.build()
        if seed is not None:
            self.init_weights(seed)

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def __repr__(self):
        c = self.config
        return (
            f"{type(self).__name__}(n_layer={c.n_layer}, n_embd={c.n_embd}, "
            f"n_head={c.n_head}, vocab_size={c.vocab_size}, "
            f"n_positions={c.n_positions}, dtype={self.dtype}, backend={self.backend}"
            + (")" if self.weights == "float32" else f", weights={self.weights})")
        )

    @property
    def base_model(self):
        """The GPT2Model inside a model with a head; a GPT2Model itself."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def _prefix(self):
        """What the names of the base model's parameters begin with here."""
        return "" if self.base_model is self else names.PREFIX

    # Files

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *,
        config=None,
        state_dict=None,
        from_tf=False,
        output_loading_info=False,
        dtype=np.float32,
        backend="auto",
        weights=None,
        **kwargs,
    ):
        """Load a model from a folder, or by a name that `minigpt2.hub` knows.

        - pretrained_model_name_or_path: OpenAI's folder (hparams.json, model.ckpt.*) or
          Hugging Face's (config.json, model.safetensors); "shakespeare-1m" is the small
          model that comes with the package. The format is found out.
        - config (GPT2Config, or a folder or name to read it from): in place of the
          folder's own.
        - state_dict ({name: array}): weights in place of the folder's, under whichever
          names `load_tensors` takes.
        - from_tf (bool): read the folder's TensorFlow checkpoint even if there is
          another; the path may then also be that of the model.ckpt.index file.
        - output_loading_info (bool): return (model, what `load_tensors` returns).
        - dtype, backend: as for the class itself. Weights of other dtypes are
          converted; float32 weights stay in the memory-mapped file.
        - weights ("float32", "bfloat16", "int8" or "int4"): in how many bits the large
          matrices are kept, by the formulas in `minigpt2.quantization`. They are made
          matrix by matrix while loading. None: as the folder was saved, which is float32
          for those of others. A folder of small weights can be asked for in another
          kind, too: what was rounded away is not in it any more. Small weights compute
          in float32 only; with weights="float32" it is `dtype` that counts.
        - cache_dir, revision, local_files_only, force_download, token: see
          `minigpt2.hub`.
        - other keywords override fields of the configuration.

        Raises OSError if there is no such folder or model, ImportError if that takes
        huggingface_hub and it is not installed, CheckpointError if a file is damaged,
        does not fit the configuration or is quantised by another program, TypeError for
        a keyword that nothing knows, ValueError for small weights with float64.
        """
        where = hub.options_of(kwargs)
        path = pretrained_model_name_or_path
        if from_tf and not Path(path).is_dir():
            folder = Path(path).parent
        else:
            folder = path = hub.model_folder(path, **where)
        given = isinstance(config, GPT2Config)
        if config is None:
            config, kwargs = cls.config_class.from_pretrained(
                folder, return_unused_kwargs=True, **kwargs
            )
        elif not given:
            config = cls.config_class.from_pretrained(config, **where)
        if kwargs:
            raise TypeError(
                f"from_pretrained() got {', '.join(kwargs)}: no option of its own, and "
                "no field of the configuration that it loads"
            )
        if state_dict is None:
            refuse_other_quantization(config, folder)
            state_dict = TFBundle(path) if from_tf else open_checkpoint(folder)
        if not given:
            vars(config).pop("quantization_config", None)  # is about that file
        stored = small_files.weights_of(state_dict)
        weights = stored if weights is None else weights
        model = cls(config, dtype=dtype, backend=backend, seed=None)
        model._choose_weights(weights)
        with backends.preparing(model.ops, model.dtype, weights):
            info = model.load_tensors(state_dict)
        if info["missing_keys"]:
            warnings.warn(
                f"{folder} has no {', '.join(info['missing_keys'])}: freshly drawn, and "
                "meaningless until trained",
                stacklevel=2,
            )
        return (model, info) if output_loading_info else model

    def load_tensors(self, tensors):
        """Set the parameters from a file's tensors, under OpenAI's or whichever names.

        tensors: {name in the file: array}. A base model's weights fit a model with a
        head and the other way round: names may have the prefix `transformer.` or not.
        What is no parameter here (optimizer slots, counters, other heads) is passed
        over. A new head's parameters, where the file lacks them, stay as they are, or
        are drawn as `init_weights` says.

        Returns {"missing_keys": [...], "unexpected_keys": [...], "error_msgs": []}: the
        new head's, and what was passed over. CheckpointError, and nothing has been set,
        if any other parameter is missing, if one is misshapen, or if the file has
        layers that the model lacks.
        """
        try:
            found, foreign = self._by_own_names(tensors)
            missing = self._set(found, optional=self.optional_parameters)
        except ValueError as error:
            file = f"{tensors.path}: " if hasattr(tensors, "path") else ""
            raise CheckpointError(f"{file}{error}") from None
        return {"missing_keys": missing, "unexpected_keys": foreign, "error_msgs": []}

    def _by_own_names(self, tensors):
        """Return ({name here: array}, the names in `tensors` that nothing has here)."""
        slots = self.parameter_slots()
        stored = small_files.weights_of(tensors)
        found, foreign = {}, []
        for name in tensors:
            if stored != "float32" and small_files.is_scale(name, tensors):
                continue
            here = names.canonical(name)
            if here is None:
                continue
            if names.is_gpt2_parameter(here):
                here = self._prefix + here
                if here not in slots:
                    raise ValueError(
                        f"{name} is a parameter of a GPT-2 with more layers than this "
                        f"one's {self.config.n_layer}: is it another model's config?"
                    )
            if here not in slots:
                foreign.append(name)
            elif here in found:
                raise ValueError(f"{here} is there twice, as {name} too")
            elif stored != "float32":
                module, _ = slots[here]
                rows = small_files.read_rows(tensors, name, module, stored)
                found[here] = Unread(tensors, name) if rows is None else rows
            else:
                lazy = isinstance(tensors, TensorFile)
                tensor = Unread(tensors, name) if lazy else np.asarray(tensors[name])
                found[here] = names.without_leading_one(tensor)
        return found, foreign

    def _choose_weights(self, weights):
        """Have the parameters, which are not set yet, kept in such weights."""
        check_weights(weights, self.dtype)
        for _, module in self.named_modules():
            if isinstance(module, ParameterTree):
                module.weights = weights

    def with_weights(self, weights):
        """Return a model with the same parameters, kept in other weights.

        weights: as `from_pretrained` takes them. What is not changed is shared with this
        model, which stays as it is; the configuration is copied. ValueError for another
        word, and for small weights of a float64 model.
        """
        config = copy.deepcopy(self.config)
        model = type(self)(config, dtype=self.dtype, backend=self.backend, seed=None)
        model._choose_weights(weights)
        model.train(self.training)
        slots = self.parameter_slots()
        for name, (module, attribute) in model.own_slots().items():
            mine, _ = slots[name]
            if model.kind_of(name, module) == self.kind_of(name, module):
                module.share(attribute, mine)
            else:
                value = model._in_its_form(name, module, mine.stored(attribute))
                setattr(module, attribute, value)
        model.tie_weights()
        return model

    def save_pretrained(self, save_directory):
        """Write config.json and model.safetensors, as transformers reads and writes them.

        The folder is made if it isn't there; what it holds besides is left alone. Tied
        weights are written once. Each file is written whole or not at all, the weights
        first. `from_pretrained` reads them back, here and in transformers. A tokenizer
        and a GenerationConfig are saved by their own `save_pretrained`.

        Small weights are saved as they are, in a form that only minigpt2 reads (see
        small_files.py): `with_weights("float32")` gives a model that others read.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_safetensors(
            folder / WEIGHTS_NAME,
            small_files.TensorsToWrite(self),
            metadata=small_files.metadata_of(self.weights),
        )
        config = copy.deepcopy(self.config)
        vars(config).pop("quantization_config", None)
        if self.weights != "float32":
            config.quantization_config = small_files.quantization_config(self.weights)
        config.architectures = [type(self).__name__]
        config.dtype = self.dtype.name
        vars(config).pop("torch_dtype", None)  # dtype's name before transformers 4.56
        config.save_pretrained(folder)

    # The shape of the model

    def get_input_embeddings(self):
        """Return the layer whose `weight` [V, C] embeds the ids."""
        return self.base_model.wte

    def get_output_embeddings(self):
        """Return the layer whose `weight` [V, C] scores the ids, or None (no head)."""
        return getattr(self, "lm_head", None)

    def set_input_embeddings(self, value):
        """Take other embeddings: an array [V, C], or a layer that has one as `weight`.

        A head that is tied to them follows. ValueError for another shape:
        `resize_token_embeddings` changes V.
        """
        array = np.asarray(getattr(value, "weight", value))
        self._set({f"{self._prefix}wte.weight": array}, optional=("",))

    def set_output_embeddings(self, new_embeddings):
        """Take another head's weight: an array [V, C], or a layer that has one.

        ValueError for another shape, for a model without a head, and if the head is
        tied to the embeddings: `set_input_embeddings` sets both.
        """
        head = self.get_output_embeddings()
        if head is None or self.config.tie_word_embeddings:
            why = "no head" if head is None else "its head tied to its embeddings"
            raise ValueError(f"this {type(self).__name__} has {why}")
        array = np.asarray(getattr(new_embeddings, "weight", new_embeddings))
        self._set({"lm_head.weight": array}, optional=("",))

    def resize_token_embeddings(self, new_num_tokens=None, mean_resizing=True):
        """Change V, the number of ids, to new_num_tokens; return the input embeddings.

        The first min(old, new) rows stay. A new row, of the embeddings and of a head
        that is not tied to them, is

        - the mean of the old rows, with mean_resizing=True: a new id gets the average
          of all scores. transformers does so since 4.46, and adds noise of 1e-9 of the
          old rows' variance.
        - drawn as `init_weights` draws, with mean_resizing=False: the rule before. All
          of GPT-2's scores lie far below 0, and a row near 0 scores near 0: until it is
          trained, such a model will prefer the new ids to all others.

        With new_num_tokens=None nothing changes. The configuration that the model was
        made from is left alone: the model gets one of its own. ValueError for a number
        below 1, and in a model of small weights.
        """
        if new_num_tokens is None:
            return self.get_input_embeddings()
        self._refuse_small_weights("resize_token_embeddings")
        config = self._changed_config(vocab_size=new_num_tokens)
        std = None if mean_resizing else self.config.initializer_range
        words = np.random.PCG64(0)
        for layer in (self.get_input_embeddings(), self.get_output_embeddings()):
            if layer is not None:
                layer.weight = resized(layer.weight, new_num_tokens, std, words)
                layer.shapes = {"weight": layer.weight.shape}
        self.config = self.base_model.config = config
        self.tie_weights()
        return self.get_input_embeddings()

    def prune_heads(self, heads_to_prune):
        """Remove attention heads for good: {layer: [head, ...]}.

        Heads are numbered as in the whole model, whatever has been removed before;
        layer -1 is the last. What is removed is remembered in config.pruned_heads,
        which a saved folder keeps, and no forward pass can tell it from a head_mask of
        zeros. The configuration that the model was made from is left alone.

        ValueError, and nothing is removed, for layers or heads that there aren't, if a
        layer would be left without any, and in a model of small weights.
        """
        self._refuse_small_weights("prune_heads")
        pruned = copy.deepcopy(self.config.pruned_heads)
        for layer, heads in heads_to_prune.items():
            pruned.setdefault(int(layer), []).extend(heads)
        config = self._changed_config(pruned_heads=pruned)
        for layer, heads in config.pruned_heads.items():
            self.base_model.h[layer].attn.prune_heads(heads)
        self.config = self.base_model.config = config

    def _refuse_small_weights(self, method):
        if self.weights != "float32":
            raise ValueError(
                f"{method}() takes a float32 model, and this one has {self.weights} "
                f"weights: change the model that it came from, then with_weights()"
            )

    def _changed_config(self, **fields):
        """Return a copy of the configuration with other fields, checked."""
        config = copy.deepcopy(self.config)
        for name, value in fields.items():
            setattr(config, name, value)
        config.check()
        return config


def refuse_other_quantization(config, folder):
    """CheckpointError if a folder's weights are rounded in a form of other programs.

    They would be integers, whose scales nothing here would look for.
    """
    said = getattr(config, "quantization_config", None) or {}
    method = said.get("quant_method") if isinstance(said, dict) else said
    if said and method != small_files.FORMAT:
        raise CheckpointError(
            f"{folder} is quantised by {method!r}, which minigpt2 does not read: load "
            "the model that it was made from, with weights='int8' or the like"
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


def resized(rows, count, std, words):
    """Return `count` rows: the first of `rows` [V, C], then new ones.

    std: of the new rows' random numbers, drawn from `words`; None takes the mean row.
    """
    kept = rows[:count]
    shape = (count - len(kept), rows.shape[1])
    if std is None:
        fresh = np.empty(shape, rows.dtype)
        fresh[...] = rows.mean(axis=0, dtype=np.float64)
    else:
        fresh = normal(words, shape, std, rows.dtype)
    return np.concatenate([kept, fresh])
