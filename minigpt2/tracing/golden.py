"""Golden files: the numbers of one forward pass, by name, for the tests of another port.

A golden has the pass's inputs, its steps in the order of computation (under the names of
steps.py), and what a comparison must know: which steps the model returns, how far
float32 is from float64 at each step, the configuration, the hash of the parameters,
versions, and the command that made it. The formats hold the same, but for llm.c's:

    .safetensors   tensors; the rest is JSON in the header's metadata, under "golden"
    .npz           tensors; the rest is JSON in the array __golden__ of bytes (uint8)
    .json          see json_file.py
    a folder       ONNX's test data, see onnx_data.py; the rest is in golden.json
    .bin           llm.c's debug state, see llmc_state.py: logits, loss and gradients

Inputs are tensors named `inputs.input_ids` and so on (ONNX has files for them), and steps
have their own names. The rest, an object of JSON, has these keys:

    format      "minigpt2 golden 1"
    inputs      names of the inputs, without "inputs."
    order       names of the steps, in the order of computation
    outputs     {"logits": "lm_head", ...}: what the model returns -> the step that it is
    tolerance   {step: max |float32 - float64|, as measured here}
    config, dtype, backend, model_class, weights, weights_sha256, versions, text, and of
    the command line `command` and `model`, the name or folder that it was given
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..checkpoints import CheckpointError
from ..checkpoints.names import PREFIX, Sizes
from ..checkpoints.safetensors_file import SafetensorsFile, save_safetensors
from ..model.pretrained import PreTrainedModel
from . import json_file, llmc_state, onnx_data
from .trace import step_names, trace, unknown

FORMAT = "minigpt2 golden 1"
SUFFIXES = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".json": "json",
    "": "onnx",
    ".bin": "llm.c",
}
FORMATS = tuple(SUFFIXES.values())
INPUTS = "inputs."  # before an input's name in a file
OF_HEADS = ("q", "k", "v", "scores", "masked", "weights", "z")  # attn.q: [B, H, T, ...]
NPZ_NAME = "__golden__"
# What a model returns -> the step that it is, without the prefix.
OUTPUTS = {
    "loss": "loss",
    "mc_loss": "mc_loss",
    "logits": "lm_head",
    "mc_logits": "multiple_choice_head",
    "last_hidden_state": "ln_f",
}


@dataclass
class Golden:
    """The numbers of one pass; `golden[name]` is a step, with `transformer.` or without.

    Attributes:
        inputs: the arguments of the pass.
        steps: {name: array}, in the order of computation.
        outputs: {what the model returns: name of the step that it is}.
        tolerance: {name: max |float32 - float64|}; empty if it was not measured.
        about: what else there is to know: config, dtype, versions and so on.
    """

    inputs: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    outputs: dict[str, str] = field(default_factory=dict)
    tolerance: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def key_mask(self) -> np.ndarray | None:
        """Which columns are no padding [B, S]; None where all are, or an own rule is."""
        mask = self.inputs.get("attention_mask")
        if mask is None or mask.ndim == 4:
            return None
        return mask.reshape(-1, mask.shape[-1]) != 0

    def __getitem__(self, name: str) -> np.ndarray:
        for known in (self.outputs.get(name, name), PREFIX + name):
            if known in self.steps:
                return self.steps[known]
        raise KeyError(unknown(name, list(self.steps)))

    def __contains__(self, name: object) -> bool:
        return name in self.outputs or not {name, f"{PREFIX}{name}"}.isdisjoint(
            self.steps
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def make_golden(
    model: PreTrainedModel,
    input_ids: npt.ArrayLike | None = None,
    names: str | Iterable[str] = "*",
    *,
    text: str | None = None,
    command: str | None = None,
    **inputs: Any,
) -> Golden:
    """Trace a pass, and measure at each step how far float32 is from float64.

    >>> golden = make_golden(model, [[1, 2, 3]], labels=[[1, 2, 3]])
    >>> golden["h.0.attn.weights"].shape
    (1, 4, 3, 3)

    Args:
        model: in float32 or float64, which is what the steps are in. The other is made
            from it for the tolerance. (With int8 or int4 parameters, the other has them
            as rounded, but does not round what is multiplied with them.)
        input_ids: [B, T].
        names: which steps to keep, as minigpt2.trace has it. What the model returns is
            always kept.
        text: what the ids stand for, for the record.
        command: what makes this golden, for the record.
        inputs: further arguments of the model's forward: arrays, or a past.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    wanted += set(outputs_of(step_names(model)).values())
    recorded = trace(model, input_ids, wanted, **inputs)
    other = np.float32 if model.dtype == np.float64 else np.float64
    measured = trace(in_dtype(model, other), input_ids, wanted, **inputs)
    return Golden(
        inputs=arrays_of({"input_ids": input_ids, **inputs}),
        steps=dict(recorded),
        outputs=outputs_of(recorded),
        tolerance={name: largest(recorded[name], measured[name]) for name in recorded},
        about={
            "model_class": type(model).__name__,
            "dtype": model.dtype.name,
            "backend": model.backend,
            "weights": model.weights,
            "weights_sha256": weights_sha256(model),
            "config": model.config.to_dict(),
            "difference_from_untraced": recorded.difference(),
            "versions": versions(),
            "command": command,
            "text": text,
        },
    )


