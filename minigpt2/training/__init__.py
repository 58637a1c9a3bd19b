"""The way back: gradients by hand, and what is made of them.

- backward              for each op of ops.py, in its order, where the gradient goes
- backward_activations  the same for activations.py
- kept                  what a forward pass leaves behind for the way back
- gradients             loss_and_grads: a whole model, layer by layer in reverse
"""

from .gradients import loss_and_grads

__all__ = ["loss_and_grads"]
