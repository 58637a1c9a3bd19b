"""TensorFlow writes and we read; we write and TensorFlow reads; liars are refused."""

import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt2.checkpoints import CheckpointError
from minigpt2.checkpoints import crc32c as crc
from minigpt2.checkpoints.crc32c import crc32c, masked_crc32c
from minigpt2.checkpoints.open import open_checkpoint
from minigpt2.checkpoints.protobuf import bytes_field, write_varint
from minigpt2.checkpoints.sstable import (
    MAGIC,
    RESTART_INTERVAL,
    _BlockWriter,
    read_table,
    table_bytes,
)
from minigpt2.checkpoints.tf_bundle import (
    KINDS,
    Entry,
    TFBundle,
    _ordered,
    _slice_key,
    find_prefix,
)
from minigpt2.checkpoints.tf_bundle_writer import (
    DTYPES,
    HEADER,
    _number,
    entry_message,
    save_tf_bundle,
)

SHAKESPEARE = Path(__file__).parent / "data" / "shakespeare-1m"


@pytest.fixture(scope="session")
def tf():
    """TensorFlow, imported once (it takes seconds) and told to be quiet."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    import tensorflow

    return tensorflow


def same(array, expected):
    """Bit for bit, not value for value: NaNs and minus zeros count."""
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


def noise(kind: str, shape, seed=0) -> np.ndarray:
    """Random bits as an array of any dtype: NaNs, infinities, subnormals and all."""
    rng = np.random.default_rng(seed)
    if kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer(rng.bytes(size), kind).reshape(shape)


# --- The checksum ---


def test_the_published_checksums_come_out():
    assert crc32c(b"123456789") == 0xE3069283  # the catalogues' check value
    assert masked_crc32c(b"123456789") == 0xC78AB0E5
    # RFC 3720 (iSCSI), B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C
    assert crc32c(b"") == 0


def test_the_sparse_multiple_is_a_multiple_of_the_polynomial():
    bits = [32, 28, 27, 26, 25, 23, 22, 20, 19, 18, 14, 13, 11, 10, 9, 8, 6, 0]
    P = sum(1 << bit for bit in bits)
    assert int(f"{P:033b}"[:0:-1], 2) == crc.POLYNOMIAL  # without x^32, reversed

    def remainder(value: int) -> int:
        while value.bit_length() > 32:
            value ^= P << value.bit_length() - 33
        return value

    for unit in (1, 8, 64):  # of bits, of bytes, of words
        assert remainder(sum(1 << unit * term for term in crc.TERMS)) == 0


@pytest.mark.parametrize(
    "size",
    # Around the sizes at which the folds on bytes and on words begin and end.
    [1, 8, *(2 * crc.FAR + d for d in (-1, 0, 1)), crc.FAR + 3 * crc.NEAR]
    + [
        8 * size + d
        for size in (2 * crc.FAR, crc.FAR + crc.SEGMENT)
        for d in (-1, 0, 9)
    ],
)
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_folding_gives_what_the_table_gives(size, offset):
    data = noise("uint8", (size + offset,))[offset:]
    expected = crc._by_table(data.tobytes(), 0xFFFFFFFF) ^ 0xFFFFFFFF
    assert crc32c(data) == expected
    assert crc32c(data[size // 3 :], crc32c(data[: size // 3])) == expected


def test_half_a_gigabyte_is_verified_in_less_than_three_seconds():
    data = noise("uint8", (50_000_000,))
    start = time.process_time()
    crc32c(data)
    assert time.process_time() - start < 0.3  # it takes a tenth of that


# --- What TensorFlow writes ---


def test_the_shakespeare_model_is_read(tf):
    bundle = TFBundle(SHAKESPEARE)
    reader = tf.train.load_checkpoint(str(SHAKESPEARE / "model.ckpt"))
    assert list(bundle) == sorted(reader.get_variable_to_shape_map())
    assert len(bundle) == 52
    for name in bundle:
        same(bundle[name], reader.get_tensor(name))


def test_every_dtype_shape_and_partition_that_tensorflow_saves_is_read(tf, tmp_path):
    names, slices, arrays, expected = [], [], [], {}

    def add(name, array, slice_=""):
        names.append(name)
        slices.append(slice_)
        arrays.append(array)

    for kind in KINDS.values():
        if kind == "bfloat16":
            bits = noise("uint16", (3, 5))
            add("bfloat16", tf.bitcast(bits, tf.bfloat16))
            expected["bfloat16"] = (bits.astype(np.uint32) << 16).view(np.float32)
            continue
        for shape in [(3, 5), (), (0,), (2, 0, 3), (1, 1, 7)]:
            name = f"{kind}/{'x'.join(map(str, shape))}"
            expected[name] = noise(kind, shape)
            add(name, expected[name])
    add("strings", tf.constant(["some", "strings"]))

    whole = noise("float32", (11, 8), seed=1)
    for start, stop in [(0, 4), (4, 8), (8, 11)]:
        add("rows", whole[start:stop], f"11 8 {start},{stop - start}:-")
        add("rows, in full", whole[start:stop], f"11 8 {start},{stop - start}:0,8")
    for start, stop in [(0, 3), (3, 8)]:
        add("columns\xff\0", whole[:, start:stop], f"11 8 -:{start},{stop - start}")
        for top, bottom in [(0, 5), (5, 11)]:
            extents = f"{top},{bottom - top}:{start},{stop - start}"
            add("grid", whole[top:bottom, start:stop], f"11 8 {extents}")
    tall = noise("int8", (9000, 2), seed=2)  # numbers of one, two and three bytes
    for start, stop in [(0, 60), (60, 8500), (8500, 9000)]:
        add("tall", tall[start:stop], f"9000 2 {start},{stop - start}:-")
    partitioned = ("rows", "rows, in full", "columns\xff\0", "grid")
    expected |= dict.fromkeys(partitioned, whole) | {"tall": tall}

    prefix = str(tmp_path / "model.ckpt")
    encoded = [name.encode() for name in names]
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=encoded, shape_and_slices=slices, tensors=arrays
    )
    bundle = TFBundle(prefix)
    assert set(bundle) == set(expected)
    for name, array in expected.items():
        assert (bundle.shape(name), bundle.dtype(name)) == (array.shape, array.dtype)
        same(bundle[name], array)
    with pytest.raises(CheckpointError, match="'strings' is made of strings"):
        bundle["strings"]


def test_savers_partitioned_and_sharded_files_with_optimizer_slots_are_read(
    tf, tmp_path
):
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        split = tf1.fixed_size_partitioner(3)
        wte = tf1.get_variable("model/wte", (11, 8), partitioner=split)
        with tf.device("/cpu:0"):
            wpe = tf1.get_variable("model/wpe", (5, 8))
        tf1.train.get_or_create_global_step()
        loss = tf.reduce_sum(wte.as_tensor() ** 2) + tf.reduce_sum(wpe**2)
        step = tf1.train.AdamOptimizer().minimize(loss)
        session.run(tf1.global_variables_initializer())
        session.run(step)
        saver = tf1.train.Saver(sharded=True)
        prefix = saver.save(session, str(tmp_path / "model.ckpt"), global_step=7)
        expected = {"model/wte": session.run(wte.as_tensor())}
        for variable in tf1.global_variables():
            if "/part_" not in variable.op.name:
                expected[variable.op.name] = session.run(variable)
    assert prefix.endswith("model.ckpt-7")
    assert {"model/wpe/Adam_1", "beta1_power", "global_step"} <= set(expected)
    bundle = TFBundle(tmp_path)  # by way of the file `checkpoint`
    assert "model/wte/Adam" in bundle
    for name, array in expected.items():
        same(bundle[name], np.asarray(array))


def test_several_data_files_are_read(tf, tmp_path):
    arrays = {f"v{i}": noise("float32", (i, 3), seed=i) for i in range(6)}
    parts = []
    for part in range(3):
        parts.append(str(tmp_path / f"part-{part}"))
        names = list(arrays)[part::3]
        tf.raw_ops.SaveV2(
            prefix=parts[-1],
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[arrays[name] for name in names],
        )
    prefix = tmp_path / "model.ckpt"
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(prefix)
    )
    bundle = TFBundle(prefix)
    assert (tmp_path / "model.ckpt.data-00002-of-00003").exists()
    for name, array in arrays.items():
        same(bundle[name], array)

    (tmp_path / "model.ckpt.data-00001-of-00003").unlink()
    with pytest.raises(CheckpointError, match=r"data-00001-of-00003, with .* missing"):
        TFBundle(prefix)


def test_object_based_checkpoints_are_read_without_their_graph(tf, tmp_path):
    value = noise("float32", (4, 3))
    checkpoint = tf.train.Checkpoint(wte=tf.Variable(value))
    checkpoint.save(str(tmp_path / "ckpt"))
    bundle = TFBundle(tmp_path)
    assert list(bundle) == [
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE",
        "wte/.ATTRIBUTES/VARIABLE_VALUE",
    ]
    same(bundle["wte/.ATTRIBUTES/VARIABLE_VALUE"], value)
    with pytest.raises(CheckpointError, match="strings"):
        bundle["_CHECKPOINTABLE_OBJECT_GRAPH"]


# --- What we write ---


def test_our_files_are_tensorflows_byte_for_byte(tf, tmp_path):
    arrays = {
        f"{kind}{shape}": noise(kind, shape)
        for kind in KINDS.values()
        if kind != "bfloat16"
        for shape in [(3, 5), (), (0,), (2, 0, 3)]
    }
    # Long names that share little, so that the index needs several blocks.
    arrays |= {
        f"{i * 7919 % 5000:04d}{'name' * 40}": np.float32(i) for i in range(3000)
    }
    names = sorted(arrays)  # as the Saver does
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )
    save_tf_bundle(tmp_path / "ours", arrays)
    for suffix in (".index", ".data-00000-of-00001"):
        ours = (tmp_path / f"ours{suffix}").read_bytes()
        assert ours == (tmp_path / f"theirs{suffix}").read_bytes()
    assert len(ours) > 0
    assert os.path.getsize(tmp_path / "ours.index") > 262_144

    reader = tf.train.load_checkpoint(str(tmp_path))  # finds `checkpoint`
    for name in names[-60:]:
        same(reader.get_tensor(name), np.asarray(arrays[name]))
    bundle = TFBundle(tmp_path)
    assert list(bundle) == names
    for name in names:
        same(bundle[name], np.asarray(arrays[name]))


def test_a_rewritten_checkpoint_is_the_same_checkpoint(tmp_path):
    save_tf_bundle(tmp_path / "model.ckpt", TFBundle(SHAKESPEARE))
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (SHAKESPEARE / file.name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_bfloat16_and_float16_are_written_for_tensorflow(tf, tmp_path):
    array = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    for kind in ("bfloat16", "float16"):
        save_tf_bundle(tmp_path / kind, {"x": array, "i": np.arange(3)}, dtype=kind)
        reader = tf.train.load_checkpoint(str(tmp_path / kind))
        theirs = tf.cast(tf.cast(array, kind), tf.float32).numpy()
        assert reader.get_variable_to_dtype_map()["x"] == tf.dtypes.as_dtype(kind)
        same(reader.get_tensor("x").astype(np.float32), theirs)
        same(TFBundle(tmp_path / kind)["x"].astype(np.float32), theirs)
        same(reader.get_tensor("i"), np.arange(3))


def test_a_failed_write_leaves_what_was_there(tmp_path):
    prefix = tmp_path / "model.ckpt"
    save_tf_bundle(prefix, {"a": np.arange(3)})
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for bad in ({"a": np.ones(3), "b": np.array("text")}, {"": np.ones(3)}):
        with pytest.raises(ValueError, match="TensorFlow has no"):
            save_tf_bundle(prefix, bad)
    with pytest.raises(ValueError, match=r"'a': 100000.0 is too large for float16"):
        save_tf_bundle(prefix, {"a": np.array([1e5, np.inf])}, dtype="float16")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


# --- What TensorFlow no longer writes, or never did ---


def write_bundle(
    prefix, arrays, byteorder="<", shards=1, block_size=262_144, edit=None
):
    """A bundle with all that save_tf_bundle has no options for.

    `edit` may change the index's {key: value} before it is written.
    """
    header = _number(1, shards) + _number(2, byteorder == ">") + HEADER[2:]
    pairs, data = {b"": header}, [b""] * shards
    for i, (name, array) in enumerate(sorted(arrays.items())):
        shard = i % shards
        array = np.asarray(array)
        raw = array.astype(array.dtype.newbyteorder(byteorder)).tobytes()
        entry = Entry(
            DTYPES[array.dtype.name],
            array.shape,
            shard,
            len(data[shard]),
            len(raw),
            masked_crc32c(raw),
        )
        pairs[name.encode()] = entry_message(entry)
        data[shard] += raw
    if edit:
        edit(pairs)
    index = table_bytes(sorted(pairs.items()), block_size)
    Path(f"{prefix}.index").write_bytes(index)
    for shard in range(shards):
        path = Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")
        path.write_bytes(data[shard])
    return prefix


ARRAYS = {
    "model/wte": noise("float32", (7, 3)),
    "model/wpe": noise("float64", (2, 3)),
    "odd": noise("int8", (3,)),
    "flag": np.array(True),
    "half": noise("float16", (5,)),
    "empty": np.empty((3, 0), np.float32),
    "complex": noise("complex64", (2, 2)),
    "counter": np.array(7, np.int64),
}


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("block_size", [1, 40, 262_144])
def test_byte_orders_shards_and_block_sizes_change_nothing(
    tmp_path, byteorder, shards, block_size
):
    prefix = tmp_path / "model.ckpt"
    write_bundle(prefix, ARRAYS, byteorder, shards, block_size)
    bundle = TFBundle(prefix)
    assert list(bundle) == sorted(ARRAYS)
    for name, array in bundle.items():
        same(array, ARRAYS[name])
        assert array.flags.aligned
        assert not array.flags.writeable


def test_big_endian_bfloat16_is_widened_too(tmp_path):
    def edit(pairs):
        pairs[b"x"] = pairs[b"x"].replace(_number(1, 17), _number(1, 14))

    bits = np.array([0x3F80, 0xC000, 0x4049], np.uint16)  # 1, -2, 3.140625
    write_bundle(tmp_path / "b", {"x": bits}, ">", edit=edit)
    same(TFBundle(tmp_path)["x"], np.array([1, -2, 3.140625], np.float32))


def test_arrays_are_views_of_the_mapped_file():
    bundle = TFBundle(SHAKESPEARE)
    tracemalloc.start()
    arrays = dict(bundle)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(array.nbytes for array in arrays.values()) == 4_353_024
    assert peak < 1_000_000  # the fold's buffers
    with pytest.raises(ValueError, match="read-only"):
        arrays["model/wte"][0, 0] = 1


def test_every_way_to_name_a_checkpoint_finds_it(tmp_path, monkeypatch):
    for path in SHAKESPEARE.iterdir():
        shutil.copy(path, tmp_path)
    names = ["model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001"]
    monkeypatch.chdir(tmp_path)
    for path in [tmp_path, str(tmp_path), ".", "checkpoint", "model.ckpt.meta", *names]:
        assert len(TFBundle(path)) == 52
    # A folder that was moved since an absolute path was written into it:
    state = Path("checkpoint")
    state.write_text('model_checkpoint_path: "/gone/model.ckpt"\n')
    assert len(TFBundle(tmp_path)) == 52
    state.unlink()
    assert len(TFBundle(tmp_path)) == 52
    # As TensorFlow writes a name that is not ASCII, or has a quote in it:
    save_tf_bundle('ü"', {"a": np.arange(3)})
    state.write_bytes(rb'model_checkpoint_path: "\303\274\""' + b"\n")
    assert list(TFBundle(tmp_path)) == ["a"]


def test_a_missing_tensor_is_named():
    bundle = TFBundle(SHAKESPEARE)
    assert "model/wtf" not in bundle
    assert bundle.get("model/wtf") is None
    for ask in (bundle.__getitem__, bundle.shape, bundle.dtype):
        with pytest.raises(KeyError, match=r"model\.ckpt has no tensor 'model/wtf'"):
            ask("model/wtf")


# --- Files that are damaged, hostile, or something else ---


@pytest.fixture
def copy(tmp_path):
    for path in SHAKESPEARE.glob("model.ckpt*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "model.ckpt"


def refuses(path, match, **options):
    with pytest.raises(CheckpointError, match=match):
        dict(TFBundle(path, **options))


def test_nothing_there_is_said_so(tmp_path):
    refuses(
        tmp_path / "model.ckpt", r"no TensorFlow checkpoint .*model\.ckpt: no .*index"
    )
    refuses(tmp_path, "names no checkpoint")
    (tmp_path / "checkpoint").write_text("hello")
    refuses(tmp_path, "has no line `model_checkpoint_path")


def test_a_folder_may_have_moved_from_any_system(copy):
    folder, original = copy.parent, dict(TFBundle(copy))
    for path in folder.glob("model.ckpt*"):
        path.rename(path.with_name(path.name.replace("model.ckpt", "model-5")))
    (folder / "checkpoint").unlink(missing_ok=True)
    assert set(TFBundle(folder)) == set(open_checkpoint(folder)) == set(original)
    for named in (
        r"C:\\Users\\me\\gpt-2\\checkpoint\\run1\\model-5",
        r"C:\Users\new\model-5",
        r"checkpoint\\run1\\model-5",
        "/home/me/run1/model-5",
        "checkpoint/run1/model-5",
        "model-5",
    ):
        line = f'model_checkpoint_path: "{named}"\n'
        (folder / "checkpoint").write_text(line * 2)
        for path in (folder, folder / "checkpoint"):
            file = open_checkpoint(path)
            assert file.path == folder / "model-5"
            np.testing.assert_array_equal(file["model/wte"], original["model/wte"])
    (folder / "checkpoint").write_text('model_checkpoint_path: "run1/model-6"\n')
    refuses(folder, r"no TensorFlow checkpoint .*run1/model-6: no")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("mod\\303\\250le", "modèle"),
        ("modèle", "modèle"),
        (r"a\"b\'c", "a\"b'c"),
        (r"a\x20b", "a b"),
        (r"tab\there", "tab\there"),
    ],
)
def test_names_are_those_of_protocol_buffer_text(copy, written, name):
    folder = copy.parent
    for path in folder.glob("model.ckpt.*"):
        path.rename(path.with_name(path.name.replace("model.ckpt", name)))
    line = f'model_checkpoint_path: "{written}"\n'
    (folder / "checkpoint").write_bytes(line.encode())
    assert TFBundle(folder).path == folder / name


@pytest.mark.peers
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))
def test_tensorflow_means_the_same_by_a_checkpoint_file(tmp_path_factory, name):
    pytest.importorskip("tensorflow")
    from google.protobuf import text_format
    from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

    state = CheckpointState(model_checkpoint_path=name)
    folder = tmp_path_factory.mktemp("folder")
    (folder / "checkpoint").write_text(
        text_format.MessageToString(state), encoding="utf-8", newline=""
    )
    # (PureWindowsPath would see folders in it: nothing lies there.)
    assert find_prefix(folder) == folder / name


def test_several_checkpoints_or_those_of_a_folder_inside_are_named(copy):
    folder = copy.parent
    for number in (5, 10):
        for path in folder.glob("model.ckpt.*"):
            new = path.name.replace("model.ckpt", f"model-{number}")
            shutil.copy(path, folder / new)
    for path in folder.glob("model.ckpt*"):
        path.unlink()
    (folder / "checkpoint").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"give one of .*/model-10, .*/model-5"):
        open_checkpoint(folder)
    assert len(open_checkpoint(folder / "model-10")) == len(TFBundle(SHAKESPEARE))
    run = folder / "run1"
    run.mkdir()
    for path in folder.glob("model-5*"):
        path.rename(run / path.name)
    for path in folder.glob("model-10*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"run1 has one: give that folder"):
        open_checkpoint(folder)


def test_a_models_folder_of_that_kind_is_loaded(copy):
    from minigpt2 import GPT2LMHeadModel

    folder = copy.parent
    for path in folder.glob("model.ckpt*"):
        path.rename(path.with_name(path.name.replace("model.ckpt", "model-5")))
    (folder / "checkpoint").unlink(missing_ok=True)
    shutil.copy(SHAKESPEARE / "hparams.json", folder)
    for path, options in (
        (folder, {}),
        (folder, {"from_tf": True}),
        (folder / "model-5.index", {}),
        (folder / "model-5", {"from_tf": True}),
    ):
        model = GPT2LMHeadModel.from_pretrained(path, backend="numpy", **options)
        assert model.config.n_layer == 4
    with pytest.raises(FileNotFoundError, match="does: give that folder"):
        GPT2LMHeadModel.from_pretrained(folder.parent)


def test_truncated_data_are_found_before_they_are_read(copy):
    data = Path(f"{copy}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-5])
    with pytest.raises(
        CheckpointError,
        match=r"data-00000-of-00001 is truncated.*'model/wte' is at bytes 3304448 to "
        r"4353024, but it has 4353019",
    ) as caught:
        TFBundle(copy, verify=False)
    assert str(data) in str(caught.value)


def test_a_flipped_bit_in_the_data_is_found_in_its_tensor(copy):
    data = Path(f"{copy}.data-00000-of-00001")
    raw = bytearray(data.read_bytes())
    raw[4_000_000] ^= 4
    data.write_bytes(raw)
    bundle = TFBundle(copy)
    bundle["model/wpe"]
    for _ in range(2):  # it stays damaged
        with pytest.raises(
            CheckpointError,
            match=r"'model/wte' is damaged: its checksum is stored as 0x\w{8}, and "
            r"0x\w{8} was computed from its 1048576 bytes at 3304448",
        ):
            bundle["model/wte"]
    TFBundle(copy, verify=False)["model/wte"]


def test_web_pages_and_pointers_in_place_of_files_are_shown(copy):
    for text in (b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/"):
        shown = rf"begins with b'{text[:15].decode()}"
        Path(f"{copy}.data-00000-of-00001").write_bytes(text)
        refuses(copy, shown)
        Path(f"{copy}.index").write_bytes(text)
        refuses(copy, rf"no sound checkpoint index: .*{shown}")
        Path(f"{copy}.index").write_bytes(text * 20)
        refuses(copy, rf"last bytes are .*expected 57 fb 80 8b 24 75 47 db.*{shown}")
        shutil.copy(SHAKESPEARE / "model.ckpt.index", f"{copy}.index")


def test_empty_files_are_said_to_be_empty(copy):
    Path(f"{copy}.data-00000-of-00001").write_bytes(b"")
    refuses(copy, r"it has 0 \(it is empty\)")
    Path(f"{copy}.index").write_bytes(b"")
    refuses(copy, "it is empty")


def test_every_truncation_and_every_flipped_byte_of_an_index_is_refused(tmp_path):
    write_bundle(tmp_path / "model.ckpt", ARRAYS)
    index = tmp_path / "model.ckpt.index"
    sound = index.read_bytes()
    for size in range(len(sound)):
        index.write_bytes(sound[:size])
        refuses(tmp_path, "model.ckpt.index")
    footer = len(sound) - 48
    for place in range(footer):
        index.write_bytes(
            sound[:place] + bytes([sound[place] ^ 16]) + sound[place + 1 :]
        )
        refuses(tmp_path, "is damaged")


def test_v1_checkpoints_are_refused_by_name(tf, tmp_path):
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable("model/wte", (11, 8))
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1)
        prefix = saver.save(session, str(tmp_path / "model.ckpt"))
    refuses(prefix, "V1 format")
    refuses(tmp_path, "V1 format")
    shutil.copy(prefix, tmp_path / "renamed.index")
    refuses(tmp_path / "renamed", "V1 format|snappy")


def hand_made_table(*blocks: bytes, kind=0, handles=None) -> bytes:
    """An SSTable of these very blocks, with good checksums, whatever they hold."""
    table, index = b"", _BlockWriter(restart_interval=1)
    metaindex = _BlockWriter(restart_interval=16).contents()

    def append(contents, kind=0):
        nonlocal table
        handle = write_varint(len(table)) + write_varint(len(contents))
        contents += bytes([kind])
        table += contents + masked_crc32c(contents).to_bytes(4, "little")
        return handle

    found = [append(block, kind) for block in blocks]
    for i, handle in enumerate(handles or found):
        index.add(b"%09d" % i, handle)
    footer = append(metaindex) + append(index.contents())
    return table + footer.ljust(40, b"\0") + MAGIC


def block_of(*entries: tuple[int, bytes, bytes]) -> bytes:
    """A block of (how many bytes a key shares, the rest of the key, value)."""
    contents = b""
    for shared, rest, value in entries:
        for length in (shared, len(rest), len(value)):
            contents += write_varint(length)
        contents += rest + value
    return contents + bytes(4) + (1).to_bytes(4, "little")


def test_compressed_and_unknown_blocks_are_refused_by_name(tmp_path):
    index = tmp_path / "model.ckpt.index"
    block = block_of((0, b"", HEADER))
    index.write_bytes(hand_made_table(block))
    assert list(TFBundle(tmp_path)) == []
    index.write_bytes(hand_made_table(block, kind=1))
    refuses(tmp_path, "snappy-compressed, and only uncompressed")
    index.write_bytes(hand_made_table(block, kind=9))
    refuses(tmp_path, "of the unknown type 9")


FAR_AWAY = write_varint(2**63) + write_varint(2**63)
ONE = block_of((0, b"", HEADER))
HOSTILE_TABLES = {
    "a block beyond the file": hand_made_table(ONE, handles=[FAR_AWAY]),
    "a handle cut short": hand_made_table(ONE, handles=[b"\x80"]),
    "a number of eleven bytes": hand_made_table(ONE, handles=[b"\xff" * 11]),
    "an empty block": hand_made_table(b""),
    "more restart points than bytes": hand_made_table(b"\xff" * 8),
    "a key that shares what is not there": hand_made_table(block_of((9, b"", HEADER))),
    "a key beyond the block": hand_made_table(b"\0\xff\xff\x03\0" + bytes(8)),
    "a key twice": hand_made_table(ONE, ONE),
    "the same block twice": hand_made_table(
        ONE, handles=[b"\0" + bytes([len(ONE)])] * 2
    ),
    "no header": hand_made_table(block_of((0, b"name", b""))),
    "a header of nonsense": hand_made_table(block_of((0, b"", b"\xff\xff"))),
    "a group in the header": hand_made_table(block_of((0, b"", b"\x0b\x0c"))),
    "a middle-endian header": hand_made_table(block_of((0, b"", HEADER + b"\x10\2"))),
    "a newer version": hand_made_table(block_of((0, b"", HEADER + b"\x1a\2\x10\2"))),
    # Three bytes an entry, each with the million bytes of the key before it:
    "keys that unfold": hand_made_table(
        block_of(
            (0, b"", HEADER),
            (0, b"k" * 1_000_000, b""),
            *((1_000_000 + i, b"k", b"") for i in range(10_000)),
        )
    ),
}


@pytest.mark.parametrize("table", HOSTILE_TABLES.values(), ids=HOSTILE_TABLES)
def test_a_hostile_index_costs_neither_time_nor_memory(tmp_path, table):
    (tmp_path / "model.ckpt.index").write_bytes(table)
    tracemalloc.start()
    start = time.process_time()
    refuses(tmp_path, "model.ckpt")
    elapsed = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert elapsed < 2
    assert peak < 40 * len(table) + 100_000


def entry_with(**fields):
    entry = Entry(1, (7, 3), 0, 0, 84, masked_crc32c(bytes(84)))
    return entry_message(entry._replace(**fields))


HOSTILE_ENTRIES = {
    "takes 4611686018427387904 bytes": entry_with(shape=(2**60,)),
    "no array can have the shape": entry_with(shape=(2**40, 2**40)),
    "an array can have the shape": entry_with(shape=(1,) * 65),
    "no array can": entry_with(shape=(0, 2**62, 2**62)),
    "no array": entry_with(shape=(2**64 - 7, 3)),
    "takes 84 bytes, not 80": entry_with(size=80),
    r"is at bytes 9223372036854775000 to 9223372036854775084": entry_with(
        offset=2**63 - 808
    ),
    "make no sense": entry_with(offset=2**64 - 8),
    "into data file 5 of 1": entry_with(shard=5),
    "into data file -1 of 1": entry_with(shard=2**64 - 1),
    "field 2 of 84 bytes ends beyond its message": b"\x12\x54",
    "wire type 3": b"\x0b",
    "no varint": b"\x08\xff",
    "'x' is of TensorFlow's dtype number 0": b"",
    "dtype number 99": entry_with(dtype=99),
    "is damaged": entry_with(crc=1),
}


@pytest.mark.parametrize("match", HOSTILE_ENTRIES)
def test_a_hostile_entry_is_refused_whether_data_are_verified_or_not(tmp_path, match):
    def edit(pairs):
        pairs[b"x"] = HOSTILE_ENTRIES[match]

    prefix = write_bundle(
        tmp_path / "model.ckpt", {"x": np.zeros((7, 3), "f4")}, edit=edit
    )
    for verify in (True, False) if match != "is damaged" else (True,):
        match = match.replace("an array", "no array")
        with pytest.raises(CheckpointError, match=match):
            TFBundle(prefix, verify)["x"]


def test_tensors_in_the_same_place_are_refused(tmp_path):
    def edit(pairs):
        pairs[b"y"] = pairs[b"x"]

    arrays = {"x": np.zeros(3), "y": np.zeros(3)}
    prefix = write_bundle(tmp_path / "model.ckpt", arrays, edit=edit)
    refuses(
        prefix, r"puts 'y' at 0 of data file 0, but the tensor before it ends at 24"
    )


def sliced(extents_of_entry, parts):
    """An edit that adds a partitioned "full" of shape (4, 2) from arrays' entries."""

    def edit(pairs):
        dims = b"".join(bytes_field(2, _number(1, n)) for n in (4, 2))
        message = _number(1, 1) + bytes_field(2, dims)
        for extents in extents_of_entry:
            extent = b"".join(
                bytes_field(1, _number(1, start) + _number(2, length))
                for start, length in extents
            )
            message += bytes_field(7, extent)
        pairs[b"full"] = message
        for name, extents in parts.items():
            pairs[_slice_key("full", extents)] = pairs.pop(name.encode())

    return edit


