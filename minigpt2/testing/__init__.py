"""What other projects' tests import.

- tiny  small models, identical bit for bit everywhere, made so that bugs show
"""

from .tiny import TINY_MODELS, TinyInputs, tiny_inputs, tiny_model, tiny_models

__all__ = ["TINY_MODELS", "TinyInputs", "tiny_inputs", "tiny_model", "tiny_models"]
