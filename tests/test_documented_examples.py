"""The documented examples, word for word but for the import, "np" and torch.no_grad().

"gpt2" is a folder in a cache as huggingface_hub lays it out, with GPT-2's vocabulary
and positions but random weights of two narrow layers: what is checked is that each line
works and what it promises, not what the real model says. The reference page's comment
"(1, seq_len, 768)" reads (1, seq_len, n_embd) here.
"""

import numpy as np
import pytest

SIZES = {"n_embd": 48, "n_layer": 2, "n_head": 4}


@pytest.fixture(scope="module", autouse=True)
def gpt2_in_the_cache(tmp_path_factory):
    from huggingface_hub import constants

    from minigpt2 import GPT2Config, GPT2LMHeadModel

    cache = tmp_path_factory.mktemp("cache")
    commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    model = cache / "models--openai-community--gpt2"
    config = GPT2Config(**SIZES, initializer_range=0.2)
    GPT2LMHeadModel(config).save_pretrained(model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers
        yield


def test_the_example_of_the_base_model(capsys):
    from minigpt2 import GPT2Model, GPT2Tokenizer

    # Load model and tokenizer
    model = GPT2Model.from_pretrained("gpt2")
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")

    # Prepare input
    text = "The future of artificial intelligence is"
    inputs = tokenizer(text, return_tensors="np")

    # Get model outputs
    outputs = model(**inputs)

    # Access representations
    last_hidden_state = outputs.last_hidden_state  # Shape: (1, seq_len, 768)
    past_key_values = outputs.past_key_values  # For efficient generation

    print(f"Hidden state shape: {last_hidden_state.shape}")
    print(f"Number of past layers: {len(past_key_values) if past_key_values else 0}")

    assert capsys.readouterr().out == (
        "Hidden state shape: (1, 6, 48)\nNumber of past layers: 2\n"
    )
    assert isinstance(last_hidden_state, np.ndarray)
    assert past_key_values[0][0].shape == (1, 4, 6, 12)


def test_the_example_of_generation(capsys):
    from minigpt2 import GPT2LMHeadModel, GPT2Tokenizer

    # Load model and tokenizer
    model = GPT2LMHeadModel.from_pretrained("gpt2")
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")

    # Set pad token
    tokenizer.pad_token = tokenizer.eos_token

    # Generate text
    prompt = "The future of artificial intelligence"
    inputs = tokenizer.encode(prompt, return_tensors="np")

    # Generate with different strategies
    # Greedy generation
    greedy_output = model.generate(
        inputs,
        max_length=50,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )

    # Sampling with temperature
    sample_output = model.generate(
        inputs,
        max_length=50,
        do_sample=True,
        temperature=0.8,
        top_k=50,
        top_p=0.9,
        pad_token_id=tokenizer.eos_token_id,
    )

    # Decode generated text
    greedy_text = tokenizer.decode(greedy_output[0], skip_special_tokens=True)
    sample_text = tokenizer.decode(sample_output[0], skip_special_tokens=True)

    print(f"Greedy: {greedy_text}")
    print(f"Sampled: {sample_text}")

    assert inputs.shape == (1, 5)
    assert inputs.dtype.kind == "i"
    for output in (greedy_output, sample_output):
        assert output.shape[0] == 1
        assert 5 < output.shape[1] <= 50
        np.testing.assert_array_equal(output[:, :5], inputs)
    out = capsys.readouterr().out
    assert out.startswith("Greedy: The future of artificial intelligence")
    assert "\nSampled: The future of artificial intelligence" in out

    # Text Generation Strategies
    input_ids = inputs

    output = model.generate(input_ids, do_sample=False)
    np.testing.assert_array_equal(output, greedy_output[:, :25])

    output = model.generate(input_ids, do_sample=True, temperature=0.8)
    assert output.shape == (1, 25)

    output = model.generate(input_ids, do_sample=True, top_k=50)
    assert output.shape == (1, 25)

    output = model.generate(input_ids, do_sample=True, top_p=0.9)
    assert output.shape == (1, 25)

    output = model.generate(
        input_ids,
        do_sample=True,
        temperature=0.8,
        top_k=50,
        top_p=0.9,
        repetition_penalty=1.1,
    )
    assert output.shape == (1, 25)


def test_the_example_of_the_tokenizer(capsys):
    from minigpt2 import GPT2Tokenizer

    # Load tokenizer
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")

    # GPT-2 uses the same token for BOS, EOS, UNK, and PAD
    print(f"Special token: {tokenizer.eos_token}")  # <|endoftext|>

    # Tokenize text
    text = "Hello, how are you today?"
    tokens = tokenizer.tokenize(text)
    token_ids = tokenizer.encode(text)

    print(f"Tokens: {tokens}")
    print(f"Token IDs: {token_ids}")

    # Decode back
    decoded = tokenizer.decode(token_ids)
    print(f"Decoded: {decoded}")

    # Handle multiple sequences
    texts = ["First sentence.", "Second sentence."]
    encoded = tokenizer(
        texts,
        padding=True,
        truncation=True,
        return_tensors="np",
    )

    print(f"Batch shape: {encoded['input_ids'].shape}")

    assert capsys.readouterr().out.splitlines() == [
        "Special token: <|endoftext|>",
        "Tokens: ['Hello', ',', 'Ġhow', 'Ġare', 'Ġyou', 'Ġtoday', '?']",
        "Token IDs: [15496, 11, 703, 389, 345, 1909, 30]",
        "Decoded: Hello, how are you today?",
        "Batch shape: (2, 3)",
    ]


def test_the_double_heads_model_and_the_tensorflow_loader_take_what_is_documented(
    tmp_path,
):
    from minigpt2 import (
        GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP,
        GPT2_PRETRAINED_MODEL_ARCHIVE_MAP,
        GPT2Config,
        GPT2DoubleHeadsModel,
        GPT2Model,
        load_tf_weights_in_gpt2,
    )
    from minigpt2.checkpoints.names import openai_name
    from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle

    config = GPT2Config(vocab_size=31, n_positions=8, n_embd=12, n_layer=1, n_head=2)
    model = GPT2DoubleHeadsModel(config)
    ids = np.arange(12).reshape(1, 2, 6)
    outputs = model(
        input_ids=ids,
        past=None,
        attention_mask=np.ones((2, 6), int),
        token_type_ids=None,
        position_ids=None,
        head_mask=None,
        inputs_embeds=None,
        mc_token_ids=np.array([[5, 3]]),
        lm_labels=ids,
        mc_labels=np.array([1]),
    )
    assert outputs.lm_loss > 0
    assert outputs.mc_loss > 0
    assert outputs.lm_logits.shape == (1, 2, 6, 31)
    assert outputs.mc_logits.shape == (1, 2)
    assert len(outputs.past_key_values) == 1

    base = GPT2Model(config)
    variables = {openai_name(name): array for name, array in base.state_dict().items()}
    save_tf_bundle(tmp_path / "model.ckpt", variables)
    loaded = load_tf_weights_in_gpt2(
        model=GPT2Model(config, seed=5), gpt2_checkpoint_path=str(tmp_path)
    )
    for name, array in loaded.state_dict().items():
        np.testing.assert_array_equal(array, base.state_dict()[name])

    for addresses in (
        GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP,
        GPT2_PRETRAINED_MODEL_ARCHIVE_MAP,
    ):
        assert {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"} <= set(addresses)
        assert all(isinstance(address, str) for address in addresses.values())
