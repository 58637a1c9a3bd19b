"""GPT-2 in plain sight: NumPy ops, Numba kernels, no torch and no TensorFlow.

    from minigpt2 import GPT2LMHeadModel, GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    model = GPT2LMHeadModel.from_pretrained("shakespeare-1m")
    ids = tokenizer.encode("To be, or not to be", return_tensors="np")
    print(tokenizer.decode(model.generate(ids, max_length=40)[0]))

The files in reading order, the order in which text travels: bpe, tokenizer/, config,
checkpoints/, hub, ops, quantization, modules, model (with inputs, cache, outputs,
parameters, pretrained, small_files), double_heads, generation/, cli. A public name is
imported when it is first used, so importing this package costs nothing.
"""

import importlib

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
    "AutoTokenizer": "model.auto",
    "BaseModelOutputWithPast": "model.outputs",
    "BatchEncoding": "tokenizer",
    "CausalLMOutputWithPast": "model.outputs",
    "CheckpointError": "checkpoints",
    "GPT2Config": "config",
    "GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP": "config",
    "GPT2_PRETRAINED_MODEL_ARCHIVE_MAP": "config",
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
    "PreTrainedModel": "model.pretrained",
    "PreTrainedTokenizer": "tokenizer",
    "PrefixCache": "generation.prefix_cache",
    "PretrainedConfig": "config",
    "TextStreamer": "generation.streamers",
    "load_tf_weights_in_gpt2": "model.pretrained",
    "trace": "tracing",
}

__all__ = list(_HOMES)

# What else transformers has of GPT-2; refused with a word on what is here.
_OTHER_MODELS = ("GPT2For", "AutoModelFor", "TFGPT2", "TFAutoModel", "FlaxGPT2")


def __getattr__(name):
    if name.startswith(_OTHER_MODELS) and name not in _HOMES:
        # `from minigpt2 import` would swallow the text of an AttributeError.
        raise ImportError(
            f"minigpt2 has no {name}. Its models are GPT2Model, GPT2LMHeadModel, "
            "GPT2DoubleHeadsModel and GPT2For{SequenceClassification, "
            "TokenClassification, QuestionAnswering}; any other head reads GPT2Model's "
            "last_hidden_state"
        )
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*_HOMES, "__version__"])
