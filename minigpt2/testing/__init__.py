"""What other projects' tests import.

- tiny        small models, identical bit for bit everywhere, made so that bugs show
- comparison  assertions: another port's numbers against a golden's
- diagnose    (of tracing/) which step of a port is wrong, and what is wrong in it
- dumping     a page: how to compare a port, with examples in four languages
- promises    a page: what has the same bits, what agrees within what, and the proofs

The fixtures that go with them are in minigpt2/pytest_plugin.py.
"""

from ..tracing.diagnosis import Diagnosis, diagnose
from .comparison import assert_logits_close, assert_matches
from .tiny import TINY_MODELS, TinyInputs, tiny_inputs, tiny_model, tiny_models

__all__ = [
    "TINY_MODELS",
    "Diagnosis",
    "TinyInputs",
    "assert_logits_close",
    "assert_matches",
    "diagnose",
    "tiny_inputs",
    "tiny_model",
    "tiny_models",
]
