"""Ids -> scores: the documented classes. In reading order:

- gpt2          GPT-2 itself: attention, MLP, block, model, head
- double_heads  the model with a second head
- layers        what holds the parameters: embedding, linear, layer norm
- inputs, cache, outputs   what a pass is given, remembers and returns
- parameters    the tree of parameters by name
- pretrained    models from files and into files
- backends      which ops a model is made of
- auto          the Auto classes
"""
