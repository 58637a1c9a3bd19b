"""minigpt2 golden diff, foreign names and layouts, and the report."""

import json
import sys

import numpy as np
import pytest
from ports import BUGS, Port
from safetensors.numpy import save_file

from minigpt2 import GPT2Config, GPT2LMHeadModel, trace
from minigpt2.cli import main
from minigpt2.testing import diagnose, tiny_inputs, tiny_model
from minigpt2.tracing.golden import make_golden, save_golden
from minigpt2.tracing.precision import rounded

MODEL = tiny_model(7)
INPUTS = tiny_inputs(7).arguments()
READ = ("input_ids", "attention_mask", "position_ids")


def port(bug=None, dtype="float32"):
    planted = BUGS[bug][2] if bug else None
    return Port(MODEL, dtype, planted)(*(INPUTS[name] for name in READ))


@pytest.fixture
def folder(tmp_path):
    """A folder with the model, its golden file, and what a port with a bug dumped."""
    MODEL.save_pretrained(tmp_path / "model")
    save_golden(tmp_path / "model" / "golden.npz", make_golden(MODEL, **INPUTS))
    for name, dump in {"good": port(), "bad": port("exact GELU")}.items():
        save_file(
            {key: np.ascontiguousarray(array) for key, array in dump.items()},
            tmp_path / f"{name}.safetensors",
        )
    return tmp_path


def run(*arguments):
    return main(["golden", "diff", *map(str, arguments)])


def test_exit_codes_say_same_differs_and_not_comparable(folder, capsys):
    golden = folder / "model" / "golden.npz"
    assert run(golden, folder / "good.safetensors") == 0
    assert capsys.readouterr().out.startswith("SAME: ")
    assert run(golden, folder / "bad.safetensors") == 1
    out = capsys.readouterr().out
    assert out.startswith("DIFFERS, first at h.0.mlp.act: ")
    assert "EXACT GELU" in out
    assert "gelu_new" in out
    save_file({"weather": np.zeros((2, 3), np.float32)}, folder / "none.safetensors")
    assert run(golden, folder / "none.safetensors") == 2
    assert "NOT COMPARABLE" in capsys.readouterr().out
    assert run(golden, folder / "missing.safetensors") == 2
    assert run(golden, folder / "bad.safetensors", "--rtol", "0.1") == 0


def test_other_ids_are_shown_before_any_tensor(folder, capsys):
    ids = np.concatenate([np.full((2, 1), 60), INPUTS["input_ids"]], axis=1)
    save_file({"input_ids": ids}, folder / "bos.safetensors")
    assert run(folder / "model" / "golden.npz", folder / "bos.safetensors") == 2
    assert "theirs begin with a BOS" in capsys.readouterr().out


def test_the_report_fits_a_screen_and_json_has_it_all(folder, capsys):
    for bug in BUGS:
        lines = str(diagnose(MODEL, port(bug), **INPUTS)).splitlines()
        assert len(lines) <= 24, bug
        assert max(map(len, lines)) <= 80, bug
    assert (
        run(folder / "model" / "golden.npz", folder / "bad.safetensors", "--json") == 1
    )
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "differs"
    assert found["causes"] == ["exact GELU"]
    assert found["first_wrong"] == "h.0.mlp.act"
    assert {"name", "own", "inherited", "tolerance"} <= set(found["steps"][0])


def test_without_the_model_the_first_step_that_differs_is_found(folder, capsys):
    (folder / "model" / "golden.npz").rename(folder / "golden.npz")
    assert run(folder / "golden.npz", folder / "bad.safetensors") == 1
    out = capsys.readouterr().out
    assert "h.0.mlp.act" in out
    assert "--model" in out
    assert run(folder / "golden.npz", folder / "good.safetensors") == 0
    capsys.readouterr()
    files = folder / "golden.npz", folder / "bad.safetensors"
    assert run(*files, "--model", folder / "model") == 1
    assert "EXACT GELU" in capsys.readouterr().out


def test_a_mapping_file_gives_names(folder, capsys):
    dump = port("exact GELU")
    theirs = {f"layers.{i}.gelu": dump[f"h.{i}.mlp.act"] for i in range(3)}
    theirs |= {f"layers.{i}.up": dump[f"h.{i}.mlp.c_fc"] for i in range(3)}
    save_file(theirs, folder / "own.safetensors")
    names = {"layers.{i}.gelu": "h.{i}.mlp.act", "layers.{i}.up": "h.{i}.mlp.c_fc"}
    (folder / "names.json").write_text(json.dumps(names))
    files = folder / "model" / "golden.npz", folder / "own.safetensors"
    assert run(*files) == 2
    assert run(*files, "--map", folder / "names.json") == 1
    assert "EXACT GELU" in capsys.readouterr().out
    (folder / "names.json").write_text("[]")
    assert run(*files, "--map", folder / "names.json") == 2