def arrays_of(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return arguments of a forward pass as arrays; a past is two a layer."""
    found = {}
    for name, value in arguments.items():
        if name in ("past", "past_key_values") and value is not None:
            for layer, (keys, values) in enumerate(value):
                found[f"past.{layer}.key"] = np.asarray(keys)
                found[f"past.{layer}.value"] = np.asarray(values)
        elif value is not None:
            found[name] = np.asarray(value)
    return found


def outputs_of(names: Collection[str]) -> dict[str, str]:
    """Return {what a model returns: the step that it is} for the steps of a pass."""
    found = {}
    for output, step in OUTPUTS.items():
        for name in (step, PREFIX + step):
            if name in names:
                found[output] = name
    if "logits" in found:  # a model with a head returns no hidden states unasked
        found.pop("last_hidden_state", None)
    return found


def in_dtype(model: PreTrainedModel, dtype: npt.DTypeLike) -> PreTrainedModel:
    """Return a model with the same parameters, those that are computed with, in a dtype."""
    twin = type(model)(model.config, dtype=dtype, backend="numpy", seed=None)
    twin.load_tensors(model.state_dict())
    return twin


def that_count(
    name: str, shape: tuple[int, ...], key_mask: np.ndarray | None
) -> np.ndarray:
    """Return which numbers of a step count (bool): those of no position of padding.

    What a padded position gives is nobody's promise: it may see no key at all.

    Args:
        key_mask: which columns are no padding [B, S]; None for all.
    """
    counts = np.ones(shape, bool)
    if key_mask is None or len(shape) < 3:
        return counts
    new = key_mask[:, key_mask.shape[1] - shape[-2] :]  # [B, T]
    if name.rpartition("attn.")[2] in OF_HEADS:  # [B, H, T, D or S]
        counts &= new[:, None, :, None]
        if name.endswith("attn.scores"):
            counts &= key_mask[:, None, None, :]
        return counts
    rows = counts.reshape(-1, *shape[-2:])  # [B, T, C]; or one row, as all are alike
    return (rows & new[:, :, None]).reshape(shape) if len(rows) == len(new) else counts


def padded_inputs(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arguments of a pass over rows [B, T] that are padded where mask is 0.

    Positions count without the padding. Of its label nothing is asked that padding
    would have to predict.
    """
    predicted = np.zeros(ids.shape, bool)
    predicted[:, 1:] = (mask[:, 1:] == 1) & (mask[:, :-1] == 1)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
        "labels": np.where(predicted, ids, -100),
    }


