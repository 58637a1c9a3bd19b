"""Every number by name.

- steps  the steps of a forward pass in order: name, op, inputs, shape, meaning
- trace  a pass step by step: what each one gave, and what follows if it is replaced
- golden  such a trace with all that a comparison must know, as a file; json_file,
          onnx_data and llmc_state are formats of it (.safetensors and .npz are
          checkpoints'), and llmc_data those of llm.c's tokens
- dumps   what others have written, of any of these kinds
"""

from .dumps import read_dump
from .golden import Golden, make_golden, read_golden, save_golden
from .trace import Trace, trace

__all__ = [
    "Golden",
    "Trace",
    "make_golden",
    "read_dump",
    "read_golden",
    "save_golden",
    "trace",
]
