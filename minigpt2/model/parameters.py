"""ParameterTree: a model's parameters by name, all of one dtype, set all or none.

Of what torch.nn.Module can do this is the part that a model here needs: `state_dict`,
`load_state_dict`, `train` and `eval`, `to` and its short forms. Names are the paths in
the tree of modules.py. Which file they come from is pretrained.py's business.
"""

import math

import numpy as np

from ..checkpoints import names
from ..checkpoints.tensor_file import Unread, let_go
from ..quantization import BFloat16Matrix, QuantizedMatrix, quantized
from ..runtime.progress import Progress
from ..runtime.randomness import normal
from .layers import LayerNorm, Linear, Module, TorchLinear

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
WEIGHTS = ("float32", "bfloat16", "int8", "int4")


class ParameterTree(Module):
    """The root of a tree of modules. It has a `dtype`, a `config` and `build`s itself.

    Some parameters may be tied to others: then both are one array, which is stored,
    counted, drawn and saved under the other's name.
    """

    device = "cpu"  # as of NumPy's arrays
    weights = "float32"  # one of WEIGHTS

    def tied_parameters(self):
        """Return {name: name of the parameter that it is tied to}."""
        return {}

    def tie_weights(self):
        """Make tied parameters the same array again, after one has been replaced."""

    def own_slots(self):
        """Return {name: (module, attribute)} of the parameters that are not tied."""
        slots, tied = self.parameter_slots(), self.tied_parameters()
        return {name: slot for name, slot in slots.items() if name not in tied}

    def num_parameters(self):
        """Return how many numbers the parameters have, tied ones counted once."""
        return sum(
            math.prod(module.shapes[attribute])
            for module, attribute in self.own_slots().values()
        )

    def init_weights(self, seed=0):
        """Draw fresh parameters from `seed` (int >= 0), the same on every platform.

        Weights and embeddings have mean 0 and standard deviation
        config.initializer_range, divided by sqrt(2 n_layer) for the two projections of
        each block that add to the residual stream; biases are 0 and the layer norms'
        gains 1. Source: Radford et al. 2019, section 2.3; `randomness.normal` says how
        the numbers are made.
        """
        self._draw(self.own_slots(), seed)
        self.tie_weights()

    def _draw(self, slots, seed=0):
        words = np.random.PCG64(seed)
        std = self.config.initializer_range
        residual_std = std / math.sqrt(2 * self.config.n_layer)
        for name, (module, attribute) in slots.items():
            shape = module.shapes[attribute]
            if attribute == "bias":
                array = np.zeros(shape, self.dtype)
            elif isinstance(module, LayerNorm):
                array = np.ones(shape, self.dtype)
            else:
                scale = residual_std if name.endswith("c_proj.weight") else std
                array = normal(words, shape, scale, self.dtype)
            setattr(module, attribute, self._in_its_form(name, module, array))

    def state_dict(self):
        """Return {Hugging Face's name: array} of all parameters, tied ones included.

        Weights of linear layers are [in, out], as GPT-2's checkpoints have them. The
        arrays are read-only views: to change parameters, use `load_state_dict`. Of small
        weights they are the float32 numbers that are computed with, made anew for the
        asking: together they take as much memory as a float32 model.
        """
        return {
            name: read_only(getattr(module, attribute))
            for name, (module, attribute) in self.parameter_slots().items()
        }

    def load_state_dict(self, state_dict, strict=True):
        """Set the parameters from {Hugging Face's name: array}.

        Arrays are converted to the model's dtype, or to its small weights, and copied
        unless nobody can write to them, as to a mapped file. The mask buffers of old
        versions (`attn.bias`, `attn.masked_bias`) are passed over. Returns (missing,
        unexpected) names.

        ValueError, and nothing has been set, if a shape is wrong, if a tied parameter
        differs from the one that it is tied to, or, with strict=True, if a name is
        missing or unexpected.
        """
        slots = self.parameter_slots()
        arrays = {n: np.asarray(a) for n, a in state_dict.items() if n in slots}
        unexpected = [n for n in state_dict if n not in slots and names.canonical(n)]
        problems = [f"{name} is not a parameter here" for name in unexpected]
        if strict:
            return self._set(arrays, problems=problems), unexpected
        return self._set(arrays, optional=("",)), unexpected

    def _set(self, arrays, optional=(), problems=()):
        """Set the parameters from {name: array}, all or none; return what is missing.

        Tensors of a file that are still unread are read one by one, so that a fresh model
        is in memory once; the parameters that it had before are kept until the end.

        optional: the beginnings of names that may be missing ("": any); of these, what
        has never been set is drawn. problems: further reasons to set nothing.
        """
        own = self.own_slots()
        missing = [name for name in own if name not in arrays]
        problems = [
            *(
                f"{name} is missing"
                for name in missing
                if not name.startswith(optional)
            ),
            *problems,
            *self._misfits(arrays),
        ]
        if problems:
            raise ValueError(
                f"these weights do not fit this {type(self).__name__}: "
                + shortened(problems)
            )
        small = self.weights != "float32"
        # The largest matrix, the ids' embeddings, is the first. It is the only one that
        # need not be mapped whole to be rounded: then it goes when memory is fullest.
        found = [name for name in own if name in arrays][:: -1 if small else 1]
        before = [(module, dict(vars(module))) for module, _ in own.values()]
        try:
            with Progress(f"to {self.weights}", len(found) if small else 0) as progress:
                for name in found:
                    progress.step(name)
                    self._take(name, *own[name], arrays[name])
        except BaseException:  # that a tensor is damaged may show when it is read
            for module, attributes in before:
                vars(module).clear()
                vars(module).update(attributes)
            raise
        self._draw({name: own[name] for name in missing if not hasattr(*own[name])})
        self.tie_weights()
        return missing

    def _take(self, name, module, attribute, tensor):
        """Set a parameter from a tensor: an array, one that is still unread, or a QuantizedMatrix."""
        float_model = self.weights == "float32"
        bits = tensor.bfloat16_bits() if isinstance(tensor, Unread) else None
        if bits is not None and self.kind_of(name, module) != "float32":
            tensor = BFloat16Matrix(module.as_rows(bits))
        elif not isinstance(tensor, QuantizedMatrix):
            tensor = np.asarray(tensor)
        value = self._in_its_form(name, module, tensor)
        if not isinstance(value, QuantizedMatrix):
            # (Next to small weights, nothing is kept of a file of float32.)
            value = as_parameter(value, self.dtype, keep_files=float_model)
        setattr(module, attribute, value)
        kept = [array for held in vars(module).values() for array in arrays_of(held)]
        for array in arrays_of(tensor):
            if not any(np.may_share_memory(array, one) for one in kept):
                let_go(array, whole_file=not float_model)

    def kind_of(self, name, module):
        """Return in which of WEIGHTS a parameter is kept here."""
        return kind_of_parameter(name, module, self.weights)

    def _in_its_form(self, name, module, tensor):
        """Return a parameter, an array or a QuantizedMatrix, in the form that it has in this model."""
        kind = self.kind_of(name, module)
        stored = isinstance(tensor, QuantizedMatrix)
        if kind == "float32":
            return module.as_rows(np.asarray(tensor)) if stored else tensor
        rows = tensor if stored else module.as_rows(tensor)

        def done(part):
            for array in arrays_of(rows):
                if array.flags.c_contiguous:  # its rows lie together in the file
                    let_go(array[part], whole_file=True)

        return quantized(rows, kind, done)

    def _misfits(self, arrays):
        """Return what is wrong with the shapes, dtypes and ties of {name: array}."""
        problems = []
        for name, (module, attribute) in self.parameter_slots().items():
            if name not in arrays:
                continue
            array, shape = arrays[name], module.shapes[attribute]
            if isinstance(array, QuantizedMatrix):
                continue  # was made for this shape
            if array.shape != shape:
                problems.append(f"{name} has shape {array.shape}, not {shape}")
            if not np.can_cast(array.dtype, self.dtype, "same_kind"):
                problems.append(f"{name} has dtype {array.dtype}, not {self.dtype}")
        for name, target in self.tied_parameters().items():
            if not {name, target} <= set(arrays):
                continue
            if not same(np.asarray(arrays[name]), np.asarray(arrays[target])):
                problems.append(
                    f"{name} differs from {target}, to which it is tied "
                    "(config.tie_word_embeddings=False unties them)"
                )
        return problems

    def __setstate__(self, state):
        super().__setstate__(state)
        self.tie_weights()  # a copy has copied the shared array twice

    def train(self, mode=True):
        """Turn dropout on (forward then needs a `generator`) or off; return self."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self):
        """Turn dropout off; return self."""
        return self.train(False)

    def to(self, device=None, dtype=None):
        """Convert the parameters to another dtype, in place; return self.

        As in torch, the one positional argument may be a device or a dtype. The device
        can only be "cpu". ValueError for another, for another dtype than float32 and
        float64, and for float64 in a model of small weights.
        """
        if device is not None and str(device) != "cpu":
            try:
                dtype = checked_dtype(device)
            except ValueError:
                raise ValueError(
                    f"a model here is on the CPU, in float32 or float64: not {device!r}"
                ) from None
        if dtype is not None:
            dtype = checked_dtype(dtype)
            check_weights(self.weights, dtype)
            if dtype == self.dtype:
                return self
            for module, attribute in self.own_slots().values():
                array = getattr(module, attribute)
                setattr(module, attribute, array.astype(dtype, copy=False))
            for _, module in self.named_modules():
                if isinstance(module, ParameterTree):
                    module.dtype = dtype
            self.tie_weights()
        return self

    def float(self):
        """Convert the parameters to float32, in place; return self."""
        return self.to(np.float32)

    def double(self):
        """Convert the parameters to float64, in place; return self."""
        return self.to(np.float64)

    def cpu(self):
        """Return self, which is on the CPU."""
        return self


def checked_dtype(dtype):
    """Return `dtype` as NumPy's float32 or float64; ValueError for any other."""
    for known in DTYPES:
        if dtype is not None and known == dtype:  # NumPy takes None for float64
            return known
    raise ValueError(f"dtype must be float32 or float64, not {dtype!r}")


