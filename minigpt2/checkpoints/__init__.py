"""Files of weights -> {name: array}, without the frameworks that wrote them."""


class CheckpointError(ValueError):
    """A file of weights that is damaged, incomplete, or not what it should be."""
