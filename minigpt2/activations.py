"""The activations that other checkpoints of GPT-2's kind name, beside those in ops.py.

Names and formulas are transformers' (ACT2FN). Each takes and returns an array of floats
of any shape, and keeps its dtype.
"""

import math

import numpy as np


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp(-x) = inf: the limit, 0, is right
        return 1.0 / (1.0 + np.exp(-x))


def linear(x: np.ndarray) -> np.ndarray:
    """x itself."""
    return x


def gelu_fast(x: np.ndarray) -> np.ndarray:
    """gelu_new with a constant of ten digits: x/2 (1 + tanh(0.7978845608 x (1 + ...)))."""
    with np.errstate(over="ignore"):
        inner = x * 0.7978845608 * (1.0 + 0.044715 * x * x)
    return 0.5 * (1.0 + np.tanh(inner)) * x


def quick_gelu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(1.702 x). Source: Hendrycks & Gimpel 2016."""
    return x * sigmoid(1.702 * x)


def gelu_10(x: np.ndarray) -> np.ndarray:
    """The exact GELU, clipped to -10 .. 10. Source: Wu et al. 2020."""
    return np.clip(0.5 * (1.0 + erf(x * math.sqrt(0.5))) * x, -10.0, 10.0)


def relu2(x: np.ndarray) -> np.ndarray:
    """max(x, 0)^2. Source: So et al. 2021."""
    with np.errstate(over="ignore"):
        return np.square(np.maximum(x, 0.0))


def relu6(x: np.ndarray) -> np.ndarray:
    """x within 0 .. 6."""
    return np.clip(x, 0.0, 6.0)


def leaky_relu(x: np.ndarray) -> np.ndarray:
    """x above 0, x / 100 below."""
    return np.where(x > 0.0, x, 0.01 * x)


def hardswish(x: np.ndarray) -> np.ndarray:
    """x * relu6(x + 3) / 6. Source: Howard et al. 2019."""
    return x * (relu6(x + 3.0) / 6.0)


def mish(x: np.ndarray) -> np.ndarray:
    """x * tanh(log(1 + exp(x))). Source: Misra 2019."""
    return x * np.tanh(np.logaddexp(0.0, x))


def laplace(x: np.ndarray) -> np.ndarray:
    """(1 + erf((x - mu) / (sigma sqrt(2)))) / 2 with mu = 0.707107, sigma = 0.282095.

    Source: Ma et al. 2022.
    """
    return 0.5 * (1.0 + erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))
