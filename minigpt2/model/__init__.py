"""Ids -> logits: the documented classes. In reading order:

- gpt2          GPT-2 itself: attention, MLP, block, model, head
- double_heads, classifiers   models with other heads
- layers        what holds the parameters: embedding, linear, layer norm
- inputs, cache, outputs      what a pass is given, remembers and returns
- parameters    the tree of parameters by name
- loading       tensors -> parameters, all of them or none
- pretrained    models from files and into files
- keywords      options of transformers: accepted without effect, or refused with advice
- surgery       more ids, other embeddings, fewer heads
- backends      which ops a model is made of
- auto          the Auto classes
"""
