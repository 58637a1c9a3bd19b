import json
import shutil

import numpy as np
import pytest

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, hub
from minigpt2.checkpoints.safetensors_file import SafetensorsFile
from minigpt2.cli import main
from minigpt2.tasks import verify

PUBLISHED = json.loads(verify.PUBLISHED.read_text("utf-8"))
SIZES = {"vocab_size": 2048, "n_layer": 4, "n_embd": 128}


@pytest.fixture(scope="module")
def numbers(shakespeare):
    """What transformers computes with the trained model, as a file of numbers."""
    expected, arrays = shakespeare.expected, shakespeare.arrays
    prompt, other = expected["prompts"][:2]
    ids = [prompt["ids"]]
    logits, hidden = arrays["logits_0_float64"], arrays["hidden_4_float64"]
    last = logits[-1]
    log_probs = last - last.max()
    log_probs -= np.log(np.exp(log_probs).sum())
    vocabulary = shakespeare.folder / "vocab.bpe"
    rows = [
        {
            "kind": "file",
            "file": "vocab.bpe",
            "bytes": 11733,
            "sha256": verify.sha256(vocabulary),
            "only": True,
        },
        {"kind": "parameters", "value": 1_088_256},
        {
            "kind": "tokenizer",
            "vectors": [[p["text"], p["ids"]] for p in expected["prompts"]],
        },
        {"kind": "greedy", "prompt": prompt["ids"], "ids": prompt["greedy_60"]},
        {
            "kind": "greedy",
            "prompt": other["text"],
            "length": len(other["greedy_60"]),
            "text": other["greedy_60_text"],
        },
        {
            "kind": "hidden",
            "input_ids": ids,
            "at": "0, 1:4, -3:",
            "values": hidden[1:4, -3:].tolist(),
            "tolerance": 1e-4,
        },
        {
            "kind": "logits",
            "input_ids": ids,
            "attention_mask": [[1] * len(ids[0])],
            "at": "0, 2, :5",
            "values": logits[2, :5].tolist(),
            "tolerance": 1e-4,
        },
        {"kind": "argmax", "input_ids": ids, "values": [logits.argmax(-1).tolist()]},
        {
            "kind": "loss",
            "input_ids": ids,
            "value": prompt["loss_float64"],
            "tolerance": 1e-5,
        },
        {
            "kind": "greedy logits",
            "prompt": prompt["text"],
            "values": [last.max()],
            "tolerance": 1e-4,
        },
        {
            "kind": "greedy log-probabilities",
            "prompt": prompt["text"],
            "values": [log_probs.max()],
            "tolerance": 1e-4,
        },
    ]
    for row in rows:
        row |= {"models": ["tiny"], "source": "transformers"}
    return {"models": {"tiny": SIZES}, "rows": rows}


@pytest.fixture
def written(tmp_path):
    """Write a file of numbers; return its path."""

    def write(numbers):
        path = tmp_path / "numbers.json"
        path.write_text(json.dumps(numbers))
        return path

    return write


def changed_row(row):
    """The same row with one digit of what it expects changed."""
    row = json.loads(json.dumps(row))
    if row["kind"] == "file":
        row["sha256"] = "0" * 64
    elif row["kind"] == "tokenizer":
        row["vectors"][1][1][-1] += 1
    elif "ids" in row:
        row["ids"][-1] += 1
    elif "text" in row:
        row["text"] = row["text"][:-1] + "#"
    elif "value" in row:
        row["value"] += 1 if row["kind"] == "parameters" else 2 * row["tolerance"]
    else:
        values = np.array(row["values"])
        values.flat[-1] += 2 * row.get("tolerance", 0.5)
        row["values"] = values.tolist()
    return row


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_numbers_of_a_planted_model_hold(shakespeare, numbers, written, dtype):
    results = list(verify.verify(shakespeare.folder, written(numbers), dtype))
    assert [r.verdict for r in results] == ["holds"] * len(numbers["rows"])
    assert [r.kind for r in results] == [row["kind"] for row in numbers["rows"]]
    assert {row["kind"] for row in numbers["rows"]} == set(verify.KINDS)


