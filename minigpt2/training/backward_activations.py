"""The way back through activations.py, in its order. See backward.py.

Each function takes dy and x and gives dx = dy * dy/dx. Where a slope jumps (at 0, say),
it is torch's. Far out, where a slope is 0 or 1, it is exactly that, with no warning.
"""

import math

import numpy as np

from .. import activations

# From here on tanh(k (x + a x^3)) is 1 to the last bit of float64, so x may be clipped:
# 1 - tanh^2 = 0 then meets no infinite power of x.
SATURATED = 16.0


def tanh_gelu(dy: np.ndarray, x: np.ndarray, k: float) -> np.ndarray:
    """The derivative of x/2 (1 + tanh(k (x + 0.044715 x^3))): see backward.gelu_new."""
    x = np.clip(x, -SATURATED, SATURATED)
    square = x * x
    t = 0.044715 * square
    t += 1.0
    t *= x
    t *= k
    np.tanh(t, out=t)
    square *= 3.0 * 0.044715 * k
    square += k  # du/dx
    square *= x
    slope = t * t
    np.subtract(1.0, slope, out=slope)  # dt/du
    slope *= square
    slope += t
    slope += 1.0
    slope *= 0.5
    slope *= dy
    return slope


def gelu_slope(x: np.ndarray) -> np.ndarray:
    """Phi(x) + x phi(x), the derivative of the exact GELU: see backward.gelu."""
    with np.errstate(over="ignore"):  # x^2 = inf: phi is 0
        density = np.exp(-0.5 * (x * x)) * (1.0 / math.sqrt(2.0 * math.pi))
    return 0.5 * (1.0 + activations.erf(x * math.sqrt(0.5))) + x * density


def sigmoid(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = 1 / (1 + e), e = exp(-x): dy/dx = e / (1 + e)^2 = y (1 - y)."""
    y = activations.sigmoid(x)
    return dy * (y * (1.0 - y))


def linear(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x: dy/dx = 1."""
    return dy


def gelu_fast(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """gelu_new with k = 0.7978845608."""
    return tanh_gelu(dy, x, 0.7978845608)


def quick_gelu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x s, with s = sigmoid(1.702 x): dy/dx = s + x 1.702 s (1 - s)."""
    s = activations.sigmoid(np.clip(x, -1e6, 1e6) * 1.702)
    return dy * (s + x * (1.702 * s * (1.0 - s)))


def gelu_10(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = gelu(x) clipped to -10 .. 10: gelu's slope within, 0 where it is clipped.

    gelu(x) is above -0.17, and x itself from about 6 on: it is clipped above x = 10.
    """
    return dy * np.where(x <= 10.0, gelu_slope(x), 0.0)


def relu2(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = max(x, 0)^2: dy/dx = 2 max(x, 0)."""
    with np.errstate(over="ignore"):
        return dy * (2.0 * np.maximum(x, 0.0))


def relu6(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x within 0 .. 6: dy/dx is 1 there, and 0 outside and at the ends."""
    return dy * ((x > 0.0) & (x < 6.0))


def leaky_relu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x above 0, x / 100 below: dy/dx is 1 or 1/100."""
    return np.where(x > 0.0, dy, 0.01 * dy)


def hardswish(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = 0 below -3, x above 3, x (x + 3) / 6 between: dy/dx = 0, 1, x/3 + 1/2."""
    slope = np.clip(x, -3.0, 3.0) / 3.0 + 0.5
    return dy * np.where(x <= -3.0, 0.0, np.where(x >= 3.0, 1.0, slope))


def mish(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x t, with t = tanh(p), p = log(1 + exp(x)) and dp/dx = sigmoid(x).

    dy/dx = t + x (1 - t^2) sigmoid(x).
    """
    t = np.tanh(np.logaddexp(0.0, x))
    return dy * (t + x * ((1.0 - t * t) * activations.sigmoid(x)))


def laplace(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = (1 + erf(u / sqrt(2))) / 2, with u = (x - mu) / sigma: the normal distribution.

    Its density is that of u over sigma: dy/dx = exp(-u^2 / 2) / (sigma sqrt(2 pi)).
    """
    with np.errstate(over="ignore"):  # u^2 = inf: 0
        u = (x - 0.707107) / 0.282095
        return dy * (
            np.exp(-0.5 * (u * u)) * (1.0 / (0.282095 * math.sqrt(2 * math.pi)))
        )
