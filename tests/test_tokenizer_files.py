"""Folders of tokenizers: read, written, and exchanged with transformers."""

import json
from pathlib import Path

import pytest

from minigpt2 import bpe
from minigpt2.tokenizer import AddedToken, GPT2Tokenizer
from minigpt2.tokenizer.fast_bpe import FastBPE

VOCAB_BPE = Path(bpe.__file__).parent / "data" / "gpt2" / "vocab.bpe"
END = "<|endoftext|>"
TEXT = f"Hi <x> there <y><pad><s> you{END} Ünïcode 中"


@pytest.fixture(scope="module")
def ids():
    ids = FastBPE(bpe.read_merges(VOCAB_BPE)).ids
    return ids | {END: len(ids)}


@pytest.fixture
def rich():
    """A tokenizer with everything that a folder must keep."""
    tokenizer = GPT2Tokenizer.from_pretrained(
        "gpt2",
        padding_side="left",
        truncation_side="left",
        add_prefix_space=True,
        model_max_length=77,
        chat_template="{{ kept }}",
    )
    tokenizer.add_tokens(["<x>", AddedToken("<y>", lstrip=True)])
    tokenizer.add_special_tokens(
        {"pad_token": "<pad>", "additional_special_tokens": ["<s>"]}
    )
    return tokenizer


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def vocabulary_files(ids, layout):
    vocab, merges = {
        "openai": ("encoder.json", "vocab.bpe"),
        "huggingface": ("vocab.json", "merges.txt"),
    }[layout]
    return {vocab: ids, merges: VOCAB_BPE.read_text("utf-8")}


def whole_file(ids, **changes):
    """tokenizer.json as transformers writes it."""
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": 50256,
                "content": END,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            },
            {"id": 50257, "content": "<x>", "lstrip": True, "special": False},
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "vocab": ids,
            "merges": bpe.read_merges(VOCAB_BPE),
        },
    } | changes


def same(one, other):
    """Whether two tokenizers do the same."""
    return (
        one.encode(TEXT) == other.encode(TEXT)
        and one.get_vocab() == other.get_vocab()
        and one.added_tokens_decoder == other.added_tokens_decoder
        and one.special_tokens_map == other.special_tokens_map
    )


# --- reading ---


@pytest.mark.parametrize("layout", ["openai", "huggingface"])
@pytest.mark.parametrize("as_what", [str, Path])
def test_both_layouts_of_a_folder_are_read(tmp_path, ids, layout, as_what):
    folder = write(tmp_path / layout, vocabulary_files(ids, layout))
    tokenizer = GPT2Tokenizer.from_pretrained(as_what(folder))
    assert same(tokenizer, GPT2Tokenizer.from_pretrained("gpt2"))
    assert tokenizer.encode(f"Hello{END} world") == [15496, 50256, 995]
    assert tokenizer.name_or_path == str(folder)


@pytest.mark.parametrize("layout", ["openai", "huggingface"])
def test_ids_follow_from_the_merges_where_they_are_missing(tmp_path, ids, layout):
    files = vocabulary_files(ids, layout)
    del files["encoder.json" if layout == "openai" else "vocab.json"]
    tokenizer = GPT2Tokenizer.from_pretrained(write(tmp_path, files))
    assert tokenizer.encoder == ids


def test_a_folder_without_merges_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no merges\.txt, vocab\.bpe or token"):
        GPT2Tokenizer.from_pretrained(tmp_path)


def test_settings_come_from_the_files_and_keywords_go_before(tmp_path, ids):
    config = {
        "model_max_length": 5,
        "padding_side": "left",
        "pad_token": {"__type": "AddedToken", "content": "<pad>", "lstrip": True},
        "tokenizer_class": "GPT2TokenizerFast",
        "something_else": [1],
    }
    files = vocabulary_files(ids, "huggingface") | {"tokenizer_config.json": config}
    folder = write(tmp_path, files)
    tokenizer = GPT2Tokenizer.from_pretrained(folder, padding_side="right")
    assert tokenizer.model_max_length == 5
    assert tokenizer.padding_side == "right"
    assert tokenizer.pad_token == "<pad>"
    assert tokenizer.encode("a  <pad>") == [64, 50257]
    assert tokenizer.init_kwargs["something_else"] == [1]


def test_files_from_before_2023_are_read(tmp_path, ids):
    files = vocabulary_files(ids, "huggingface") | {
        "added_tokens.json": {"<x>": 50258, "<pad>": 50257},
        "special_tokens_map.json": {
            "pad_token": "<pad>",
            "cls_token": {"content": "<x>", "rstrip": True},
            "additional_special_tokens": ["<s>"],
        },
    }
    tokenizer = GPT2Tokenizer.from_pretrained(write(tmp_path, files))
    assert tokenizer.encode("<x><pad><s>") == [50258, 50257, 50259]
    assert tokenizer.all_special_tokens == [END, "<pad>", "<x>", "<s>"]
    assert tokenizer.decode([64, 50257, 50258], skip_special_tokens=True) == "a"


