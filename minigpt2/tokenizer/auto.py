"""AutoTokenizer: Hugging Face's class for any tokenizer. Here it is GPT-2's."""

from .gpt2 import GPT2Tokenizer


class AutoTokenizer:
    """GPT2Tokenizer, by the name that fits every model."""

    from_pretrained = GPT2Tokenizer.from_pretrained
