"""Hugging Face's Auto classes, which find a model's class out: here it is GPT-2's.

    AutoConfig.from_pretrained            GPT2Config.from_pretrained
    AutoModel.from_pretrained             GPT2Model.from_pretrained
    AutoModelForCausalLM.from_pretrained  GPT2LMHeadModel.from_pretrained

and AutoModelForSequenceClassification, ...ForTokenClassification and
...ForQuestionAnswering likewise. AutoTokenizer is in tokenizer/auto.py.

The folder of another kind of model is refused when its configuration is read.
`from_config(config)` makes a fresh model, as calling the class does.
"""

from ..config import GPT2Config
from .classifiers import (
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
)
from .gpt2 import GPT2LMHeadModel, GPT2Model


class AutoConfig:
    """GPT2Config, by the name that fits every model."""

    from_pretrained = GPT2Config.from_pretrained


class AutoModel:
    """GPT2Model, by the name that fits every model."""

    from_pretrained = GPT2Model.from_pretrained
    from_config = GPT2Model


class AutoModelForCausalLM:
    """GPT2LMHeadModel, by the name that fits every model."""

    from_pretrained = GPT2LMHeadModel.from_pretrained
    from_config = GPT2LMHeadModel


class AutoModelForSequenceClassification:
    """GPT2ForSequenceClassification, by the name that fits every model."""

    from_pretrained = GPT2ForSequenceClassification.from_pretrained
    from_config = GPT2ForSequenceClassification


class AutoModelForTokenClassification:
    """GPT2ForTokenClassification, by the name that fits every model."""

    from_pretrained = GPT2ForTokenClassification.from_pretrained
    from_config = GPT2ForTokenClassification


class AutoModelForQuestionAnswering:
    """GPT2ForQuestionAnswering, by the name that fits every model."""

    from_pretrained = GPT2ForQuestionAnswering.from_pretrained
    from_config = GPT2ForQuestionAnswering


AutoModelWithLMHead = AutoModelForCausalLM  # its name until transformers 3.0