@pytest.mark.parametrize("merges_are", [str, list])
def test_tokenizer_json_is_read(tmp_path, ids, merges_are):
    whole = whole_file(ids)
    if merges_are is list:
        whole["model"]["merges"] = [m.split(" ") for m in whole["model"]["merges"]]
    config = {"pad_token": "<x>", "extra_special_tokens": ["<s>"]}
    files = {"tokenizer.json": whole, "tokenizer_config.json": config}
    tokenizer = GPT2Tokenizer.from_pretrained(write(tmp_path, files))
    assert tokenizer.encode(f"Hello  <x>{END}<s>") == [15496, 50257, 50256, 50258]
    assert tokenizer.pad_token_id == 50257
    assert tokenizer.additional_special_tokens == ["<s>"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": {"type": "WordPiece"}}, "model.type is 'WordPiece', not 'BPE'"),
        ({"model": {"type": "BPE", "byte_fallback": True}}, "byte_fallback"),
        ({"model": {"type": "BPE", "ignore_merges": True}}, "ignore_merges"),
        ({"model": {"type": "BPE", "dropout": 0.1}}, "dropout is 0.1, not None"),
        ({"model": {"type": "BPE", "end_of_word_suffix": "</w>"}}, "suffix is '</w>'"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "pre_tokenizer.type is 'Metaspace'"),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}}, "use_regex"),
        ({"pre_tokenizer": None}, "pre_tokenizer.type is None, not 'ByteLevel'"),
        ({"normalizer": {"type": "NFC"}}, "normalizer"),
    ],
)
def test_what_is_not_byte_level_bpe_is_refused(tmp_path, ids, changes, what):
    folder = write(tmp_path, {"tokenizer.json": whole_file(ids, **changes)})
    with pytest.raises(ValueError, match=f"not GPT-2's byte-level BPE.*{what}"):
        GPT2Tokenizer.from_pretrained(folder)


def test_a_tokenizer_json_without_a_vocabulary_is_refused(tmp_path, ids):
    for model in ({"type": "BPE", "vocab": ids}, {"vocab": [], "merges": []}, {}):
        folder = write(tmp_path, {"tokenizer.json": whole_file(ids, model=model)})
        with pytest.raises(
            ValueError, match="no model with a vocab and merges|vocab is a list"
        ):
            GPT2Tokenizer.from_pretrained(folder)


def test_a_folder_of_another_tokenizer_is_refused(tmp_path, ids):
    config = {"tokenizer_class": "RobertaTokenizer"}
    files = vocabulary_files(ids, "huggingface") | {"tokenizer_config.json": config}
    with pytest.raises(ValueError, match="is of a RobertaTokenizer"):
        GPT2Tokenizer.from_pretrained(write(tmp_path, files))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "vocab.json"])
def test_a_broken_file_is_refused_by_name(tmp_path, ids, name):
    files = vocabulary_files(ids, "huggingface") | {name: "<html>"}
    with pytest.raises(ValueError, match=name):
        GPT2Tokenizer.from_pretrained(write(tmp_path, files))


def test_the_models_size_limits_the_length_if_nothing_else_does(tmp_path, ids):
    files = vocabulary_files(ids, "openai")
    folder = write(tmp_path / "openai", files | {"hparams.json": {"n_ctx": 11}})
    assert GPT2Tokenizer.from_pretrained(folder).model_max_length == 11
    files = vocabulary_files(ids, "huggingface")
    folder = write(tmp_path / "other", files | {"config.json": {"n_positions": 12}})
    assert GPT2Tokenizer.from_pretrained(folder).model_max_length == 12
    folder = write(tmp_path / "bare", files)
    assert GPT2Tokenizer.from_pretrained(folder).model_max_length == int(1e30)


def test_the_embedded_models_tokenizer_is_found_by_name():
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    text = "O Romeo, Romeo! wherefore art thou Romeo?"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_id == len(tokenizer) - 1


# --- writing ---


def test_a_saved_tokenizer_is_read_as_it_was(tmp_path, rich):
    paths = rich.save_pretrained(tmp_path / "new" / "folder")
    assert [Path(path).name for path in paths] == [
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
    ]
    assert {Path(path) for path in paths} == set((tmp_path / "new/folder").iterdir())
    again = GPT2Tokenizer.from_pretrained(tmp_path / "new" / "folder")
    assert same(again, rich)
    for name in ("padding_side", "truncation_side", "add_prefix_space", "init_kwargs"):
        assert getattr(again, name) == getattr(rich, name)
    assert again.model_max_length == 77


