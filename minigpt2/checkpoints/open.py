"""A model folder -> the Mapping {name: array} of its weights, whatever the format."""

from pathlib import Path

from . import CheckpointError
from .safetensors_file import SafetensorsFile
from .tf_bundle import TFBundle


def open_checkpoint(folder):
    """Open the weights in `folder`; CheckpointError, saying what was looked for."""
    folder = Path(folder)
    if (folder / "model.safetensors").is_file():
        return SafetensorsFile(folder / "model.safetensors")
    if (folder / "checkpoint").is_file() or (folder / "model.ckpt.index").is_file():
        return TFBundle(folder)
    raise CheckpointError(
        f"{folder} holds no weights that can be read: looked for model.safetensors "
        "(Hugging Face), and checkpoint or model.ckpt.index (OpenAI)"
    )
