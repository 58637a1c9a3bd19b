"""Hugging Face's Auto classes, which find a model's class out: here it is GPT-2's.

    AutoConfig.from_pretrained            GPT2Config.from_pretrained
    AutoTokenizer.from_pretrained         GPT2Tokenizer.from_pretrained
    AutoModel.from_pretrained             GPT2Model.from_pretrained
    AutoModelForCausalLM.from_pretrained  GPT2LMHeadModel.from_pretrained

The folder of another kind of model is refused when its configuration is read.
`from_config(config)` makes a fresh model, as calling the class does.
"""

from ..config import GPT2Config
from ..tokenizer import GPT2Tokenizer
from .gpt2 import GPT2LMHeadModel, GPT2Model


class AutoConfig:
    """GPT2Config, by the name that fits every model."""

    from_pretrained = GPT2Config.from_pretrained


class AutoTokenizer:
    """GPT2Tokenizer, by the name that fits every model."""

    from_pretrained = GPT2Tokenizer.from_pretrained


class AutoModel:
    """GPT2Model, by the name that fits every model."""

    from_pretrained = GPT2Model.from_pretrained
    from_config = GPT2Model


class AutoModelForCausalLM:
    """GPT2LMHeadModel, by the name that fits every model."""

    from_pretrained = GPT2LMHeadModel.from_pretrained
    from_config = GPT2LMHeadModel


AutoModelWithLMHead = AutoModelForCausalLM  # its name until transformers 3.0