LENS = {
    "drop": "blocks.0.hook_resid_pre",
    "attn.q": "attn.hook_q",
    "attn.k": "attn.hook_k",
    "attn.v": "attn.hook_v",
    "attn.masked": "attn.hook_attn_scores",
    "attn.weights": "attn.hook_pattern",
    "attn.z": "attn.hook_z",
    "attn.c_proj": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp.c_fc": "mlp.hook_pre",
    "mlp.act": "mlp.hook_post",
    "mlp.c_proj": "hook_mlp_out",
    "": "hook_resid_post",
}


def as_transformer_lens(dump):
    """The dump as TransformerLens's cache has it: heads behind the positions."""
    theirs = {}
    for name, array in dump.items():
        parts = name.split(".", 2)
        local = parts[2] if parts[2:] else "" if parts[0] == "h" else name
        if local not in LENS:
            continue
        if local in ("attn.q", "attn.k", "attn.v", "attn.z"):
            array = array.swapaxes(1, 2)
        hook = LENS[local]
        theirs[hook if local == "drop" else f"blocks.{parts[1]}.{hook}"] = array
    return theirs


def as_llm_c(dump):
    """The dump as llm.c's ActivationTensors: one flat array for all layers."""

    def all_layers(local):
        return np.stack([dump[f"h.{i}.{local}".removesuffix(".")] for i in range(3)])

    masked = all_layers("attn.masked")
    z = np.swapaxes(all_layers("attn.z"), 2, 3)
    logits = np.pad(dump["lm_head"], [(0, 0), (0, 0), (0, 3)])
    return {
        "encoded": dump["drop"].ravel(),
        "ln1": all_layers("ln_1").ravel(),
        "qkv": all_layers("attn.c_attn").ravel(),
        "preatt": np.where(np.isinf(masked), 0, masked).ravel(),
        "att": all_layers("attn.weights").ravel(),
        "atty": z.reshape(3, 2, 9, -1).ravel(),
        "attproj": all_layers("attn.c_proj").ravel(),
        "residual2": all_layers("resid_mid").ravel(),
        "ln2": all_layers("ln_2"),
        "fch": all_layers("mlp.c_fc"),
        "fch_gelu": all_layers("mlp.act"),
        "fcproj": all_layers("mlp.c_proj"),
        "residual3": all_layers(""),
        "lnf": dump["ln_f"],
        "logits": logits,
    }


def as_hugging_face(dump):
    """What output_hidden_states and output_attentions give."""
    states = [dump[name] for name in ("drop", "h.0", "h.1", "ln_f")]
    return {
        "hidden_states": np.stack(states),
        "attentions": np.stack([dump[f"h.{i}.attn.weights"] for i in range(3)]),
        "logits": dump["lm_head"],
    }


def as_modules(dump):
    """Hooks on modules, z merged as c_proj reads it, q, k and v in one [3, B, H, T, D]."""
    theirs = {}
    for name, array in dump.items():
        if name.endswith(("attn.q", "attn.k", "attn.v")):
            continue
        if name.endswith("attn.z"):
            array = array.swapaxes(1, 2).reshape(2, 9, -1)
        if name.endswith("c_attn"):
            array = np.stack(np.split(array, 3, axis=-1))
            array = array.reshape(3, 2, 9, 4, -1).swapaxes(2, 3)
        theirs["lm_head" if name == "lm_head" else f"transformer.{name}"] = array
    return theirs


STYLES = [as_transformer_lens, as_llm_c, as_hugging_face, as_modules]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "bug", [None, "exact GELU", "no scale", "heads not swapped back", "1 + gain"]
)
def test_names_and_layouts_of_others_are_read(style, bug):
    inputs = dict(INPUTS)
    if style is as_llm_c:  # which knows no padding: its rows are full
        inputs = {"input_ids": INPUTS["input_ids"]}
    planted = BUGS[bug][2] if bug else None
    dump = Port(MODEL, "float32", planted)(*(inputs.get(name) for name in READ))
    found = diagnose(MODEL, style(dump), **inputs)
    assert not found.notes or all("was read" in note for note in found.notes)
    assert found.causes == ([BUGS[bug][0]] if bug else [])
    assert len(found.steps) >= 8


