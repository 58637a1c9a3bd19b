"""Golden files: what is in them, in every format, and what reads them besides minigpt2."""

import contextlib
import hashlib
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigpt2 import AutoModelForCausalLM, GPT2LMHeadModel, trace
from minigpt2.checkpoints import CheckpointError
from minigpt2.cli import main
from minigpt2.testing import TINY_MODELS, tiny_inputs, tiny_model
from minigpt2.tracing import json_file, onnx_data
from minigpt2.tracing.dumps import read_dump
from minigpt2.tracing.golden import (
    Golden,
    make_golden,
    read_golden,
    save_golden,
)

FORMATS = {
    "safetensors": "golden.safetensors",
    "npz": "golden.npz",
    "json": "golden.json",
    "onnx": "golden",
}
files = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def golden_of(dtype=np.float32, **options):
    model = tiny_model(dtype=dtype)
    return make_golden(model, **tiny_inputs().arguments(), **options)


def same(array, expected):
    """Bit for bit, not value for value: NaNs and minus zeros count."""
    array, expected = np.asarray(array), np.asarray(expected)
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


def same_golden(found, golden):
    assert list(found.steps) == list(golden.steps)
    assert list(found.inputs) == list(golden.inputs)
    for name, array in golden.steps.items():
        same(found.steps[name], array)
    for name, array in golden.inputs.items():
        same(found.inputs[name], array)
    assert found.outputs == golden.outputs
    assert found.tolerance == golden.tolerance
    assert found.about == json.loads(json.dumps(golden.about))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_golden_is_a_trace_and_how_far_float32_is_from_float64(dtype):
    golden = golden_of(dtype, command="how it was made")
    arguments = tiny_inputs().arguments()
    single = trace(tiny_model(dtype=np.float32), **arguments)
    double = trace(tiny_model(dtype=np.float64), **arguments)
    t = single if dtype == np.float32 else double
    assert list(golden) == t.names
    for name in t:
        same(golden[name], t[name])
        finite = np.isfinite(double[name])
        far = np.abs(single[name][finite] - double[name][finite]).max()
        assert golden.tolerance[name] == far
    assert golden.tolerance["lm_head"] > 0
    assert list(golden.inputs) == list(arguments)
    for name, array in arguments.items():
        np.testing.assert_array_equal(golden.inputs[name], array)
    assert golden.outputs == {"loss": "loss", "logits": "lm_head"}
    same(golden["logits"], t.output.logits)
    about = golden.about
    assert about["dtype"] == np.dtype(dtype).name
    assert about["command"] == "how it was made"
    assert about["config"]["n_inner"] == 52
    assert about["versions"]["numpy"] == np.__version__
    assert about["difference_from_untraced"] == t.difference()
    digest = hashlib.sha256()
    for name, array in tiny_model().named_parameters():
        digest.update(name.encode() + array.astype("<f4").tobytes())
    assert about["weights_sha256"] == digest.hexdigest()


