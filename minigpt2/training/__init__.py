"""The way back: gradients by hand, and what is made of them.

- backward              for each op of ops.py, in its order, where the gradient goes
- backward_activations  the same for activations.py
"""
