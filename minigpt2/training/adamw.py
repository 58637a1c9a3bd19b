"""AdamW: a step down the gradient, of a length that each number's own history chooses.

For each number p of the parameters, with gradient g, at step t = 1, 2, ...:

    p *= 1 - rate * decay                  weights shrink, whatever the gradient is
    m += (1 - b1) (g - m)                  the mean of g lately
    v += (1 - b2) (g^2 - v)                the mean of g^2 lately
    p -= rate * m' / (sqrt(v') + eps)      m' = m / (1 - b1^t), v' = v / (1 - b2^t)

m and v begin at 0, and m' and v' undo what is left of that. A number whose gradient keeps
its sign moves by `rate` a step, however small the gradient is. Source: Loshchilov & Hutter
2019, in the order of torch.optim.AdamW and with its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..model.pretrained import PreTrainedModel

BLOCK = 1 << 15  # numbers worked on at a time: what is made of them stays in the cache
DECAYS = ("matrices", "all")


class AdamW:
    """The optimizer of a model's parameters, tied ones once.

    It gives the model arrays of its own to compute with, which `step` changes; so the
    model must not be used by others meanwhile.

    Args:
        model: in float32 or float64, not quantized.
        rate: the learning rate, unless `step` is given another.
        betas: b1 and b2.
        decay: how fast decayed parameters shrink.
        decays: which do: "matrices" (and embeddings: all but biases and layer norms, as
            in nanoGPT), or "all" (as in llm.c).

    Raises:
        ValueError: a quantized model, or a number out of bounds.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        decay: float = 0.01,
        decays: str = "matrices",
    ):
        if model.weights != "float32":
            raise ValueError(
                f"a model in {model.weights} can't be trained: "
                "with_weights('float32') gives one that can"
            )
        if min(rate, eps, decay) < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"rate={rate}, eps={eps} and decay={decay} must not be negative, and "
                f"betas={betas} lie in 0 .. 1, without 1"
            )
        if decays not in DECAYS:
            raise ValueError(f"decays is {decays!r}; known are {', '.join(DECAYS)}")
        self.model, self.rate, self.betas, self.eps = model, rate, betas, eps
        self.decay, self.decays, self.steps = decay, decays, 0
        self.slots = model.own_slots()
        self.parameters = {
            name: np.array(getattr(module, attribute), order="C")
            for name, (module, attribute) in self.slots.items()
        }
        self.means = {n: np.zeros_like(p) for n, p in self.parameters.items()}
        self.squares = {n: np.zeros_like(p) for n, p in self.parameters.items()}
        self._hand_over()

    def step(self, grads: Mapping[str, np.ndarray], rate: float | None = None) -> None:
        """Change the parameters that have a gradient, by name, in `grads`."""
        rate = self.rate if rate is None else rate
        self.steps += 1
        for name, gradient in grads.items():
            parameter = self.parameters[name]
            decayed = self.decays == "all" or parameter.ndim >= 2
            self._change(
                parameter.reshape(-1),
                gradient.reshape(-1),
                self.means[name].reshape(-1),
                self.squares[name].reshape(-1),
                rate,
                self.decay if decayed else 0.0,
            )
        self._hand_over()

    def _change(
        self,
        parameter: np.ndarray,
        gradient: np.ndarray,
        mean: np.ndarray,
        square: np.ndarray,
        rate: float,
        decay: float,
    ) -> None:
        """Do what the top of this file says to [N] numbers, in place."""
        first, second = self.betas
        step = rate / (1.0 - first**self.steps)
        spread = math.sqrt(1.0 - second**self.steps)
        for start in range(0, len(parameter), BLOCK):
            block = slice(start, start + BLOCK)
            p, g, m, v = parameter[block], gradient[block], mean[block], square[block]
            p *= 1.0 - rate * decay
            m += (g - m) * (1.0 - first)
            v *= second
            v += g * g * (1.0 - second)
            change = np.sqrt(v)
            change /= spread
            change += self.eps
            np.divide(m, change, out=change)
            change *= step
            p -= change

    def _hand_over(self) -> None:
        """Let the model compute with the parameters, in its backend's layout."""
        for name, (module, attribute) in self.slots.items():
            setattr(module, attribute, self.parameters[name])

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return what a resumed run needs besides the parameters: the steps, m and v."""
        state = {"steps": np.array(self.steps)}
        state |= {f"means.{name}": array for name, array in self.means.items()}
        return state | {f"squares.{name}": a for name, a in self.squares.items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state; ValueError for that of another model."""
        mine = self.state_dict()
        shapes = {name: np.shape(array) for name, array in state.items()}
        if shapes != {name: array.shape for name, array in mine.items()}:
            raise ValueError("the optimizer's state is that of another model")
        self.steps = int(state["steps"])
        for name, array in mine.items():
            if name != "steps":
                array[...] = state[name]


def clip(grads: Mapping[str, np.ndarray], limit: float) -> float:
    """Scale gradients, in place, to a global norm of at most `limit`; return their norm.

    The norm is that of all numbers together, sqrt(sum of g^2), before the scaling: NaN
    or infinite if one of them is. As torch.nn.utils.clip_grad_norm_.
    """
    squares = (float(np.vdot(g, g)) for g in grads.values())
    norm = math.sqrt(math.fsum(squares))
    factor = limit / (norm + 1e-6)
    if factor < 1.0:
        for gradient in grads.values():
            gradient *= factor
    return norm
