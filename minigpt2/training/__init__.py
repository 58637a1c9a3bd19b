"""The way back: gradients by hand, and the steps that are made of them.

- backward              for each op of ops.py, in its order, where the gradient goes
- backward_activations  the same for activations.py
- kept                  what a forward pass leaves behind for the way back
- gradients             loss_and_grads: a whole model, layer by layer in reverse
- adamw                 AdamW: from gradients to the next parameters; clip
- schedule              the learning rate of each step
- debug_state           what llm.c's file of that name has
"""

from .adamw import AdamW, clip
from .gradients import loss_and_grads
from .schedule import Schedule

__all__ = ["AdamW", "Schedule", "clip", "loss_and_grads"]
