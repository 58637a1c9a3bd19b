"""Folders of tokenizers: read, written, and exchanged with transformers."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


BOS = {"SpecialToken": {"id": END, "type_id": 0}}
BOS_1 = {"SpecialToken": {"id": END, "type_id": 1}}
A, B = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}


def template(single, pair):
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {END: {"id": END, "ids": [50256], "tokens": [END]}},
    }


TINY = {"type": "BPE", "unk_token": END, "vocab": {"a": 0, END: 1}, "merges": []}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def sequence(name, *parts):
    return {"type": "Sequence", name: list(parts)}


@pytest.mark.parametrize(
    ("changes", "ids_of_hello_world"),
    [
        ({}, [15496, 995]),
        ({"post_processor": BYTE_LEVEL}, [15496, 995]),
        ({"post_processor": template([A], [A, B])}, [15496, 995]),
        (
            {"post_processor": template([BOS, A], [BOS, A, BOS_1, B])},
            [50256, 15496, 995],
        ),
        (
            {"post_processor": template([A, BOS], [A, BOS, B, BOS_1])},
            [15496, 995, 50256],
        ),
        (
            {
                "post_processor": sequence(
                    "processors",
                    BYTE_LEVEL,
                    template([BOS, A], [BOS, A, BOS_1, B]),
                )
            },
            [50256, 15496, 995],
        ),
        ({"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}}, [18435, 995]),
        ({"pre_tokenizer": sequence("pretokenizers", BYTE_LEVEL)}, [15496, 995]),
        ({"normalizer": sequence("normalizers")}, [15496, 995]),
        ({"decoder": sequence("decoders", BYTE_LEVEL)}, [15496, 995]),
        ({"dropout": 0.0}, [15496, 995]),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_what_tokenizer_json_says_of_ids_is_applied(
    tmp_path, ids, changes, ids_of_hello_world, beside
):
    whole = whole_file(ids, **changes)
    whole["model"]["dropout"] = whole.pop("dropout", None)
    files = vocabulary_files(ids, "huggingface") if beside else {}
    files |= {"tokenizer.json": whole, "tokenizer_config.json": {}}
    tokenizer = GPT2Tokenizer.from_pretrained(write(tmp_path, files))
    assert tokenizer.encode("Hello world") == ids_of_hello_world
    tokenizer.save_pretrained(tmp_path / "again")
    again = GPT2Tokenizer.from_pretrained(tmp_path / "again")
    assert again.encode("Hello world") == ids_of_hello_world


@pytest.mark.peers
@pytest.mark.parametrize(
    "changes",
    [
        {"post_processor": template([BOS, A], [BOS, A, BOS_1, B])},
        {"post_processor": template([A, BOS], [A, BOS, B, BOS_1])},
        {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}},
        {"normalizer": sequence("normalizers")},
        {"pre_tokenizer": sequence("pretokenizers", BYTE_LEVEL)},
    ],
)
def test_tokenizer_json_means_what_it_means_to_the_tokenizers_library(
    tmp_path, ids, changes
):
    tokenizers = pytest.importorskip("tokenizers")
    whole = whole_file(
        ids, **{"pre_tokenizer": BYTE_LEVEL, "decoder": BYTE_LEVEL} | changes
    )
    for token in whole["added_tokens"]:
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        token |= {flag: token.get(flag, False) for flag in flags}
    folder = write(tmp_path, {"tokenizer.json": whole})
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = GPT2Tokenizer.from_pretrained(folder)
    # (The Python tokenizer of transformers 4 puts the space of add_prefix_space before
    # every text; the Rust one only where there is a text that has none.)
    others = () if ours.add_prefix_space else (" b", "")
    for text in ("Hello world", f"a <x>{END} c", *others):
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.encode(text, "d e") == theirs.encode(text, "d e").ids


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2]}},
            "post_processor.cls is no token with its id",
        ),
        ({"post_processor": template([BOS, A, A], [A, B])}, "single does not hold A,"),
        ({"post_processor": template([A], [B, A])}, "pair does not hold A and B,"),
        ({"post_processor": template(1, None)}, "post_processor.single is no list"),
        ({"post_processor": template([A, 5], [A, B])}, "has the item 5"),
        (
            {
                "post_processor": template([A], [A, B])
                | {"special_tokens": []}
                | {"single": [A, BOS]}
            },
            "has the item {'SpecialToken'",
        ),
        (
            {
                "post_processor": sequence(
                    "processors", *[template([BOS, A], [A, B])] * 2
                )
            },
            "several steps that add ids",
        ),
        ({"post_processor": 5}, "post_processor.type is 5"),
        (
            {"post_processor": template([BOS, A], [BOS, A, B])},
            "post_processor puts the id 50256, which no token has",
        ),
        ({"post_processor": {"type": "Odd"}}, "post_processor.type is 'Odd'"),
        ({"decoder": {"type": "Metaspace"}}, "decoder.type is 'Metaspace'"),
        (
            {"decoder": sequence("decoders", BYTE_LEVEL, {"type": "Fuse"})},
            "decoder.type is 'ByteLevel' and 'Fuse'",
        ),
        (
            {
                "pre_tokenizer": sequence(
                    "pretokenizers", {"type": "Digits"}, BYTE_LEVEL
                )
            },
            "pre_tokenizer.type is 'Digits' and 'ByteLevel'",
        ),
        ({"pre_tokenizer": sequence("wrong")}, "pretokenizers is no list"),
        ({"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": 7}}, "space is 7"),
        ({"pre_tokenizer": {**BYTE_LEVEL, "use_regex": False}}, "use_regex is False"),
        ({"normalizer": sequence("normalizers", {"type": "NFC"})}, "normalizer is"),
        ({"truncation": {"direction": "Up"}}, "direction is 'Up', and must be 'Right'"),
        ({"truncation": [1]}, r"truncation is \[1\], and must be an object"),
        ({"padding": {"pad_token": 3}}, "pad_token is 3, and must be a text"),
        ({"padding": {"pad_type_id": 1}}, "pad_type_id is 1, and must be 0"),
        ({"padding": {"pad_token": "a", "pad_id": 1}}, "id 0, and padding.pad_id is 1"),
        ({"padding": {"pad_token": "[PAD]"}}, "id None, and padding.pad_id is 0"),
        ({"model": TINY | {"fuse_unk": True}}, "model.fuse_unk is True"),
        ({"model": TINY | {"unk_token": None}}, "model.unk_token is None"),
        ({"model": TINY | {"unk_token": "b"}}, "model.unk_token is 'b'"),
        ({"model": TINY | {"unk_token": "a"}}, "model.unk_token is 'a', and in tok"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_what_tokenizer_json_says_is_refused_by_name_otherwise(
    tmp_path, changes, what, beside
):
    whole = whole_file({}, **{"model": TINY, "added_tokens": []} | changes)
    config = {"unk_token": END}
    files = {"tokenizer.json": whole, "tokenizer_config.json": config}
    if beside:  # the other files do not hide it
        files |= {"vocab.json": TINY["vocab"], "merges.txt": "#version: 0.2\n"}
        config["added_tokens_decoder"] = {}
    with pytest.raises(ValueError, match=f"tokenizer.json.*{what}"):
        GPT2Tokenizer.from_pretrained(write(tmp_path, files))


def test_sides_and_padding_come_from_tokenizer_json_if_from_nowhere_else(tmp_path, ids):
    whole = whole_file(ids)
    whole["truncation"] = {"direction": "Left", "max_length": 1}
    whole["padding"] = {"strategy": {"Fixed": 5}, "direction": "Left", "pad_token": "&"}
    whole["padding"] |= {"pad_id": 5, "pad_type_id": 0}
    folder = write(tmp_path, {"tokenizer.json": whole})
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    assert (tokenizer.padding_side, tokenizer.truncation_side) == ("left", "left")
    assert tokenizer.pad_token == "&"
    # transformers cuts and pads only when it is asked to, and so does this.
    assert tokenizer.encode("Hello world") == [15496, 995]
    write(tmp_path, {"tokenizer_config.json": {"padding_side": "right"}})
    assert GPT2Tokenizer.from_pretrained(folder).padding_side == "right"


def test_a_bom_is_harmless(tmp_path, ids):
    files = vocabulary_files(ids, "huggingface")
    files["tokenizer_config.json"] = {"pad_token": "<pad>"}
    folder = write(tmp_path, files)
    for path in list(folder.iterdir()):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    assert tokenizer.encode("Hello world<pad>") == [15496, 995, 50257]


def test_tokens_of_tokenizer_json_join_those_of_the_configuration(tmp_path, ids):
    settled = {"50300": {"content": "<y>"}, "50256": {"content": END, "special": True}}
    files = {
        "tokenizer.json": whole_file(ids),
        "tokenizer_config.json": {"added_tokens_decoder": settled},
    }
    tokenizer = GPT2Tokenizer.from_pretrained(write(tmp_path, files))
    assert tokenizer.encode("<x><y>") == [50257, 50300]


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
        ("config.json", {"n_positions": "many"}, "n_positions"),
        ("hparams.json", {"n_ctx": [1]}, "n_ctx"),
        ("added_tokens.json", {"<x>": -1}, "<x>"),
        ("added_tokens.json", {"<x>": 1.0}, "<x>"),
        ("added_tokens.json", {"": 50257}, "''"),
        ("vocab.json", {"a": -1}, "'a'"),
        ("vocab.json", {"a": 2**70}, "'a'"),
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


# --- whatever tokenizer.json says, against the tokenizers library ---

SMALL = GPT2Tokenizer.from_pretrained("shakespeare-1m")
END_ID = SMALL.eos_token_id
BYTE_LEVELS = st.fixed_dictionaries(
    {
        "type": st.just("ByteLevel"),
        "add_prefix_space": st.booleans(),
        "trim_offsets": st.booleans(),
    },
    optional={"use_regex": st.sampled_from([True, True, True, False])},
)


def in_sequences(steps, name):
    """Steps alone, or in a Sequence of one, or in one within another."""
    one = steps.map(lambda step: {"type": "Sequence", name: [step]})
    return steps | one | one.map(lambda step: {"type": "Sequence", name: [step]})


@st.composite
def templates(draw):
    ids = draw(st.lists(st.sampled_from([3, 7, END_ID]), min_size=1, max_size=2))
    named = {"<t>": {"id": "<t>", "ids": ids, "tokens": ["x"] * len(ids)}}

    def slots(texts):
        found = []
        for text in texts:
            for before in (True, False):
                if draw(st.booleans()):
                    type = draw(st.integers(0, 1))
                    found.append({"SpecialToken": {"id": "<t>", "type_id": type}})
                if before:
                    type = draw(st.integers(0, 1))
                    found.append({"Sequence": {"id": text, "type_id": type}})
        return found

    return {
        "type": "TemplateProcessing",
        "single": slots("A"),
        "pair": slots(draw(st.sampled_from(["AB", "AB", "AB", "BA"]))),
        "special_tokens": named,
    }


CLS_AND_SEP = {"sep": st.just(["</s>", 5]), "cls": st.just(["<s>", END_ID])}
BERT = st.fixed_dictionaries({"type": st.just("BertProcessing")} | CLS_AND_SEP)
ROBERTA = st.fixed_dictionaries(
    {
        "type": st.just("RobertaProcessing"),
        "trim_offsets": st.booleans(),
        "add_prefix_space": st.booleans(),
    }
    | CLS_AND_SEP
)


@st.composite
def added_tokens(draw):
    contents = st.sampled_from(
        ["<x>", "x><", "New York", " b", "b ", "york", "w", "<x><y>", "\n\n"]
    )
    found = []
    next_id = len(SMALL)
    # (The end of text is there always: GPT2Tokenizer adds it, as in transformers.)
    for content in [END, *draw(st.lists(contents, max_size=5, unique=True))]:
        id = SMALL.bpe.ids.get(content)
        if id is None:
            id, next_id = next_id, next_id + 1
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        token = {
            "id": id,
            "content": content,
            **{f: draw(st.booleans()) for f in flags},
        }
        found.append(token | {"special": token["special"] or content == END})
    return found


WHOLES = st.fixed_dictionaries(
    {
        "truncation": st.none()
        | st.fixed_dictionaries(
            {
                "direction": st.sampled_from(["Left", "Right"]),
                "max_length": st.just(3),
                "strategy": st.just("LongestFirst"),
                "stride": st.just(0),
            }
        ),
        "padding": st.none()
        | st.fixed_dictionaries(
            {
                "strategy": st.sampled_from(["BatchLongest", {"Fixed": 9}]),
                "direction": st.sampled_from(["Left", "Right"]),
                "pad_to_multiple_of": st.none(),
                "pad_id": st.sampled_from([END_ID, 0]),
                "pad_type_id": st.sampled_from([0, 0, 1]),
                "pad_token": st.sampled_from([END, "[PAD]"]),
            }
        ),
        "added_tokens": added_tokens(),
        "normalizer": st.sampled_from(
            [None, None, None, {"type": "Sequence", "normalizers": []}, {"type": "NFC"}]
        ),
        "pre_tokenizer": in_sequences(BYTE_LEVELS, "pretokenizers"),
        "post_processor": st.none()
        | in_sequences(
            BYTE_LEVELS | templates() | ROBERTA | BERT,
            "processors",
        ),
        "decoder": in_sequences(BYTE_LEVELS, "decoders"),
        "model": st.fixed_dictionaries(
            {
                "type": st.just("BPE"),
                "dropout": st.sampled_from([None, 0.0]),
                "unk_token": st.sampled_from([None, END]),
                "fuse_unk": st.booleans(),
            },
            optional={
                "continuing_subword_prefix": st.sampled_from([None, ""]),
                "end_of_word_suffix": st.sampled_from([None, ""]),
                "byte_fallback": st.just(False),
                "ignore_merges": st.sampled_from([False, False, True]),
            },
        ),
    }
)
PARTS = st.sampled_from(
    ["<x>", "<y>", "><", "New York", "york", " b", "w", "ww", " ", "  ", "\n", "é", END]
)
WHOLE_TEXTS = st.lists(PARTS, max_size=7).map("".join)


def library_of(whole, folder):
    """Write tokenizer.json; return the library's tokenizer of it."""
    tokenizers = pytest.importorskip("tokenizers")
    model = {"vocab": SMALL.bpe.ids, "merges": SMALL.bpe.written_merges()}
    whole = whole | {"model": whole["model"] | model}
    write(folder, {"tokenizer.json": whole})
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def must_be_refused(whole):
    """Whether a file says what we do not apply."""
    pre_tokenizer, processor = whole["pre_tokenizer"], whole["post_processor"] or {}
    while "pretokenizers" in pre_tokenizer:
        (pre_tokenizer,) = pre_tokenizer["pretokenizers"]
    while "processors" in processor:
        (processor,) = processor["processors"]
    padding = whole["padding"]
    return bool(
        (whole["normalizer"] or {}).get("type") == "NFC"
        or not pre_tokenizer.get("use_regex", True)
        or whole["model"].get("ignore_merges")
        or (padding and (padding["pad_token"], padding["pad_id"]) != (END, END_ID))
        or (padding and padding["pad_type_id"])
        or [
            slot["Sequence"]["id"]
            for slot in processor.get("pair", [])
            if "Sequence" in slot
        ]
        == ["B", "A"]
    )