TOP, BOTTOM, LOW = ((0, 2), (0, 2)), ((2, 2), (0, 2)), ((1, 2), (0, 2))


@pytest.mark.parametrize(
    ("extents", "parts", "match"),
    [
        ([TOP, BOTTOM], {"a": TOP, "b": BOTTOM}, None),
        ([TOP, BOTTOM], {"a": TOP}, "no sound slice"),
        ([TOP], {"a": TOP}, "slices of 16 of its 32 bytes"),
        ([TOP, TOP], {"a": TOP}, "slices of 16 of its 32 bytes"),
        ([TOP, TOP, BOTTOM], {"a": TOP, "b": BOTTOM}, None),
        ([TOP, LOW], {"a": TOP, "b": LOW}, "slices that overlap"),
        ([TOP, ((3, 2), (0, 2))], {"a": TOP}, "no sound slice"),
        ([TOP, ((2, 2),)], {"a": TOP}, "no sound slice"),
        ([TOP, BOTTOM * 500], {"a": TOP}, "no sound slice"),
        (
            [((0, 2), (0, 1)), BOTTOM],
            {"a": ((0, 2), (0, 1)), "b": BOTTOM},
            "of the shape",
        ),
    ],
)
def test_slices_must_cover_their_tensor_exactly(tmp_path, extents, parts, match):
    a, b = noise("float32", (2, 2)), noise("float32", (2, 2), seed=1)
    edit = sliced(extents, parts)
    prefix = write_bundle(tmp_path / "model.ckpt", {"a": a, "b": b}, edit=edit)
    if match:
        refuses(prefix, f"the partitioned tensor 'full' has .*{match}")
    else:
        same(TFBundle(prefix)["full"], np.concatenate([a, b]))