def test_the_vocabulary_is_saved_as_it_came(tmp_path, rich, ids):
    vocab, merges = rich.save_vocabulary(tmp_path, filename_prefix="my")
    assert (vocab, merges) == (
        str(tmp_path / "my-vocab.json"),
        str(tmp_path / "my-merges.txt"),
    )
    assert json.loads(Path(vocab).read_text("utf-8")) == ids
    assert Path(merges).read_bytes() == VOCAB_BPE.read_bytes()


def test_a_vocabulary_with_missing_ids_survives_saving(tmp_path):
    tokenizer = GPT2Tokenizer({"l": 3, "lo": 1, "<unk>": 0}, ["l o"], unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path)
    again = GPT2Tokenizer.from_pretrained(tmp_path)
    assert again.encode("lola") == tokenizer.encode("lola") == [1, 3, 0]
    assert again.unk_token == "<unk>"


# --- exchanged with transformers ---


@pytest.fixture(scope="module")
def transformers():
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    return transformers


@pytest.mark.peers
def test_transformers_reads_what_was_saved(tmp_path, rich, transformers):
    rich.save_pretrained(tmp_path)
    for name in ("GPT2Tokenizer", "GPT2TokenizerFast", "AutoTokenizer"):
        theirs = getattr(transformers, name).from_pretrained(tmp_path)
        assert theirs.encode(TEXT) == rich.encode(TEXT), name
        assert theirs.all_special_tokens == rich.all_special_tokens
        assert theirs.get_vocab() == rich.get_vocab()
        assert theirs.model_max_length == 77
        assert theirs.padding_side == "left"


@pytest.mark.peers
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast"])
def test_what_transformers_saved_is_read(tmp_path, rich, transformers, name):
    rich.save_vocabulary(tmp_path / "vocabulary")
    theirs = getattr(transformers, name).from_pretrained(tmp_path / "vocabulary")
    theirs.add_tokens(["<x>", transformers.AddedToken("<y>", lstrip=True)])
    theirs.add_special_tokens({"pad_token": "<pad>"})
    theirs.add_special_tokens({"additional_special_tokens": ["<s>"]})
    theirs.save_pretrained(tmp_path / "saved")
    ours = GPT2Tokenizer.from_pretrained(tmp_path / "saved")
    assert ours.encode(TEXT) == theirs.encode(TEXT)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.added_tokens_decoder.keys() == theirs.added_tokens_decoder.keys()
    if (tmp_path / "saved" / "tokenizer.json").exists():
        for path in (tmp_path / "saved").iterdir():
            if path.name != "tokenizer.json":
                path.unlink()
        alone = GPT2Tokenizer.from_pretrained(tmp_path / "saved")
        assert alone.encode(TEXT) == theirs.encode(TEXT)


@pytest.mark.parametrize(
    ("file", "content", "field"),
    [
        ("tokenizer_config.json", {"tokenizer_class": 7}, "tokenizer_class"),
        ("tokenizer_config.json", {"errors": "?"}, "errors"),
        ("tokenizer_config.json", {"errors": 1}, "errors"),
        ("tokenizer_config.json", {"unk_token": [1]}, "unk_token"),
        ("tokenizer_config.json", {"pad_token": {"content": ""}}, "pad_token"),
        ("tokenizer_config.json", {"pad_token": "\ud800"}, "pad_token"),
        ("tokenizer_config.json", {"add_prefix_space": "no"}, "add_prefix_space"),
        ("tokenizer_config.json", {"model_max_length": "9"}, "model_max_length"),
        ("tokenizer_config.json", {"padding_side": "up"}, "padding_side"),
        ("tokenizer_config.json", {"bpe": 1}, "bpe"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": [1]},
            "added_tokens_decoder",
        ),
        *(
            (
                "tokenizer_config.json",
                {"added_tokens_decoder": {id: {"content": "<x>"}}},
                "added_tokens_decoder",
            )
            for id in ("-1", "x", "１", "1.5", "9" * 30)
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"50257": {"content": "<x>", "lstrip": "no"}}},
            "added_tokens_decoder",
        ),
        ("special_tokens_map.json", {"eos_token": 5}, "eos_token"),
        ("added_tokens.json", {"<x>": -1}, "<x>"),
        ("added_tokens.json", {"<x>": 1.0}, "<x>"),
        ("added_tokens.json", {"": 50257}, "''"),
        ("vocab.json", {"a": -1}, "'a'"),
    ],
)
def test_a_wrong_value_in_a_file_is_refused_by_file_and_field(
    tmp_path, ids, file, content, field
):
    files = vocabulary_files(ids, "huggingface") | {file: content}
    with pytest.raises(ValueError, match="must be|whole numbers|no text") as caught:
        GPT2Tokenizer.from_pretrained(write(tmp_path, files))
    assert str(tmp_path / file) in str(caught.value)
    assert field in str(caught.value)