def test_each_wrong_number_fails_in_its_row_alone(shakespeare, numbers, written):
    for position, row in enumerate(numbers["rows"]):
        rows = list(numbers["rows"])
        rows[position] = changed_row(row)
        subset = rows[max(0, position - 1) : position + 2]
        path = written({**numbers, "rows": subset})
        verdicts = [r.verdict for r in verify.verify(shakespeare.folder, path)]
        expected = ["FAILS" if r is rows[position] else "holds" for r in subset]
        assert verdicts == expected, row["kind"]


def test_not_a_number_does_not_hold(shakespeare, numbers, written):
    rows = [row for row in numbers["rows"] if row["kind"] == "loss"]
    path = written({**numbers, "rows": [{**rows[0], "value": float("nan")}]})
    assert [r.verdict for r in verify.verify(shakespeare.folder, path)] == ["FAILS"]


def plant(folder, change):
    """Copy the embedded model into a folder, with its tensors changed."""
    from safetensors.numpy import save_file

    shutil.copytree(hub.DATA / "shakespeare-1m", folder)
    path = folder / "model.safetensors"
    tensors = {n: a.astype(np.float32) for n, a in SafetensorsFile(path).items()}
    change(tensors)
    save_file(tensors, path)
    return folder


def one_layer_norm_scaled(tensors):
    name = next(n for n in tensors if n.endswith("h.2.ln_1.weight"))
    tensors[name] = tensors[name] * np.float32(1.001)


def two_heads_swapped(tensors):
    name = next(n for n in tensors if n.endswith("h.0.attn.c_proj.weight"))
    tensors[name] = np.roll(tensors[name], 32, axis=0)


def one_embedding_moved(tensors):
    name = next(n for n in tensors if n.endswith("wpe.weight"))
    tensors[name][1, :64] += np.float32(0.01)  # (all 128: a layer norm would undo it)


@pytest.mark.parametrize(
    "change", [one_layer_norm_scaled, two_heads_swapped, one_embedding_moved]
)
def test_slightly_wrong_parameters_do_not_pass(tmp_path, numbers, written, change):
    folder = plant(tmp_path / "model", change)
    results = list(verify.verify(folder, written(numbers)))
    verdicts = {}
    for result in results:
        verdicts.setdefault(result.kind, result.verdict)
    assert verdicts["hidden"] == verdicts["logits"] == verdicts["loss"] == "FAILS"
    assert verdicts["parameters"] == verdicts["tokenizer"] == "holds"


def test_unchanged_weights_in_another_format_pass(tmp_path, numbers, written, capsys):
    folder = plant(tmp_path / "model", lambda tensors: None)
    path = written(numbers)
    assert main(["verify", str(folder), "--numbers", str(path)]) == 0
    out = capsys.readouterr().out
    assert "10 hold, 0 fail, 1 skipped" in out  # there is no vocab.bpe here


def test_the_table_says_what_failed_and_the_exit_code_too(
    shakespeare, numbers, written, capsys
):
    rows = [
        changed_row(row) if row["kind"] == "hidden" else row for row in numbers["rows"]
    ]
    path = written({**numbers, "rows": rows})
    assert main(["verify", str(shakespeare.folder), "--numbers", str(path)]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith("FAILS")]
    assert lines[place].split(maxsplit=1)[1] == "last_hidden_state[0, 1:4, -3:]"
    told = dict(line.split(maxsplit=1) for line in lines[place + 1 : place + 5])
    assert list(told) == ["expected", "got", "difference", "source"]
    assert told["difference"] == "0.0002 (at most 0.0001)"
    assert max(map(len, lines)) <= 80
    assert "10 hold, 1 fail, 0 skipped" in lines[-1]
    assert err == ""