def test_axes_in_another_order_and_a_batch_of_one_are_read():
    ids = INPUTS["input_ids"][:1]
    dump = Port(MODEL)(ids)
    theirs = {
        "h.0.ln_1": dump["h.0.ln_1"][0],
        "h.0.mlp.act": dump["h.0.mlp.act"][0].T,
        "h.0.attn.q": dump["h.0.attn.q"].reshape(4, 9, -1),
        "h.0.attn.v": dump["h.0.attn.v"].transpose(0, 2, 1, 3),
    }
    found = diagnose(MODEL, theirs, input_ids=ids)
    assert found.status == "same"
    assert [step.name for step in found.steps] == [
        "h.0.ln_1",
        "h.0.attn.q",
        "h.0.attn.v",
        "h.0.mlp.act",
    ]
    found = diagnose(MODEL, {"h.0.ln_1": np.zeros((4, 5))}, input_ids=ids)
    assert found.status == "not comparable"
    assert "shape [4, 5]" in found.notes[1]


def test_positions_behind_a_past_are_checked():
    ids, split = INPUTS["input_ids"], 5
    past = MODEL(ids[:, :split]).past_key_values
    inputs = {"input_ids": ids[:, split:], "past": past}
    theirs = dict(trace(MODEL, **inputs))
    assert diagnose(MODEL, theirs, **inputs).status == "same"
    wrong = dict(trace(MODEL, **inputs, position_ids=np.arange(4)[None]))
    for names in (list(theirs), ["transformer.drop"], ["lm_head"]):
        found = diagnose(MODEL, {name: wrong[name] for name in names}, **inputs)
        assert found.causes == ["positions"]
        assert "the past is ignored" in found.findings[0].best.detail


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_transformers_itself_passes_and_is_found_out_if_it_is_hooked(dtype):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields = MODEL.config.to_dict()
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
    config = transformers.GPT2Config(
        **{name: fields[name] for name in names},
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
    )
    peer = transformers.GPT2LMHeadModel(config).eval()
    state = {n: torch.from_numpy(a.copy()) for n, a in MODEL.state_dict().items()}
    peer.load_state_dict(state, strict=False)
    peer.tie_weights()
    peer = peer.to(getattr(torch, dtype))

    def dump():
        given = {name: torch.as_tensor(INPUTS[name]) for name in READ}
        with torch.no_grad():
            out = peer(**given, output_hidden_states=True, output_attentions=True)
        return {
            "hidden_states": torch.stack(out.hidden_states),
            "attentions": torch.stack(out.attentions),
            "logits": out.logits,
        }

    inputs = {name: INPUTS[name] for name in READ}
    found = diagnose(MODEL, dump(), **inputs)
    assert (found.status, found.precision) == ("same", dtype)
    for block in peer.transformer.h:
        block.mlp.act = torch.nn.ReLU()
    found = diagnose(MODEL, dump(), **inputs)
    if dtype == "bfloat16":  # from which leaky ReLU cannot be told
        assert found.causes == ["unknown"]
        assert "ReLU or leaky ReLU" in found.findings[0].reason
    else:
        assert found.causes == ["ReLU"]
    if dtype == "float32":
        peer.transformer.h[1].ln_1.eps = 1e-2
        found = diagnose(MODEL, dump(), **inputs)
        assert set(found.causes) <= {"ReLU", "unknown"}


def test_dropout_that_was_left_on_is_named():
    theirs = port()
    rng = np.random.default_rng(0)
    for i in range(3):
        branch = theirs[f"h.{i}.attn.c_proj"]
        kept = rng.random(branch.shape) >= 0.1
        before = theirs["drop" if i == 0 else f"h.{i - 1}"]
        theirs[f"h.{i}.resid_mid"] = before + branch * kept / np.float32(0.9)
    for i in range(3):
        del theirs[f"h.{i}"]
    found = diagnose(MODEL, theirs, **{n: INPUTS[n] for n in READ})
    assert "dropout left on" in found.causes
    assert set(found.causes) <= {"dropout left on", "unknown"}