@pytest.mark.peers
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(WHOLES, st.lists(WHOLE_TEXTS, min_size=2, max_size=5), st.booleans())
def test_ids_are_those_of_the_tokenizers_library_or_the_file_is_refused(
    tmp_path_factory, whole, texts, again
):
    folder = tmp_path_factory.mktemp("whole")
    theirs = library_of(whole, folder)
    if must_be_refused(whole):
        with pytest.raises(ValueError, match="tokenizer.json"):
            GPT2Tokenizer.from_pretrained(folder)
        return
    ours = GPT2Tokenizer.from_pretrained(folder)
    if again:
        ours.save_pretrained(folder)
        ours = GPT2Tokenizer.from_pretrained(folder)
    # transformers pads and cuts where a call asks for it, and so does this.
    theirs.no_padding()
    theirs.no_truncation()
    for add in (True, False):
        for text, pair in pairwise([*texts, None]):
            expected = theirs.encode(text, pair, add_special_tokens=add)
            found = ours(
                text,
                pair,
                add_special_tokens=add,
                return_token_type_ids=True,
                return_special_tokens_mask=True,
            )
            assert found["input_ids"] == expected.ids
            assert found["token_type_ids"] == expected.type_ids
            assert found["special_tokens_mask"] == expected.special_tokens_mask
            assert found.word_ids() == expected.word_ids
            assert found.sequence_ids() == expected.sequence_ids
            # (Where a token has the space that another begins with, the library gives
            # it to both.)
            shares = any(token["rstrip"] for token in whole["added_tokens"])
            if not (shares or "trim_offsets" in json.dumps(whole["post_processor"])):
                assert found.encodings[0].offsets == expected.offsets
            if pair is None:
                assert ours.encode(text, add_special_tokens=add) == expected.ids
    for text in texts:
        ids = theirs.encode(text).ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


