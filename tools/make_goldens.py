"""Make tests/data/model_goldens.{json,npz}: what transformers computes, frozen.

    python tools/make_goldens.py

needs torch and transformers 4.57.6, the last line that applies head_mask. Each case is
a small random configuration, the arguments of one forward pass (or of one call of
generate), and the outputs in float64 and float32 of transformers' eager attention. The
JSON file holds configurations, plain arguments and the versions; the npz file the
arrays, under "case/argument", "case/float64/output" and "case/float32/output" (in
float32 the end results alone, to keep the file small). Parameters are not stored:
`random_state_dict(config, seed)` in tests/model_cases.py makes them from integers.

Three things are deliberate:
- The loss beside float64 outputs is torch's cross_entropy on the float64 logits;
  transformers itself computes it in float32.
- `reorder_and_upcast_attn` has float32 outputs only: transformers refuses float64.
- Every case with position ids has an attention mask: without one, transformers takes
  position ids that start anew for packed sequences and masks between them.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from model_cases import (  # noqa: E402
    base_state_dict,
    random_ids,
    random_state_dict,
    random_values,
)

Config = dict[str, Any]  # fields of a configuration
Arguments = dict[str, Any]  # by name

BASE = {
    "vocab_size": 37,
    "n_positions": 24,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": 36,
    "eos_token_id": 36,
}
LEFT = [[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]]
RIGHT = [[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]]
HOLES = [[1, 0, 1, 1, 0, 1, 1], [1, 1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1]]


def ids(*shape: int, seed: int = 1, vocab_size: int = 37) -> np.ndarray:
    """Return random ids of a shape."""
    return random_ids(shape, vocab_size, seed, 1000)


def past(config: Config, batch: int, length: int, seed: int = 2) -> np.ndarray:
    """Return keys and values that no model made: (L, 2, B, H, S, D)."""
    heads = config["n_head"]
    shape = (config["n_layer"], 2, batch, heads, length, config["n_embd"] // heads)
    return 4 * random_values(shape, seed, 2000)


def forward_cases() -> Iterator[tuple[str, Config, Arguments]]:
    """Yield (name, changes to BASE, arguments of forward)."""
    everything = {"output_hidden_states": True, "output_attentions": True}
    yield "plain", {}, {"input_ids": ids(3, 7), **everything}
    yield "one_token", {}, {"input_ids": ids(1, 1), **everything}
    yield "whole_context", {}, {"input_ids": ids(1, 24)}
    yield "one_head_one_layer", {"n_head": 1, "n_layer": 1}, {"input_ids": ids(2, 5)}
    yield "heads_of_one", {"n_head": 24}, {"input_ids": ids(2, 5)}
    yield "deep", {"n_layer": 6}, {"input_ids": ids(2, 9), "output_hidden_states": True}
    yield "large_epsilon", {"layer_norm_epsilon": 0.1}, {"input_ids": ids(2, 5)}
    yield "narrow_mlp", {"n_inner": 10}, {"input_ids": ids(2, 5)}
    for name in ("relu", "gelu", "swish", "silu", "tanh"):
        changes = {"activation_function": name, "n_inner": 31}
        yield f"activation_{name}", changes, {"input_ids": ids(2, 5)}

    for name, mask in ("left", LEFT), ("right", RIGHT), ("with_holes", HOLES):
        mask = np.array(mask)
        padded = {"input_ids": ids(3, 7), "attention_mask": mask, **everything}
        yield f"padded_{name}", {}, padded
    positions = np.maximum(np.cumsum(LEFT, axis=1) - 1, 0)
    yield (
        "padded_left_with_position_ids",
        {},
        {
            "input_ids": ids(3, 7),
            "attention_mask": np.array(LEFT),
            "position_ids": positions,
        },
    )
    yield (
        "position_ids_of_one_row",
        {},
        {
            "input_ids": ids(2, 5),
            "attention_mask": np.ones((2, 5), int),
            "position_ids": np.array([[23, 4, 4, 0, 9]]),
        },
    )
    yield (
        "token_type_ids",
        {},
        {"input_ids": ids(2, 5), "token_type_ids": ids(2, 5, seed=3)},
    )
    yield "inputs_embeds", {}, {"inputs_embeds": 4 * random_values((2, 5, 24), 4, 1000)}

    cached = {"past_key_values": past(BASE, 3, 4), **everything}
    yield "past", {}, {"input_ids": ids(3, 5), **cached}
    yield "past_and_one_token", {}, {"input_ids": ids(3, 1), **cached}
    holes = np.array(HOLES)
    yield (
        "past_and_mask",
        {},
        {"input_ids": ids(3, 3), "attention_mask": holes, **cached},
    )
    yield (
        "past_and_all_arguments",
        {"n_inner": 50, "activation_function": "relu"},
        {
            "inputs_embeds": 4 * random_values((3, 3, 24), 5, 1000),
            "attention_mask": np.array(LEFT),
            "token_type_ids": ids(3, 3, seed=6),
            "position_ids": np.array([[1, 2, 3], [4, 5, 6], [3, 4, 5]]),
            "head_mask": np.array([[1.0, 0.0, 1.0], [0.5, 1.0, 0.0]]),
            "labels": np.array([[1, 2, 3], [-100, 4, 5], [-100, -100, 36]]),
            **cached,
        },
    )

    one_row = np.array([1.0, 0.0, 0.25])
    yield "head_mask", {}, {"input_ids": ids(2, 5), "head_mask": one_row, **everything}
    per_layer = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    yield (
        "head_mask_by_layer",
        {},
        {"input_ids": ids(2, 5), "head_mask": per_layer, **everything},
    )
    yield (
        "every_head_masked",
        {},
        {"input_ids": ids(2, 5), "head_mask": np.zeros(3), **everything},
    )

    labels = ids(3, 7, seed=7)
    labels[0, :5] = labels[1, 3:] = -100
    yield "labels", {}, {"input_ids": ids(3, 7), "labels": labels}
    same = ids(3, 7)
    yield "labels_are_input_ids", {}, {"input_ids": same, "labels": same}

    for flag, value in (
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("reorder_and_upcast_attn", True),
        ("tie_word_embeddings", False),
    ):
        changes = {flag: value, "n_layer": 3}
        yield f"{flag}_{value}", changes, {"input_ids": ids(2, 5), **everything}
    flags = {
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
        "n_layer": 3,
    }
    yield "attention_flags_together", flags, {"input_ids": ids(2, 5), **everything}

    choices = {"input_ids": ids(2, 3, 5), **everything}
    yield "choices", {}, choices
    choice_mask = np.array([[[1, 1, 1, 1, 0]] * 3, [[1, 1, 1, 1, 1]] * 3])
    yield (
        "choices_with_mask_types_and_labels",
        {},
        {
            **choices,
            "attention_mask": choice_mask,
            "token_type_ids": ids(2, 3, 5, seed=8),
            "labels": np.where(choice_mask == 1, choices["input_ids"], -100),
        },
    )
    yield "last_logits", {}, {"input_ids": ids(2, 5), "logits_to_keep": 1}
    yield "last_three_logits", {}, {"input_ids": ids(2, 5), "logits_to_keep": 3}


def generate_cases() -> Iterator[tuple[str, Config, Arguments]]:
    """Yield (name, changes to BASE, arguments of generate)."""
    longer = {"n_positions": 40}
    mask = np.array(LEFT)
    padded = np.where(mask == 1, ids(3, 7), 36)
    yield "greedy", longer, {"input_ids": ids(1, 4), "max_length": 24}
    yield "greedy_batch", longer, {"input_ids": ids(4, 6), "max_new_tokens": 16}
    penalized = {"input_ids": ids(2, 6), "max_new_tokens": 20}
    for penalty in (1.3, 0.7):
        arguments = {**penalized, "repetition_penalty": penalty}
        yield f"repetition_penalty_{penalty}", longer, arguments
    yield (
        "greedy_left_padded",
        longer,
        {"input_ids": padded, "attention_mask": mask, "max_new_tokens": 12},
    )
    # Padded with 13, which rows 0 and 2 both write: penalizing the padding would show.
    yield (
        "repetition_penalty_left_padded",
        longer,
        {
            "input_ids": np.where(mask == 1, ids(3, 7), 13),
            "attention_mask": mask,
            "max_new_tokens": 12,
            "repetition_penalty": 1.3,
        },
    )
    yield "greedy_to_the_last_position", {}, {"input_ids": ids(2, 5), "max_length": 24}
    # Row 0 emits 31 as its fifth new token, the other rows at other times or never.
    yield (
        "rows_end_at_different_times",
        longer,
        {
            "input_ids": ids(4, 6),
            "max_new_tokens": 16,
            "eos_token_id": FIFTH_TOKEN,
            "pad_token_id": 0,
        },
    )


END_RESULTS = ("logits", "last_hidden_state", "loss")
FIFTH_TOKEN = "the fifth new token of row 0"  # replaced by it when the case is run


def make_model(
    config: Config, seed: int, dtype: torch.dtype, head: bool = True
) -> transformers.PreTrainedModel:
    """Return transformers' model with the parameters of a configuration and seed."""
    cls = transformers.GPT2LMHeadModel if head else transformers.GPT2Model
    hf_config = transformers.GPT2Config(**config, attn_implementation="eager")
    model = cls(hf_config).to(dtype).eval()
    parameters = random_state_dict(config, seed)
    parameters = parameters if head else base_state_dict(parameters)
    state = {name: torch.tensor(a, dtype=dtype) for name, a in parameters.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model


def to_torch(name: str, value: Any, dtype: torch.dtype) -> Any:
    """Return an argument as transformers takes it, floats in `dtype`."""
    if name == "past_key_values":
        pairs = torch.tensor(value, dtype=dtype)
        return DynamicCache.from_legacy_cache(tuple((k, v) for k, v in pairs))
    if isinstance(value, np.ndarray):
        value = torch.tensor(value)
        return value.to(dtype) if value.is_floating_point() else value
    return value


@torch.no_grad()
def forward(
    model: transformers.PreTrainedModel, arguments: Arguments, dtype: torch.dtype
) -> dict[str, np.ndarray]:
    """Return the outputs by name, with one array for all layers."""
    inputs = {k: to_torch(k, v, dtype) for k, v in arguments.items()}
    out = model(**inputs, use_cache=True)
    cache = out.past_key_values.to_legacy_cache()
    result = {
        "keys": torch.stack([k for k, v in cache]),
        "values": torch.stack([v for k, v in cache]),
    }
    for name in ("logits", "last_hidden_state"):
        if name in out:
            result[name] = out[name]
    for name in ("hidden_states", "attentions"):
        if out.get(name) is not None:
            # transformers flattens (B, choices) in all but the last hidden state.
            tail = 2 if name == "hidden_states" else 3
            layers = [x.reshape(-1, *x.shape[-tail:]) for x in out[name]]
            result[name] = torch.stack(layers)
    if "labels" in inputs:
        V = out.logits.shape[-1]
        shifted = inputs["labels"][..., 1:].reshape(-1)
        result["loss"] = cross_entropy(out.logits[..., :-1, :].reshape(-1, V), shifted)
        torch.testing.assert_close(
            result["loss"].float(), out.loss.float(), rtol=1e-5, atol=0
        )
    return {name: tensor.numpy() for name, tensor in result.items()}


@torch.no_grad()
def generate(model: transformers.PreTrainedModel, arguments: Arguments) -> np.ndarray:
    """Return the greedy sequences; the argument FIFTH_TOKEN becomes that id."""
    inputs = {k: to_torch(k, v, torch.float64) for k, v in arguments.items()}
    if "attention_mask" not in inputs:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if inputs.get("eos_token_id") is FIFTH_TOKEN:
        start = inputs["input_ids"].shape[1]
        free = model.generate(**{**inputs, "eos_token_id": None}, do_sample=False)
        arguments["eos_token_id"] = inputs["eos_token_id"] = int(free[0, start + 4])
    if inputs["attention_mask"].all() or "repetition_penalty" not in inputs:
        return model.generate(**inputs, do_sample=False).numpy()
    # transformers 4 penalizes padding; padding must not matter, so each row goes alone.
    rows = []
    for row, mask in zip(inputs.pop("input_ids"), inputs.pop("attention_mask").bool()):
        row, ones = row[None], mask[mask][None].long()
        alone = model.generate(row[mask[None]][None], attention_mask=ones, **inputs)
        rows.append(torch.cat([row[0, ~mask], alone[0]]))
    width = max(map(len, rows))
    pad = inputs["pad_token_id"]
    return np.array([row.tolist() + [pad] * (width - len(row)) for row in rows])


def main() -> None:
    """Write the two files."""
    if not transformers.__version__.startswith("4.57"):
        sys.exit(f"needs transformers 4.57.x, found {transformers.__version__}")
    torch.set_num_threads(1)
    arrays, cases = {}, []

    def describe(
        name: str, kind: str, config: Config, seed: int, arguments: Arguments
    ) -> None:
        plain = {}
        for argument, value in arguments.items():
            if isinstance(value, np.ndarray):
                arrays[f"{name}/{argument}"] = value
            else:
                plain[argument] = value
        case = {"name": name, "kind": kind, "config": config, "seed": seed}
        cases.append({**case, "arguments": plain})

    for seed, (name, changes, arguments) in enumerate(forward_cases()):
        config = {**BASE, **changes}
        # The bare GPT2Model is covered by one case; GPT2LMHeadModel contains it.
        for head in (True, False) if name == "plain" else (True,):
            label = name if head else "bare_model"
            describe(label, "forward" if head else "base", config, seed, arguments)
            outputs = {}
            if not config.get("reorder_and_upcast_attn"):
                model = make_model(config, seed, torch.float64, head)
                outputs["float64"] = forward(model, arguments, torch.float64)
            model = make_model(config, seed, torch.float32, head)
            single = forward(model, arguments, torch.float32)
            if "float64" in outputs:
                single = {k: v for k, v in single.items() if k in END_RESULTS}
            outputs["float32"] = single
            for dtype, by_name in outputs.items():
                for output, array in by_name.items():
                    arrays[f"{label}/{dtype}/{output}"] = array
    for seed, (name, changes, arguments) in enumerate(generate_cases(), start=100):
        config = {**BASE, **changes}
        arguments = {"pad_token_id": config["eos_token_id"], **arguments}
        sequences = generate(make_model(config, seed, torch.float64), arguments)
        describe(name, "generate", config, seed, arguments)
        arrays[f"{name}/sequences"] = sequences

    made = {
        "made_by": "python tools/make_goldens.py",
        "versions": {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "weights": "random_state_dict(config, seed) in tests/model_cases.py",
        "cases": cases,
    }
    folder = TESTS / "data"
    np.savez_compressed(folder / "model_goldens.npz", **arrays)
    text = json.dumps(made, indent=1) + "\n"
    (folder / "model_goldens.json").write_text(text, encoding="utf-8")
    size = sum((folder / f"model_goldens.{s}").stat().st_size for s in ("npz", "json"))
    print(f"{len(cases)} cases, {len(arrays)} arrays, {size:,} bytes in {folder}")


if __name__ == "__main__":
    main()