def test_a_wrong_vocabulary_fails_and_a_missing_one_is_skipped(
    tmp_path, shakespeare, numbers, written
):
    folder = tmp_path / "model"
    shutil.copytree(shakespeare.folder, folder)
    path = written(numbers)
    (folder / "vocab.bpe").write_text("#version: 0.2\nt h\n")
    verdicts = {r.kind: r.verdict for r in verify.verify(folder, path)}
    assert verdicts["file"] == verdicts["tokenizer"] == "FAILS"
    assert verdicts["loss"] == "holds"
    (folder / "vocab.bpe").unlink()
    verdicts = {r.kind: r.verdict for r in verify.verify(folder, path)}
    assert verdicts["file"] == verdicts["tokenizer"] == "skipped"


def test_a_checkpoint_written_anew_is_passed_over_and_a_damaged_one_fails(
    tmp_path, shakespeare
):
    subject = verify.Subject(shakespeare.folder, np.float32)
    file = "model.ckpt.index"
    digest = verify.sha256(shakespeare.folder / file)
    row = {"kind": "file", "source": "", "file": file, "bytes": 1830, "sha256": digest}
    assert verify.check(row, subject).verdict == "holds"
    assert verify.check({**row, "bytes": 1831}, subject).verdict == "skipped"
    assert verify.check({**row, "sha256": "0" * 64}, subject).verdict == "FAILS"


def test_a_near_tie_shows_how_near_it_was(shakespeare, numbers):
    row = changed_row(next(r for r in numbers["rows"] if "ids" in r))
    result = verify.check(row, verify.Subject(shakespeare.folder, np.float64))
    assert result.difference.startswith(f"at id {len(row['ids']) - 1}, logits ")


def test_models_and_numbers_that_do_not_fit_are_refused(shakespeare, numbers, written):
    other = {"models": {"tiny": {**SIZES, "n_layer": 3}}, "rows": []}
    with pytest.raises(ValueError, match="no numbers are known for .* 'n_embd': 128"):
        list(verify.verify(shakespeare.folder, written(other)))
    rows = [{"models": ["tiny"], "source": "me", "kind": "colour"}]
    with pytest.raises(ValueError, match="row 0: kind is 'colour', and must be one of"):
        list(verify.verify(shakespeare.folder, written({**numbers, "rows": rows})))
    rows[0]["kind"] = "loss"
    with pytest.raises(ValueError, match="a row of 'me' lacks 'input_ids'"):
        list(verify.verify(shakespeare.folder, written({**numbers, "rows": rows})))


def test_a_damaged_model_is_an_error_not_a_table(tmp_path, shakespeare, capsys):
    shutil.copytree(shakespeare.folder, tmp_path / "model")
    data = tmp_path / "model" / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    numbers = tmp_path / "numbers.json"
    numbers.write_text(json.dumps({"models": {"tiny": SIZES}, "rows": []}))
    command = ["verify", str(tmp_path / "model"), "--numbers", str(numbers)]
    assert main(command) == 1
    assert "is truncated" in capsys.readouterr().err


def test_the_model_in_the_package_has_numbers_and_they_hold(capsys):
    assert main(["verify", "shakespeare-1m"]) == 0
    out = capsys.readouterr().out
    assert "14 hold, 0 fail, 0 skipped" in out
    assert max(map(len, out.splitlines())) <= 80
    assert main(["verify", "shakespeare-1m", "--json"]) == 0
    out, err = capsys.readouterr()
    results = [json.loads(line) for line in out.splitlines()]
    assert [r["verdict"] for r in results] == ["holds"] * 14
    assert "14 hold" in err


# --- The published numbers themselves ---


def test_every_published_row_has_a_source_a_kind_and_known_models():
    for row in PUBLISHED["rows"]:
        assert set(row["models"]) <= set(PUBLISHED["models"])
        assert row["kind"] in verify.KINDS
        assert len(row["source"]) > 10


def test_the_named_models_are_recognized_by_their_sizes():
    for name, fields in PUBLISHED["models"].items():
        config = GPT2Config(**{"n_head": 4, **fields})
        assert verify.recognize(config, PUBLISHED["models"]) == name
    assert set(PUBLISHED["models"]) >= set(hub.HUB_IDS)