def test_llmcs_debug_state_is_a_golden_too(folder, capsys):
    tied = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=12, n_embd=8, n_layer=2, n_head=2), seed=3
    )
    tied.save_pretrained(folder / "tied")
    ids = [5, 9, 30, 7]
    made = ["golden", "make", "--model", str(folder / "tied"), "--ids", *map(str, ids)]
    assert main([*made, "--out", str(folder / "state.bin")]) == 0
    logits = tied([ids[:-1]]).logits
    files = folder / "state.bin", folder / "logits.safetensors"
    for changed, status in ((0.0, 0), (0.5, 1)):
        save_file({"lm_head": logits + np.float32(changed)}, files[1])
        assert run(*files, "--model", folder / "tied") == status


def test_a_golden_finds_its_model_however_it_was_named(folder, capsys):
    golden = folder / "elsewhere.npz"
    made = ["golden", "make", f"--model={folder / 'model'}", "--ids", "3", "1", "4"]
    assert main([*made, "--out", str(golden)]) == 0
    theirs = dict(trace(MODEL, [[3, 1, 4]]))
    save_file(
        {n: np.ascontiguousarray(a) for n, a in theirs.items()},
        folder / "own.safetensors",
    )
    assert run(golden, folder / "own.safetensors") == 0
    assert "--model" not in capsys.readouterr().out


def test_layers_are_the_models_whichever_steps_a_golden_keeps():
    golden = make_golden(MODEL, INPUTS["input_ids"][:1], ["h.1", "ln_f", "lm_head"])
    whole = trace(MODEL, INPUTS["input_ids"][:1])
    theirs = {"hidden_states.1": whole["h.0"], "hidden_states.2": whole["h.1"]}
    theirs |= {"hidden_states.3": whole["ln_f"], "att": whole["h.1.attn.weights"]}
    assert diagnose(golden, theirs).status == "same"
    theirs["hidden_states.2"] = whole["h.0"]
    assert diagnose(golden, theirs).first_wrong == "h.1"


def test_masks_of_four_axes_and_choices_are_compared_without_the_model():
    ids = INPUTS["input_ids"]
    causal = np.tri(ids.shape[1], dtype=bool)[None, None].repeat(2, axis=0)
    inputs = {"input_ids": ids, "attention_mask": causal}
    theirs = dict(trace(MODEL, **inputs))
    golden = make_golden(MODEL, **inputs)
    assert diagnose(golden, theirs).status == "same"
    name = "transformer.h.0.attn.scores"
    theirs[name] = theirs[name] * np.float32(2.0)
    assert diagnose(golden, theirs).first_wrong == "h.0.attn.scores"

    model = tiny_model("double-heads")
    inputs = dict(tiny_inputs("double-heads").arguments())
    inputs = {name: array[None] for name, array in inputs.items()}  # [1, choices, T]
    golden = make_golden(model, **inputs)
    theirs = dict(golden.steps)
    assert diagnose(golden, theirs).status == "same"
    wrong = np.array(theirs["lm_head"])
    wrong[0, 1, -1] += 1.0
    assert diagnose(golden, theirs | {"lm_head": wrong}).first_wrong == "lm_head"
    padded = np.array(theirs["lm_head"])
    padded[0, 1, 0] += 1.0  # of padding
    assert diagnose(golden, theirs | {"lm_head": padded}).status == "same"


def test_embeddings_that_were_given_are_known_from_positions():
    embeds = MODEL.transformer.wte(INPUTS["input_ids"][:1])
    theirs = dict(trace(MODEL, inputs_embeds=embeds))
    theirs = {name: theirs["transformer." + name] for name in ("wpe", "drop")}
    theirs["drop"] = theirs["wpe"] + np.float32(np.sqrt(embeds.shape[-1])) * embeds
    found = diagnose(MODEL, theirs, inputs_embeds=embeds)
    assert found.causes == ["embeddings scaled by sqrt(C)"]


def test_bfloat16_is_rounded_once():
    almost = np.array([1 + 2.0**-8 + 2.0**-30])  # nearer to 1 + 2^-7, as float32 a tie
    assert rounded(almost, "bfloat16") == 1 + 2.0**-7


def test_a_model_that_cannot_be_had_is_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    golden = make_golden(MODEL, **INPUTS)
    golden.about["model"] = "gpt2-xl"
    save_golden("golden.npz", golden)
    save_golden("theirs.npz", golden)
    assert run("golden.npz", "theirs.npz") == 0
    assert "huggingface_hub" in " ".join(capsys.readouterr().out.split())
    assert run("golden.npz", "theirs.npz", "--model", "gpt2-xl") == 2  # not "differs"
    assert "huggingface_hub" in capsys.readouterr().err