def largest(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference where both are finite, which is 0 if nowhere."""
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = np.asarray(a, np.float64)[finite], np.asarray(b, np.float64)[finite]
    return float(np.abs(a - b).max(initial=0.0))


def weights_sha256(model: PreTrainedModel) -> str:
    """Return the SHA-256 of the parameters that are computed with.

    They are taken in the order of the model, each one's name (UTF-8) before its bytes, in
    little-endian float32 and in our layout, tied ones once.
    """
    import hashlib  # loads OpenSSL, which is slow

    found = hashlib.sha256()
    for name, array in model.named_parameters():
        found.update(name.encode())
        found.update(np.ascontiguousarray(array, "<f4").data)
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what computes here."""
    import platform

    return {
        "minigpt2": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


# Files


def format_of(path: str | os.PathLike, format: str | None = None) -> str:
    """Return the format that a file's suffix names; ValueError if it names none."""
    format = format or SUFFIXES.get(Path(path).suffix)
    if format not in FORMATS:
        raise ValueError(
            f"{path} has no suffix of a golden file: {', '.join(filter(None, SUFFIXES))}"
            f", or none for a folder of ONNX's test data; or name a format: "
            + ", ".join(FORMATS)
        )
    return format


def save_golden(
    path: str | os.PathLike, golden: Golden, format: str | None = None
) -> None:
    """Write a golden file, whole or not at all; one that is there is replaced.

    Args:
        path: its suffix says the format, unless `format` does.
        golden: what to write.
        format: one of FORMATS.

    Raises:
        ValueError: an unknown format, or one that can't say what the golden has.
        FileExistsError: for a folder that is there already.
    """
    format = format_of(path, format)
    if format == "llm.c":
        llmc_state.save_state(path, state_of(golden))
        return
    about = {
        "format": FORMAT,
        "inputs": list(golden.inputs),
        "order": list(golden.steps),
        "outputs": golden.outputs,
        "tolerance": golden.tolerance,
        **golden.about,
    }
    tensors = with_prefix(golden.inputs) | golden.steps
    if format == "json":
        json_file.save_json(path, tensors, about)
    elif format == "onnx":
        onnx_data.save_onnx(path, golden.inputs, golden.steps, about)
    elif format == "npz":
        from ..checkpoints.npz_file import save_npz  # zipfile is slow to import

        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        save_npz(path, {**tensors, NPZ_NAME: text})
    else:
        save_safetensors(path, tensors, {"golden": json.dumps(about)})


def with_prefix(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return inputs under the names that they have in a file."""
    return {INPUTS + name: array for name, array in inputs.items()}


def read_golden(path: str | os.PathLike, sizes: Sizes | None = None) -> Golden:
    """Read a golden file of any format.

    Args:
        path: the file or folder.
        sizes: the model's configuration, for llm.c's debug state, which does not say
            it; without it, a state that fits one of OpenAI's four models is read.

    Raises:
        CheckpointError: it is missing, damaged, or no golden file.
    """
    path = Path(path)
    if path.suffix == ".bin":
        return golden_of(llmc_state.read_state(path, sizes))
    tensors, about = open_tensors(path)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no golden file: it does not say {FORMAT!r}")
    try:
        return _golden(tensors, about)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is no sound golden file: {error}") from None


def open_tensors(path: Path) -> tuple[Mapping[str, np.ndarray], Any]:
    """Return a file's tensors, and what it says besides: None, or a value of JSON."""
    if path.is_dir():
        inputs, steps, about = onnx_data.read_onnx(path)
        return with_prefix(inputs) | steps, about
    match path.suffix:
        case ".json":
            return json_file.read_json_tensors(path)
        case ".npz":
            from ..checkpoints.npz_file import NpzFile

            archive = NpzFile(path)
            if NPZ_NAME not in archive:
                return archive, None
            return archive, _json(path, archive[NPZ_NAME].tobytes())
        case ".safetensors":
            file = SafetensorsFile(path)
            text = file.metadata.get("golden")
            return file, None if text is None else _json(path, text)
    raise CheckpointError(
        f"{path} has no suffix of a golden file: {', '.join(filter(None, SUFFIXES))}"
    )


def _json(path: Path, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: what it says of its tensors is no JSON: {error!s:.200}"
        ) from None


def _golden(tensors: Mapping[str, np.ndarray], about: dict[str, Any]) -> Golden:
    """Return the golden of a file's tensors and of what it says of them."""
    inputs, order = _names(about, "inputs"), _names(about, "order")
    for name in (*(INPUTS + name for name in inputs), *order):
        if name not in tensors:
            raise CheckpointError(f"it has no tensor {name!r}")
    outputs, tolerance = about.get("outputs"), about.get("tolerance")
    if not isinstance(outputs, dict) or not all(
        isinstance(step, str) and step in order for step in outputs.values()
    ):
        raise CheckpointError("its outputs do not name steps")
    if not isinstance(tolerance, dict) or not all(
        type(value) in (int, float) and 0 <= value < math.inf
        for value in tolerance.values()
    ):
        raise CheckpointError("its tolerance does not map names to numbers")
    rest = ("format", "inputs", "order", "outputs", "tolerance")
    return Golden(
        inputs={name: tensors[INPUTS + name] for name in inputs},
        steps={name: tensors[name] for name in order},
        outputs=outputs,
        tolerance=tolerance,
        about={key: value for key, value in about.items() if key not in rest},
    )


def _names(about: dict[str, Any], key: str) -> list[str]:
    names = about.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"its {key!r} is no list of names")
    return names


# llm.c's debug state <-> a golden


def state_of(golden: Golden) -> llmc_state.State:
    """Return a golden as llm.c's debug state; ValueError if it lacks what that has."""
    gradients = {
        name.removeprefix(llmc_state.GRADIENTS): array
        for name, array in golden.steps.items()
        if name.startswith(llmc_state.GRADIENTS)
    }
    has = {*golden.inputs, *golden.outputs, *(["gradients"] if gradients else [])}
    lacking = {"input_ids", "targets", "logits", "loss", "gradients"} - has
    if lacking:
        raise ValueError(
            f"llm.c's debug state has {', '.join(sorted(lacking))}, and this golden has "
            "not (targets are the ids that follow input_ids; gradients are steps named "
            f"{llmc_state.GRADIENTS}wte.weight and so on): `minigpt2 golden make` makes "
            "one from a model"
        )
    return llmc_state.State(
        golden.inputs["input_ids"],
        golden.inputs["targets"],
        golden["logits"],
        golden["loss"],
        gradients,
    )


def golden_of(state: llmc_state.State) -> Golden:
    """Return llm.c's debug state as a golden; its gradients are steps, in our layout."""
    gradients = {
        llmc_state.GRADIENTS + name: array for name, array in state.gradients.items()
    }
    return Golden(
        inputs={"input_ids": state.x, "targets": state.y},
        steps={"lm_head": state.logits, "loss": state.loss, **gradients},
        outputs={"logits": "lm_head", "loss": "loss"},
    )