def test_the_published_ids_and_hash_hold_for_the_packages_own_vocabulary(monkeypatch):
    subject = verify.Subject.__new__(verify.Subject)
    subject.folder = hub.DATA / "gpt2"
    results = [
        verify.check(row, subject)
        for row in PUBLISHED["rows"]
        if "gpt2" in row["models"]
        and (row["kind"] == "tokenizer" or row.get("file") == "vocab.bpe")
    ]
    assert [r.verdict for r in results] == ["holds"] * 4


def test_published_continuations_agree_with_the_tokenizer():
    """A text and its number of ids, both published by others, fit one another."""
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
    for row in PUBLISHED["rows"]:
        if "length" in row:
            ids = tokenizer.encode(row["text"])
            prompt = tokenizer.encode(row["prompt"])
            assert len(ids) == row["length"]
            assert ids[: len(prompt)] == prompt


def random_gpt2(folder):
    """Save a random GPT-2 with the real vocabulary, 2 layers and 16 numbers a row."""
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, initializer_range=1.0)
    model = GPT2LMHeadModel(config, seed=1)
    config.save_pretrained(folder)
    from safetensors.numpy import save_file

    tensors = {
        n: np.array(a) for n, a in model.state_dict().items() if "lm_head" not in n
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_every_published_row_fails_on_a_model_that_is_not_gpt2(tmp_path):
    subject = verify.Subject(random_gpt2(tmp_path), np.float32)
    for row in PUBLISHED["rows"]:
        result = verify.check(row, subject)
        skipped = row["kind"] in ("file", "tokenizer")  # there are no such files
        assert result.verdict == ("skipped" if skipped else "FAILS"), row
        assert result.what
        assert result.got


@pytest.mark.peers
def test_every_published_row_is_what_transformers_computes_for_it(tmp_path):
    """Each row, its numbers replaced by those of transformers for a random model."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = random_gpt2(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(
        folder, dtype=torch.float64
    ).eval()
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
    subject = verify.Subject(folder, np.float64)

    def continued(ids, length, **options):
        ids = torch.tensor([ids])
        return theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_length=length,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )

    for row in PUBLISHED["rows"]:
        row = {**row, "tolerance": 1e-9}
        prompt = row.get("prompt")
        prompt = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        tensors = {
            name: torch.tensor(row[name])
            for name in ("input_ids", "attention_mask")
            if name in row
        }
        with torch.no_grad():
            match row["kind"]:
                case "file" | "tokenizer":
                    continue
                case "parameters":
                    row["value"] = theirs.num_parameters()
                case "greedy":
                    length = row.get("length") or len(row["ids"])
                    result = continued(prompt, length, **row.get("options", {}))
                    ids = result.sequences[0].tolist()
                    row["ids"] = ids
                    row["text"] = tokenizer.decode(ids)
                case "greedy logits" | "greedy log-probabilities":
                    # generate's logits are float32, and those near 100 lie 8e-6 apart.
                    row["tolerance"] = 3e-5
                    result = continued(prompt, len(prompt) + len(row["values"]))
                    chosen = result.sequences[0, len(prompt) :]
                    logits = torch.cat(result.logits)
                    if row["kind"] != "greedy logits":
                        # (float32's own log_softmax adds 1.8e-5.)
                        logits = logits.double().log_softmax(-1)
                    row["values"] = logits[range(len(chosen)), chosen].tolist()
                case "loss":
                    logits = theirs(**tensors).logits[:, :-1].flatten(0, 1)
                    labels = torch.tensor(row.get("labels", row["input_ids"]))
                    targets = labels[:, 1:].flatten()
                    loss = torch.nn.functional.cross_entropy(logits, targets)
                    row["value"] = loss.item()
                case "argmax":
                    row["values"] = theirs(**tensors).logits.argmax(-1).tolist()
                case "hidden" | "logits" as kind:
                    output = theirs(**tensors, output_hidden_states=True)
                    array = output.logits
                    if kind == "hidden":
                        array = output.hidden_states[-1]
                    row["values"] = eval(
                        f"array[{row['at']}]", {"array": array}
                    ).tolist()
        result = verify.check(row, subject)
        assert result.verdict == "holds", result