def test_slice_keys_are_those_of_the_ordered_code():
    # tf-checkpoint's example, and the widths that SignedNumIncreasing changes at
    assert _slice_key("model/wte", ((0, 11), (0, 8))) == (
        b"\0model/wte\0\1\1\2\x80\x8b\x80\x88"
    )
    # OrderedCode's SignedNumIncreasing, where it takes one more byte
    expected = {0: "80", 63: "bf", 64: "c040", 8191: "dfff", 8192: "e02000"}
    expected |= {-1: "7f", -64: "40", -65: "3fbf"}
    for number, code in expected.items():
        assert _ordered(number).hex() == code


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_files_give_the_right_arrays_or_an_error(tmp_path, data):
    prefix = write_bundle(tmp_path / "model.ckpt", ARRAYS)
    path = data.draw(st.sampled_from(sorted(tmp_path.iterdir())))
    path.write_bytes(data.draw(mutations(path.read_bytes())))
    try:
        for name, array in TFBundle(prefix).items():
            same(array, ARRAYS[name])
    except CheckpointError:
        pass


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_mutated_index_with_good_checksums_gives_arrays_or_an_error(tmp_path, data):
    prefix = write_bundle(tmp_path / "model.ckpt", ARRAYS)
    index = Path(f"{prefix}.index")
    pairs = list(read_table(index))
    block = _BlockWriter(RESTART_INTERVAL)
    for key, value in pairs:
        block.add(key, value)
    index.write_bytes(hand_made_table(data.draw(mutations(block.contents()))))
    try:
        for array in TFBundle(prefix, verify=False).values():
            assert array.nbytes <= 2000
    except CheckpointError:
        pass


@st.composite
def mutations(draw, sound: bytes) -> bytes:
    """Bytes changed, cut out, put in or cut off, in up to four places."""
    mutated = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(mutated)))
        match draw(st.sampled_from(["change", "remove", "insert", "truncate"])):
            case "change":
                mutated[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "remove":
                del mutated[place : place + draw(st.integers(1, 9))]
            case "insert":
                mutated[place:place] = draw(st.binary(min_size=1, max_size=12))
            case "truncate":
                del mutated[place:]
    return bytes(mutated)
