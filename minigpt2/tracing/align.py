"""Their names and layouts, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checkpoints.names import PREFIX
from .replay import Arrays, Reference


@dataclass
class Aligned:
    """Their arrays by our names, in our layout and float64."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def align(
    theirs: Mapping[str, Any],
    ours: Arrays,
    reference: Reference,
    names: Mapping[str, str] | None = None,
) -> Aligned:
    """Return their arrays by our names."""
    aligned = Aligned()
    for name, array in theirs.items():
        mine = (names or {}).get(name, name).removeprefix(PREFIX)
        if mine in ours:
            aligned.arrays[mine] = np.asarray(array, np.float64)
    return aligned
