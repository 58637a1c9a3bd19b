"""Every number by name.

- steps  the steps of a forward pass in order: name, op, inputs, shape, meaning
- trace  a pass step by step: what each one gave, and what follows if it is replaced
- golden  such a trace with all that a comparison must know, as a file; json_file,
          onnx_data and llmc_state are formats of it (.safetensors and .npz are
          checkpoints')
- dumps   what others have written, of any of these kinds
- variants  the table of causes: what other ports have done instead, at each step
- replay  each step in float64 from what another program had before it
- align   their names and layouts, and ours; precision: what they computed in
- diagnosis  which step is wrong and what is wrong in it; report: that in words
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
