"""The learning rate of each step: warm-up, then constant or a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("constant", "cosine")


@dataclass(frozen=True)
class Schedule:
    """rate(step) for the steps 0 .. steps - 1.

    Over the first `warmup` steps the rate rises in a line to `peak`, which the last of
    them has. Then it stays there, or goes down as half a cosine to `peak * least` at step
    `steps`, and stays there. As llm.c's.

    Raises:
        ValueError: an unknown shape, or numbers that fit no schedule.
    """

    peak: float
    steps: int
    warmup: int = 0
    shape: str = "cosine"
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape is {self.shape!r}; known are {', '.join(SHAPES)}")
        if not 0 <= self.warmup <= self.steps or self.peak < 0:
            raise ValueError(
                f"warmup={self.warmup} must lie in 0 .. steps={self.steps}, and "
                f"peak={self.peak} not be negative"
            )
        if not 0.0 <= self.least <= 1.0:
            raise ValueError(
                f"least={self.least} must lie in 0 .. 1: a part of the peak"
            )

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.shape == "constant":
            return self.peak
        rest = self.steps - self.warmup
        done = min((step - self.warmup) / rest, 1.0) if rest else 1.0
        height = 0.5 * (1.0 + math.cos(math.pi * done))  # 1 .. 0
        return self.peak * (self.least + (1.0 - self.least) * height)
