"""GPT-2 in plain sight: NumPy ops, Numba kernels, no torch and no TensorFlow.

    from minigpt2 import GPT2LMHeadModel, GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    model = GPT2LMHeadModel.from_pretrained("shakespeare-1m")
    ids = tokenizer.encode("To be, or not to be", return_tensors="np")
    print(tokenizer.decode(model.generate(ids, max_length=40)[0]))

To read: plain, GPT-2 on one page; then in the order in which text travels bpe,
tokenizer/, config, hub/, checkpoints/, ops, quantization/, model/, generation/,
tracing/, kernels/, tasks/ and cli. The page for contributors is contributing.py. A
public name is imported when it is first used, so importing this package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AddedToken": "tokenizer",
    "AutoConfig": "model.auto",
    "AutoModel": "model.auto",
    "AutoModelForCausalLM": "model.auto",
    "AutoModelForQuestionAnswering": "model.auto",
    "AutoModelForSequenceClassification": "model.auto",
    "AutoModelForTokenClassification": "model.auto",
    "AutoModelWithLMHead": "model.auto",
    "AutoTokenizer": "tokenizer.auto",
    "BaseModelOutputWithPast": "model.outputs",
    "BatchEncoding": "tokenizer",
    "CausalLMOutputWithPast": "model.outputs",
    "CheckpointError": "checkpoints",
    "GPT2Config": "config",
    "GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP": "hub.archive",
    "GPT2_PRETRAINED_MODEL_ARCHIVE_MAP": "hub.archive",
    "GPT2DoubleHeadsModel": "model.double_heads",
    "GPT2DoubleHeadsModelOutput": "model.outputs",
    "GPT2ForQuestionAnswering": "model.classifiers",
    "GPT2ForSequenceClassification": "model.classifiers",
    "GPT2ForTokenClassification": "model.classifiers",
    "GPT2LMHeadModel": "model.gpt2",
    "GPT2Model": "model.gpt2",
    "GPT2Tokenizer": "tokenizer",
    "GPT2TokenizerFast": "tokenizer",
    "GenerationConfig": "generation.config",
    "KVCache": "model.cache",
    "LogitsProcessor": "generation.chain",
    "LogitsProcessorList": "generation.chain",
    "PreTrainedModel": "model.pretrained",
    "PreTrainedTokenizer": "tokenizer",
    "PrefixCache": "generation.prefix_cache",
    "PretrainedConfig": "config",
    "StoppingCriteria": "generation.stopping",
    "StoppingCriteriaList": "generation.stopping",
    "TextIteratorStreamer": "generation.streamers",
    "TextStreamer": "generation.streamers",
    "get_num_threads": "runtime.threads",
    "load_tf_weights_in_gpt2": "model.pretrained",
    "set_num_threads": "runtime.threads",
    "trace": "tracing.trace",
}

__all__ = list(_HOMES)

if TYPE_CHECKING:  # the same names, for type checkers and editors; a test compares
    from .checkpoints import (
        CheckpointError as CheckpointError,
    )
    from .config import (
        GPT2Config as GPT2Config,
        PretrainedConfig as PretrainedConfig,
    )
    from .generation.chain import (
        LogitsProcessor as LogitsProcessor,
        LogitsProcessorList as LogitsProcessorList,
    )
    from .generation.config import (
        GenerationConfig as GenerationConfig,
    )
    from .generation.prefix_cache import (
        PrefixCache as PrefixCache,
    )
    from .generation.stopping import (
        StoppingCriteria as StoppingCriteria,
        StoppingCriteriaList as StoppingCriteriaList,
    )
    from .generation.streamers import (
        TextIteratorStreamer as TextIteratorStreamer,
        TextStreamer as TextStreamer,
    )
    from .hub.archive import (
        GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP as GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP,
        GPT2_PRETRAINED_MODEL_ARCHIVE_MAP as GPT2_PRETRAINED_MODEL_ARCHIVE_MAP,
    )
    from .model.auto import (
        AutoConfig as AutoConfig,
        AutoModel as AutoModel,
        AutoModelForCausalLM as AutoModelForCausalLM,
        AutoModelForQuestionAnswering as AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification as AutoModelForSequenceClassification,
        AutoModelForTokenClassification as AutoModelForTokenClassification,
        AutoModelWithLMHead as AutoModelWithLMHead,
    )
    from .model.cache import (
        KVCache as KVCache,
    )
    from .model.classifiers import (
        GPT2ForQuestionAnswering as GPT2ForQuestionAnswering,
        GPT2ForSequenceClassification as GPT2ForSequenceClassification,
        GPT2ForTokenClassification as GPT2ForTokenClassification,
    )
    from .model.double_heads import (
        GPT2DoubleHeadsModel as GPT2DoubleHeadsModel,
    )
    from .model.gpt2 import (
        GPT2LMHeadModel as GPT2LMHeadModel,
        GPT2Model as GPT2Model,
    )
    from .model.outputs import (
        BaseModelOutputWithPast as BaseModelOutputWithPast,
        CausalLMOutputWithPast as CausalLMOutputWithPast,
        GPT2DoubleHeadsModelOutput as GPT2DoubleHeadsModelOutput,
    )
    from .model.pretrained import (
        PreTrainedModel as PreTrainedModel,
        load_tf_weights_in_gpt2 as load_tf_weights_in_gpt2,
    )
    from .runtime.threads import (
        get_num_threads as get_num_threads,
        set_num_threads as set_num_threads,
    )
    from .tokenizer import (
        AddedToken as AddedToken,
        BatchEncoding as BatchEncoding,
        GPT2Tokenizer as GPT2Tokenizer,
        GPT2TokenizerFast as GPT2TokenizerFast,
        PreTrainedTokenizer as PreTrainedTokenizer,
    )
    from .tokenizer.auto import (
        AutoTokenizer as AutoTokenizer,
    )
    from .tracing.trace import (
        trace as trace,
    )

# What transformers has besides models, and what serves here.
_INSTEAD = {
    "set_seed": "pass seed= to generate, or a numpy.random.Generator for dropout",
    "pipeline": (
        "a model, its tokenizer and generate do what it does: tokenizer.decode("
        "model.generate(tokenizer.encode(text, return_tensors='np'))[0])"
    ),
}

# What else transformers has of GPT-2; refused with a word on what is here.
_OTHER_MODELS = ("GPT2For", "AutoModelFor", "TFGPT2", "TFAutoModel", "FlaxGPT2")

if not TYPE_CHECKING:  # a type checker would take any name for one that is here

    def __getattr__(name: str) -> Any:
        if name.startswith(_OTHER_MODELS) and name not in _HOMES:
            # `from minigpt2 import` would swallow the text of an AttributeError.
            raise ImportError(
                f"minigpt2 has no {name}. Its models are GPT2Model, GPT2LMHeadModel, "
                "GPT2DoubleHeadsModel and GPT2For{SequenceClassification, "
                "TokenClassification, QuestionAnswering}; any other head reads GPT2Model's "
                "last_hidden_state"
            )
        if name in _INSTEAD:
            raise ImportError(f"minigpt2 has no {name}: {_INSTEAD[name]}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
