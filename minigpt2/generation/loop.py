"""The loop: a prompt through the model, then one id after another.

`steps` is the loop itself, an iterator of the next id of each row; `generate` gathers
what it gives into an array.
"""

import inspect
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import inputs
from . import processors
from .sampling import greedy, sample
from ..randomness import UniformStream
