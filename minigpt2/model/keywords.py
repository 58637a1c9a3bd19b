"""Keywords that scripts for transformers give to from_pretrained and save_pretrained.

What means something here is an option of its own (pretrained.py) or of the hub. The
others are in two tables: one that cannot change a number is accepted, any other is an
error that says what to do. No keyword is taken for a
field of the configuration just because config.json has a key of that name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..checkpoints.layouts import Tensor
    from ..config import PretrainedConfig

# name -> (the values that change nothing here, what else to do). Of those without an
# advice every value is harmless: they say how memory is used and who computes, while
# here parameters stay in the mapped file, and no pickle and no model's code is run.
Table = Mapping[str, tuple[tuple, str]]
NOT_GIVEN = (None, False, "")
ONE_PROCESS = (NOT_GIVEN, "a model here is in one process")
ATTENTION = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3")
CPU = (None, "cpu", "auto", "balanced", "sequential", {"": "cpu"})
LOADING: Table = {
    **dict.fromkeys(
        "low_cpu_mem_usage offload_folder offload_buffers offload_state_dict max_memory "
        "disable_mmap weights_only use_kernels allow_all_kernels kernel_config tqdm_class "
        "fusion_config experts_implementation _fast_init".split(),
        ((), ""),
    ),
    "attn_implementation": (ATTENTION, "backend= chooses how attention is computed"),
    "device_map": (CPU, "a model here is on the CPU: leave it out"),
    "variant": (NOT_GIVEN, "give a folder where that file is model.safetensors"),
    "gguf_file": (NOT_GIVEN, "load the model that it was made from"),
    "from_flax": (NOT_GIVEN, "save it as safetensors with transformers 4"),
    "load_in_8bit": (NOT_GIVEN, "weights='int8' quantizes while loading"),
    "load_in_4bit": (NOT_GIVEN, "weights='int4' quantizes while loading"),
    "quantization_config": (NOT_GIVEN, "weights='int8' or 'int4' quantizes"),
    "ignore_mismatched_sizes": (
        NOT_GIVEN,
        "load with state_dict={...}, without the tensors that do not fit",
    ),
    "key_mapping": (NOT_GIVEN, "rename the keys of a dict, and give state_dict="),
    "adapter_kwargs": ((*NOT_GIVEN, {}), "merge the adapter with peft first"),
    "adapter_name": ((*NOT_GIVEN, "default"), "merge the adapter with peft first"),
    "_adapter_model_path": (NOT_GIVEN, "merge the adapter with peft first"),
    **dict.fromkeys(
        ("tp_plan", "tp_size", "device_mesh", "distributed_config"), ONE_PROCESS
    ),
}
SAVING: Table = {
    "safe_serialization": ((None, True), "only safetensors is written"),
    "is_main_process": ((True,), "call it in one process only"),
    "state_dict": ((None,), "load_state_dict sets what is then saved"),
    "push_to_hub": (NOT_GIVEN, "upload the folder with huggingface_hub"),
    "variant": (NOT_GIVEN, "rename model.safetensors afterwards"),
    "save_function": ((None,), "safetensors is written by minigpt2 itself"),
    "distributed_checkpoint": ONE_PROCESS,
    **dict.fromkeys(("token", "save_peft_format", "save_original_format"), ((), "")),
}
# Fields of configurations that are not declared here, or of some models' alone.
FURTHER_FIELDS = frozenset(
    "architectures add_cross_attention classifier_dropout finetuning_task hidden_dropout "
    "id2label is_encoder_decoder label2id name_or_path summary_last_dropout "
    "task_specific_params tokenizer_class torchscript".split()
)


def take_foreign(kwargs: dict[str, Any], table: Table) -> None:
    """Remove options of transformers from keywords.

    Raises:
        ValueError: for one whose value asks for what is not done here.
    """
    for name in [name for name in kwargs if name in table]:
        value, (harmless, instead) = kwargs.pop(name), table[name]
        # (By their text: torch.device("cpu") is "cpu".)
        if instead and str(value) not in map(str, harmless):
            raise ValueError(f"{name}={value!r:.100} is not done here: {instead}")


def overridable(config_class: type[PretrainedConfig]) -> set[str]:
    """Return the names that from_pretrained takes for fields of the configuration."""
    declared = {field.name for field in fields(config_class)}
    own = set(inspect.signature(config_class).parameters)  # a subclass may have others
    return declared | own | set(config_class.attribute_map) | FURTHER_FIELDS


def automatic_dtype(
    config: PretrainedConfig, tensors: Mapping[str, Tensor]
) -> np.dtype:
    """Return what dtype="auto" is: float64 for a checkpoint of it, else float32.

    As in transformers the configuration is asked first, then the first tensor of
    floating numbers. Half precision is computed in float32: the model is the same.
    """
    said = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    if said is None:
        dtypes = (tensor.dtype for tensor in tensors.values())
        said = next((d for d in dtypes if np.issubdtype(d, np.floating)), "float32")
    double = str(said).removeprefix("torch.") == "float64"
    return np.dtype(np.float64 if double else np.float32)


def size_in_bytes(size: int | str) -> int:
    """Return the bytes of transformers' max_shard_size: 1000, "200MB", "5GB" or "5GiB".

    Raises:
        ValueError: for anything else.
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    number = str(size).upper().rstrip("BIKMGT")
    unit = str(size).upper().removeprefix(number).strip()
    if number.strip().isdecimal() and unit in units:
        return int(number) * units[unit]
    raise ValueError(f"max_shard_size is {size!r}, not a number of bytes or '5GB'")