@pytest.mark.peers
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(WHOLES.filter(lambda w: not must_be_refused(w)), st.lists(WHOLE_TEXTS))
def test_the_library_reads_what_was_saved(tmp_path_factory, whole, texts):
    folder = tmp_path_factory.mktemp("whole")
    library_of(whole, folder)
    ours = GPT2Tokenizer.from_pretrained(folder)
    ours.save_pretrained(folder)
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, pair in pairwise([*texts, "", None]):
        assert ours.encode(text, pair) == theirs.encode(text, pair).ids


FLAGS_OF_FILES = st.fixed_dictionaries(
    {},
    optional={
        name: st.booleans()
        for name in ("add_bos_token", "add_eos_token", "add_prefix_space")
    },
)
TEMPLATE = template([BOS, A], [BOS, A, BOS_1, B])
TEMPLATE["special_tokens"][END]["ids"] = [END_ID]


@pytest.mark.peers
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    config=FLAGS_OF_FILES,
    options=FLAGS_OF_FILES,
    processor=st.sampled_from([None, BYTE_LEVEL, TEMPLATE]) | ROBERTA,
    has_whole=st.booleans(),
    texts=st.lists(WHOLE_TEXTS.filter(bool), min_size=1, max_size=3),
    saved=st.booleans(),
)
def test_what_is_put_around_texts_is_what_transformers_5_puts(
    tmp_path_factory, transformers, config, options, processor, has_whole, texts, saved
):
    if not transformers.__version__.startswith("5."):
        pytest.skip("4 has a tokenizer in Python, which reads no tokenizer.json")
    folder = tmp_path_factory.mktemp("around")
    SMALL.save_vocabulary(folder)
    end = {"content": END, "special": True, "normalized": False}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    write(folder, {"tokenizer_config.json": config})
    if has_whole:
        model = {"vocab": SMALL.bpe.ids, "merges": SMALL.bpe.written_merges()}
        whole = {
            **dict.fromkeys(("truncation", "padding", "normalizer")),
            "added_tokens": [{"id": END_ID, **end}],
            "pre_tokenizer": BYTE_LEVEL,
            "post_processor": processor,
            "decoder": BYTE_LEVEL,
            "model": model | {"type": "BPE"},
        }
        write(folder, {"tokenizer.json": whole})
    ours = GPT2Tokenizer.from_pretrained(folder, **options)
    theirs = transformers.GPT2Tokenizer.from_pretrained(folder, **options)
    if saved:  # by us, and read by them
        ours.save_pretrained(folder)
        theirs = transformers.GPT2Tokenizer.from_pretrained(folder)
    for text in texts:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(
            text, add_special_tokens=False
        )
        assert ours.encode(text, texts[0]) == theirs.encode(text, texts[0])