def test_what_the_model_returns_is_kept_whatever_the_names():
    golden = golden_of(names=["h.0.attn.weights"])
    assert list(golden) == ["transformer.h.0.attn.weights", "lm_head", "loss"]
    assert "h.0.attn.weights" in golden
    assert "logits" in golden
    assert "h.0.attn.z" not in golden
    with pytest.raises(KeyError, match="no step 'h.0.attn.weight'; near are .*weights"):
        golden["h.0.attn.weight"]
    past = tiny_model()([[1, 2, 3]]).past_key_values
    step = make_golden(tiny_model(), [[4]], "h.0.attn.k", past=past)
    assert list(step.inputs)[:3] == ["input_ids", "past.0.key", "past.0.value"]
    same(step.inputs["past.2.value"], past[2][1])
    same(step["logits"], trace(tiny_model(), [[4]], past=past)["lm_head"])
    base = make_golden(tiny_model().transformer, [[1, 2]], names="wte")
    assert list(base) == ["wte", "ln_f"]
    assert base.outputs == {"last_hidden_state": "ln_f"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_the_same(tmp_path, format, dtype):
    golden = golden_of(dtype, text="To be", command="minigpt2 golden make")
    odd = np.array([math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1], dtype)
    golden.steps["odd"] = odd
    assert np.isneginf(golden["h.0.attn.masked"]).any()
    path = tmp_path / FORMATS[format]
    save_golden(path, golden)
    same_golden(read_golden(path), golden)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    found = read_dump(path)
    same(found["lm_head"], golden["lm_head"])
    same(found["inputs.input_ids"], golden.inputs["input_ids"])


numbers = hnp.arrays(
    hnp.floating_dtypes(endianness="=")
    | hnp.integer_dtypes(endianness="=")
    | hnp.unsigned_integer_dtypes(endianness="=")
    | hnp.boolean_dtypes(),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)
tensors = st.dictionaries(st.text(st.characters(codec="utf-8")), numbers, max_size=4)


@files
@given(tensors=tensors)
def test_json_gives_every_number_back(tmp_path, tensors):
    path = tmp_path / "x.json"
    json_file.save_json(path, tensors, {"a": 1})
    strict = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
    assert set(strict) == {"golden", "tensors"}
    found, about = json_file.read_json_tensors(path)
    assert about == {"a": 1}
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        if array.dtype.kind == "f":
            sign = np.signbit(array) & ~np.isnan(array)
            np.testing.assert_array_equal(
                np.signbit(found[name]) & ~np.isnan(array), sign
            )


def tensor_proto_class():
    """TensorProto's class, made by protobuf itself from the fields of onnx.proto."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    descriptor_pool = pytest.importorskip("google.protobuf.descriptor_pool")
    message_factory = pytest.importorskip("google.protobuf.message_factory")
    file = descriptor_pb2.FileDescriptorProto(name="onnx.proto", package="onnx")
    message = file.message_type.add(name="TensorProto")
    field = descriptor_pb2.FieldDescriptorProto
    for name, number, label, type, packed in [
        ("dims", 1, field.LABEL_REPEATED, field.TYPE_INT64, False),
        ("data_type", 2, field.LABEL_OPTIONAL, field.TYPE_INT32, False),
        ("float_data", 4, field.LABEL_REPEATED, field.TYPE_FLOAT, True),
        ("int32_data", 5, field.LABEL_REPEATED, field.TYPE_INT32, True),
        ("int64_data", 7, field.LABEL_REPEATED, field.TYPE_INT64, True),
        ("name", 8, field.LABEL_OPTIONAL, field.TYPE_STRING, False),
        ("raw_data", 9, field.LABEL_OPTIONAL, field.TYPE_BYTES, False),
        ("double_data", 10, field.LABEL_REPEATED, field.TYPE_DOUBLE, True),
        ("uint64_data", 11, field.LABEL_REPEATED, field.TYPE_UINT64, True),
        ("doc_string", 12, field.LABEL_OPTIONAL, field.TYPE_STRING, False),
        ("data_location", 14, field.LABEL_OPTIONAL, field.TYPE_INT32, False),
    ]:
        entry = message.field.add(name=name, number=number, label=label, type=type)
        if packed:
            entry.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("onnx.TensorProto")
    )


ONNX_TYPES = {"float32": 1, "int64": 7, "float64": 11, "int32": 6, "bool": 9}


@pytest.mark.peers
@files
@given(array=numbers.filter(lambda a: a.dtype.name in ONNX_TYPES), name=st.text("hé."))
def test_protobuf_reads_our_tensors_and_we_read_its(array, name):
    tensor = tensor_proto_class()()
    tensor.ParseFromString(onnx_data.tensor_proto(name, array))
    assert (tensor.name, list(tensor.dims)) == (name, list(array.shape))
    assert tensor.data_type == ONNX_TYPES[array.dtype.name]
    assert tensor.raw_data == array.tobytes()
    assert len(tensor.ListFields()) == 3 + bool(array.ndim)

    tensor.ClearField("raw_data")
    tensor.doc_string = "is passed over"
    fields = {"float32": "float_data", "int64": "int64_data", "float64": "double_data"}
    field = fields.get(array.dtype.name, "int32_data")
    numbers = array.astype(int) if array.dtype == bool else array
    getattr(tensor, field).extend(numbers.ravel().tolist())
    message = np.frombuffer(tensor.SerializeToString(), np.uint8)
    said, found = onnx_data.read_tensor_proto(message)
    assert said == name
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_tensors_that_are_none_are_refused():
    good = onnx_data.tensor_proto("x", np.ones(2, np.float32))
    for more, said in [
        (b"\x70\x01", "its data are in another file"),
        (b"\x72\x01\x00", "its data are in another file"),  # (of a wrong wire type)
        (b"\x08\x02", "its data are 8 bytes; float32 of shape .2, 2. takes 16"),
        (b"\x10\x08", "its data_type is 8"),
        (b"\x4a\x7f", "field 9 of 127 bytes ends beyond its message"),
        (b"\x0b", "has the wire type 3"),
        (b"\x08" + b"\xff" * 10, "are no varint"),
    ]:
        message = np.frombuffer(good + more, np.uint8)
        with pytest.raises(CheckpointError, match=said):
            onnx_data.read_tensor_proto(message)
    message = np.frombuffer(good + b"\x70\x00\x62\x03doc", np.uint8)
    np.testing.assert_array_equal(onnx_data.read_tensor_proto(message)[1], np.ones(2))


def test_onnx_names_inputs_as_the_graph_does(tmp_path):
    save_golden(tmp_path / "golden", golden_of(names="ln_f"))
    where = tmp_path / "golden" / "test_data_set_0"
    assert sorted(file.name for file in where.iterdir()) == [
        *(f"input_{i}.pb" for i in range(4)),
        *(f"output_{i}.pb" for i in range(3)),
    ]
    message = np.fromfile(where / "input_0.pb", np.uint8)
    assert onnx_data.read_tensor_proto(message)[0] == "input_ids"
    with pytest.raises(FileExistsError, match="is there already"):
        save_golden(tmp_path / "golden", golden_of())
    # Without golden.json it is somebody's dump, and no golden.
    (tmp_path / "golden" / "golden.json").unlink()
    assert set(read_dump(tmp_path / "golden")) >= {"inputs.input_ids", "lm_head"}
    with pytest.raises(CheckpointError, match="is no golden file"):
        read_golden(tmp_path / "golden")


def test_safetensors_and_numpy_read_the_files(tmp_path):
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    golden = golden_of()
    save_golden(tmp_path / "g.safetensors", golden)
    found = safetensors_numpy.load_file(tmp_path / "g.safetensors")
    same(found["lm_head"], golden["lm_head"])
    same(found["inputs.labels"], golden.inputs["labels"])
    save_golden(tmp_path / "g.npz", golden)
    with np.load(tmp_path / "g.npz") as archive:
        same(archive["loss"], golden["loss"])
        about = json.loads(archive["__golden__"].tobytes())
    assert about["order"] == list(golden.steps)


NODE = """
const fs = require('fs')
const text = fs.readFileSync(process.argv[2] + '/g.json', 'utf8')
const { golden, tensors } = JSON.parse(text)
const data = fs.readFileSync(process.argv[2] + '/g.safetensors')
const length = Number(data.readBigUInt64LE(0))
const header = JSON.parse(data.subarray(8, 8 + length).toString())
const about = JSON.parse(header.__metadata__.golden)
let numbers = 0
for (const name of golden.order) {
  const [start, stop] = header[name].data_offsets
  const bytes = data.subarray(8 + length + start, 8 + length + stop)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  tensors[name].data.forEach((value, i) => {
    if (!Object.is(Number(value === '-inf' ? -Infinity : value),
                   view.getFloat64(8 * i, true)))
      throw new Error(`${name} ${i}: ${value}`)
    numbers++
  })
}
const [B, T, V] = tensors.lm_head.shape
console.log(JSON.stringify({
  numbers, order: about.order, tolerance: about.tolerance.lm_head,
  shape: [B, T, V], last: tensors.lm_head.data.slice(-V),
}))
"""


@pytest.mark.peers
def test_node_reads_json_and_safetensors_alike(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    golden = golden_of(np.float64)
    save_golden(tmp_path / "g.json", golden)
    save_golden(tmp_path / "g.safetensors", golden)
    (tmp_path / "read.js").write_text(NODE)
    said = json.loads(
        subprocess.check_output([node, tmp_path / "read.js", tmp_path], text=True)
    )
    assert said["numbers"] == sum(array.size for array in golden.steps.values())
    assert said["order"] == list(golden)
    assert said["tolerance"] == golden.tolerance["lm_head"]
    same(np.array(said["last"]), golden["lm_head"][-1, -1])


# --- Bad files


@settings(files, max_examples=150)
@given(data=st.data())
def test_a_mutated_golden_is_read_or_is_a_checkpoint_error(tmp_path_factory, data):
    format = data.draw(st.sampled_from(sorted(FORMATS)))
    folder = tmp_path_factory.mktemp("mutated")
    path = folder / FORMATS[format]
    golden = Golden(
        {"input_ids": np.array([[1, 2]])},
        {"wte": np.ones((1, 2, 2), np.float32), "loss": np.float64(-math.inf)},
        {"loss": "loss"},
        {"wte": 0.5, "loss": 1e-300},
        {"config": {"n_layer": 1}},
    )
    save_golden(path, golden)
    parts = [path] if path.is_file() else sorted(p for p in path.rglob("*.*"))
    part = data.draw(st.sampled_from(parts))
    whole = bytearray(part.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        new = data.draw(
            st.binary(max_size=2)
            | st.sampled_from([b'"', b"9" * 20, b"[", b"-", b"e9"])
        )
        gone = data.draw(st.integers(0, 4))
        whole[at : at + gone] = new
        whole = whole or bytearray(b"{")
    part.write_bytes(whole)
    for read in (read_golden, read_dump):
        with contextlib.suppress(CheckpointError):
            read(path)


MISTAKES = {
    "its 'order' is no list": {"order": ["wte", 1]},
    "it has no tensor 'h.7'": {"order": ["h.7"]},
    "its outputs do not name steps": {"outputs": {"logits": "lm_head"}},
    "its tolerance does not map": {"tolerance": {"wte": -1.0}},
    "is no golden file: it does not say": {"format": "minigpt2 golden 9"},
}


@pytest.mark.parametrize("said", MISTAKES)
def test_what_a_file_says_of_itself_is_checked(tmp_path, said):
    about = {
        "format": "minigpt2 golden 1",
        **{"inputs": [], "order": ["wte"], "outputs": {}, "tolerance": {}},
    }
    path = tmp_path / "g.json"
    tensors = {"wte": np.ones(2, np.float32)}
    json_file.save_json(path, tensors, about)
    read_golden(path)
    json_file.save_json(path, tensors, about | MISTAKES[said])
    with pytest.raises(CheckpointError, match=said):
        read_golden(path)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('{"dtype": "float32", "shape": [2], "data": [1]}', "has 1 numbers"),
        ('{"dtype": "float32", "shape": [1], "data": [1e39]}', "too large for float32"),
        ('{"dtype": "int8", "shape": [1], "data": [300]}', "too large for int8"),
        ('{"dtype": "int8", "shape": [1], "data": [1.5]}', "1.5 is no int8"),
        ('{"dtype": "float64", "shape": [1], "data": ["1"]}', "'1' is no float64"),
        ('{"dtype": "float64", "shape": [1], "data": [true]}', "True is no float64"),
        ('{"dtype": "O", "shape": [1], "data": [1]}', "is no tensor"),
        ('{"dtype": "int8", "shape": [-1], "data": []}', "no array can have"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_json_says_what_is_wrong_with_a_tensor(tmp_path, entry, said):
    path = tmp_path / "x.json"
    path.write_text('{"tensors": {"x": ' + entry + "}}")
    with pytest.raises(CheckpointError, match=said):
        read_dump(path)


def test_files_of_no_known_kind_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no suffix of a golden file"):
        read_golden(tmp_path / "x.txt")
    with pytest.raises(CheckpointError, match="No such file"):
        read_golden(tmp_path / "x.json")
    with pytest.raises(ValueError, match="or name a format: safetensors, npz"):
        save_golden(tmp_path / "x.txt", golden_of())
    save_golden(tmp_path / "x.txt", golden_of(), format="json")
    with pytest.raises(CheckpointError, match="has no test_data_set_0"):
        read_golden(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]


# --- llm.c's debug state


def test_a_golden_with_gradients_becomes_a_debug_state_and_back(tmp_path):
    model = tiny_model()
    batch = np.arange(10).reshape(2, 5)
    x, y = batch[:, :-1], batch[:, 1:]
    golden = make_golden(model, x, names=[])
    golden.inputs["targets"] = y
    golden.steps["loss"] = np.float32(4.5)
    golden.outputs["loss"] = "loss"
    with pytest.raises(ValueError, match="debug state has gradients, and this golden"):
        save_golden(tmp_path / "state.bin", golden)
    config = model.config
    config.n_inner = 4 * config.n_embd
    whole = GPT2LMHeadModel(config, seed=1).transformer.state_dict()
    golden.steps |= {f"gradients.{name}": array for name, array in whole.items()}
    save_golden(tmp_path / "state.bin", golden)
    found = read_golden(tmp_path / "state.bin", config)
    np.testing.assert_array_equal(found.inputs["input_ids"], x)
    np.testing.assert_array_equal(found.inputs["targets"], y)
    same(found["logits"], golden["lm_head"])
    for name in whole:
        np.testing.assert_array_equal(found[f"gradients.{name}"], whole[name])
    save_golden(tmp_path / "state.json", found)
    same_golden(read_golden(tmp_path / "state.json"), found)


# --- Dumps of others


def peer_of(model):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields = model.config.to_dict()
    kept = "vocab_size n_positions n_embd n_layer n_head n_inner".split()
    config = transformers.GPT2Config(
        **{name: fields[name] for name in kept}, attn_implementation="eager"
    )
    config.bos_token_id = config.eos_token_id = None
    peer = transformers.GPT2LMHeadModel(config).eval()
    state = {n: torch.from_numpy(a.copy()) for n, a in model.state_dict().items()}
    peer.load_state_dict(state, strict=False)
    return peer


@pytest.mark.peers
def test_the_folder_of_transformers_debugger_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    debugging = pytest.importorskip("transformers.model_debugging_utils")
    model = tiny_model()
    ids = np.array([[3, 1, 4, 1, 5]])
    with (
        debugging.model_addition_debugger_context(
            peer_of(model),
            debug_path=str(tmp_path),
            do_prune_layers=False,
            use_repr=False,
        ) as peer,
        torch.no_grad(),
    ):
        peer(input_ids=torch.from_numpy(ids))
    found = read_dump(tmp_path)
    t = trace(model, ids)
    inner = {"c_attn", "q", "k", "v", "scores", "masked", "weights"}
    expected = {n for n in t.names if n.rpartition(".")[2] not in inner - {"c_attn"}}
    assert expected <= set(found)
    for name in expected:
        ours = t[name]
        if name.endswith("attn.z"):
            ours = np.swapaxes(ours, 1, 2).reshape(1, 5, -1)
        np.testing.assert_allclose(found[name], ours, atol=3e-5 * np.abs(ours).max())
    np.testing.assert_array_equal(found["inputs.input_ids"], ids)


@pytest.mark.peers
def test_dumps_of_torch_hooks_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor([1.5, -2.0]).bfloat16(),
    }
    torch.save(tensors, tmp_path / "dump.pt")
    safetensors_torch.save_file(tensors, tmp_path / "dump.safetensors")
    np.savez(
        tmp_path / "dump.npz", **{n: t.float().numpy() for n, t in tensors.items()}
    )
    for suffix in ("pt", "safetensors", "npz"):
        found = read_dump(tmp_path / f"dump.{suffix}")
        assert list(found) == ["a", "b"]
        for name, tensor in tensors.items():
            same(found[name], tensor.float().numpy())


# --- The command


def run(capsys, *arguments):
    code = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_makes_shows_and_converts(capsys, tmp_path):
    path = tmp_path / "g.safetensors"
    code, out, _ = run(
        capsys, "golden", "make", "--text", "To be", "--dtype", "float64", "--out", path
    )
    assert (code, out) == (0, f"{path}\n")
    golden = read_golden(path)
    model = GPT2LMHeadModel.from_pretrained("shakespeare-1m", dtype=np.float64)
    ids = golden.inputs["input_ids"]
    same(golden["logits"], trace(model, ids).output.logits)
    assert golden.about["text"] == "To be"

    code, out, _ = run(capsys, "golden", "show", path)
    assert code == 0
    assert "dtype: float64" in out
    assert "outputs: loss = loss, logits = lm_head" in out
    assert "transformer.h.0.attn.weights  float64" in out
    code, out, _ = run(capsys, "golden", "show", path, "--json")
    said = json.loads(out)
    assert [row["name"] for row in said["tensors"]] == [
        *(f"inputs.{name}" for name in golden.inputs),
        *golden.steps,
    ]

    code, out, _ = run(capsys, "golden", "convert", path, tmp_path / "g.json")
    assert code == 0
    same_golden(read_golden(tmp_path / "g.json"), golden)
    code, _, err = run(capsys, "golden", "convert", path, tmp_path / "g.bin")
    assert code == 1
    assert "debug state has gradients, targets, and this golden has not" in err


def test_the_command_takes_ids_and_batches_of_texts(capsys, tmp_path):
    path = tmp_path / "g.npz"
    chosen = ["--names", "h.?.ln_1", "lm_head", "--out", path]
    code, _, _ = run(capsys, "golden", "make", "--ids", 5, 6, 7, *chosen)
    assert code == 0
    golden = read_golden(path)
    assert golden.inputs["input_ids"].tolist() == [[5, 6, 7]]
    assert [name for name in golden if name.endswith("ln_1")] == [
        f"transformer.h.{i}.ln_1" for i in range(golden.about["config"]["n_layer"])
    ]
    texts = ["--text", "To be, or not", "--text", "Romeo"]
    code, _, _ = run(capsys, "golden", "make", *texts, *chosen)
    assert code == 0
    golden = read_golden(path)
    mask = golden.inputs["attention_mask"]
    assert mask.tolist()[0] == [1] * mask.shape[1]
    assert mask[1, 0] == 0
    labels = golden.inputs["labels"]
    assert (labels[0] == golden.inputs["input_ids"][0])[1:].all()
    first = mask[1].argmax()
    assert (labels[1, : first + 1] == -100).all()
    assert (labels[1, first + 1 :] == golden.inputs["input_ids"][1, first + 1 :]).all()
    alone = [golden.inputs["input_ids"][1][mask[1] == 1].tolist()]
    model = GPT2LMHeadModel.from_pretrained("shakespeare-1m")
    expected = model(alone).logits[0]
    found = golden["logits"][1][mask[1] == 1]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_command_writes_tiny_models_that_their_goldens_are_of(capsys, tmp_path):
    code, out, _ = run(capsys, "golden", "tiny", tmp_path, "--dtype", "float64")
    assert code == 0
    assert out.splitlines() == [str(tmp_path / name) for name in TINY_MODELS]
    for name in TINY_MODELS:
        golden = read_golden(tmp_path / name / "golden.safetensors")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=np.float64)
        again = trace(model, **golden.inputs)
        same(again["lm_head"], golden["logits"])
        if name == "double-heads":
            assert golden["mc_logits"].shape == (2,)
    some = ["--names", "tiny", "untied", "--format", "json"]
    code, out, _ = run(capsys, "golden", "tiny", tmp_path / "some", *some)
    assert code == 0
    assert {p.name for p in (tmp_path / "some").iterdir()} == {"tiny", "untied"}
    assert len(read_golden(tmp_path / "some" / "untied" / "golden.json")) == 54
    code, _, err = run(capsys, "golden", "tiny", tmp_path / "x", "--names", "small")
    assert code == 1
    assert "no tiny model 'small'; there are tiny, one-head" in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ids", "1", "--names", "h.0.lnn", "--out", "x.npz"], "no step 'h.0.lnn'"),
        (["--ids", "9999", "--out", "x.npz"], "9999"),
        (["--text", "", "--out", "x.npz"], "a text has no tokens"),
        (["--ids", "1", "--out", "x.txt"], "no suffix of a golden file"),
        (["--ids", "1", "--out", "x.npz", "--weights", "int8", "--dtype", "float64"],
         "float32"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line_are_said(
    capsys, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "golden", "make", *arguments)
    assert code == 1
    assert said in err
    assert not list(Path(tmp_path).iterdir())
