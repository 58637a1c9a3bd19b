"""Every number by name.

- steps  the steps of a forward pass in order: name, op, inputs, shape, meaning
- trace  a pass step by step: what each one gave, and what follows if it is replaced
"""

from .trace import Trace, trace

__all__ = ["Trace", "trace"]