def arrays_of(value):
    """Return the arrays that a parameter, an array or a QuantizedMatrix, is stored in."""
    if isinstance(value, QuantizedMatrix):
        return value.arrays()
    return [value] if isinstance(value, np.ndarray) else []


def check_weights(weights, dtype):
    """ValueError unless `weights` is one of WEIGHTS and they can compute in `dtype`."""
    if weights not in WEIGHTS:
        known = ", ".join(map(repr, WEIGHTS))
        raise ValueError(f"weights must be one of {known}, not {weights!r}")
    if weights != "float32" and dtype != np.float32:
        raise ValueError(
            f"{weights} weights compute in float32, not in {dtype}: "
            "from_pretrained(..., weights='float32') gives a model that can"
        )


def kind_of_parameter(name, module, weights):
    """Return in which of WEIGHTS a model of such weights keeps a parameter.

    The matrices of linear layers and heads, and the embeddings of the ids, are kept in
    fewer bits; positions' embeddings, biases and layer norms are not, which together
    are 0.7 % of GPT-2's smallest size. int4 is for the blocks alone: the embeddings of
    the ids, which mostly are the head too, and other heads are int8 then.
    """
    small = name.endswith(".weight") and not isinstance(module, LayerNorm)
    if not small or name.endswith("wpe.weight"):
        return "float32"
    in_blocks = isinstance(module, Linear) and not isinstance(module, TorchLinear)
    return "int8" if weights == "int4" and not in_blocks else weights


def as_parameter(array, dtype, keep_files=True):
    """Return `array` in `dtype`; a copy, unless nobody can write to it any more.

    An array on a read-only mapped file stays there, with keep_files. A read-only view
    of an array that is writable does not do: who has that array could still change the
    model.
    """
    base = array
    while isinstance(base, np.ndarray) and not base.flags.writeable:
        base = base.base
    if isinstance(base, np.ndarray) or not keep_files:
        return np.array(array, dtype, order="C")
    return np.ascontiguousarray(array, dtype)


def same(a, b, step=1 << 10):
    """Say whether two arrays are equal, with a few rows of them in memory at a time."""
    if a.shape != b.shape:
        return False
    for start in range(0, len(a), step):
        few = slice(start, start + step)
        if not np.array_equal(a[few], b[few]):
            return False
        let_go(a[few])
        let_go(b[few])
    return True


def read_only(array):
    """Return a view of `array` that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def shortened(problems, most=8):
    """Join problems into one line, counting those beyond `most`."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
