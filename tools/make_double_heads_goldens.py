"""Make tests/data/double_heads_goldens.json: GPT2DoubleHeadsModel by transformers.

    python tools/make_double_heads_goldens.py

needs torch and transformers 4.57.6. Each case is a configuration, the arguments of one
forward pass, and what float64 gives: both losses, all logits of the choices, and every
seventh logit of the next id. Losses are torch's cross_entropy of the float64 logits.
(transformers' own are float32; they are compared with these.) The parameters are
`double_heads_state_dict(config, seed)` of tests/model_cases.py.

The summaries "last", "first" and "mean" have rows without an axis of choices:
transformers would take them along that axis.
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

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from model_cases import double_heads_state_dict, random_ids  # noqa: E402

BASE = {"vocab_size": 37, "n_positions": 12, "n_embd": 24, "n_layer": 2, "n_head": 3}
LM_LOGITS_STEP = 7
MASK = [[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], [[1, 1, 1, 1, 1]] * 3]
ENDS = [[3, 4, 3], [4, 0, 2]]


def cases() -> Iterator[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
    """Yield (name, changes to BASE, arguments of forward)."""
    ids = random_ids((2, 3, 5), 37, 1)
    choices = {"input_ids": ids, "mc_labels": np.array([2, 0])}
    labels = np.where(np.array(MASK) == 1, ids, -100)
    whole = {
        **choices,
        "attention_mask": np.array(MASK),
        "token_type_ids": random_ids((2, 3, 5), 37, 2),
        "mc_token_ids": np.array(ENDS),
        "labels": labels,
    }
    yield "everything", {}, whole
    yield "by_default_the_last_position", {}, choices
    yield "an_ignored_choice", {}, {**choices, "mc_labels": np.array([-100, 1])}
    rows = {"input_ids": random_ids((4, 6), 37, 3), "mc_labels": np.array(2)}
    yield "rows_without_choices", {}, {**rows, "mc_token_ids": np.array([0, 5, 2, 3])}
    for kind in ("last", "first", "mean"):
        yield kind, {"summary_type": kind}, rows
    for name in ("tanh", "relu", "gelu_new"):
        yield f"activation_{name}", {"summary_activation": name}, whole
    wide = {**whole, "mc_labels": np.array([[0, 1, 23], [4, 4, 6]])}
    yield "no_projection", {"summary_use_proj": False}, wide
    yield "projection_to_n_embd", {"summary_proj_to_labels": False}, wide
    yield "untied", {"tie_word_embeddings": False}, whole


@torch.no_grad()
def outputs_of(
    config: dict[str, Any], seed: int, arguments: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Return the losses and logits of a case."""
    hf_config = transformers.GPT2Config(**config, attn_implementation="eager")
    model = transformers.GPT2DoubleHeadsModel(hf_config).double().eval()
    parameters = double_heads_state_dict(config, seed)
    state = {name: torch.tensor(array) for name, array in parameters.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    inputs = {name: torch.tensor(array) for name, array in arguments.items()}
    out = model(**inputs)
    choices = out.mc_logits.reshape(-1, out.mc_logits.shape[-1])
    result = {
        "mc_logits": out.mc_logits.tolist(),
        "mc_loss": float(cross_entropy(choices, inputs["mc_labels"].reshape(-1))),
        "lm_logits": out.logits.flatten()[::LM_LOGITS_STEP].tolist(),
    }
    np.testing.assert_allclose(float(out.mc_loss), result["mc_loss"], rtol=1e-6)
    if "labels" in inputs:
        rows = out.logits[..., :-1, :].reshape(-1, out.logits.shape[-1])
        targets = inputs["labels"][..., 1:].reshape(-1)
        result["lm_loss"] = float(cross_entropy(rows, targets))
        np.testing.assert_allclose(float(out.loss), result["lm_loss"], rtol=1e-6)
    return result


def main() -> None:
    """Write the file."""
    if not transformers.__version__.startswith("4.57"):
        sys.exit(f"needs transformers 4.57.x, found {transformers.__version__}")
    made = []
    for seed, (name, changes, arguments) in enumerate(cases()):
        config = {**BASE, **changes}
        plain = {argument: array.tolist() for argument, array in arguments.items()}
        outputs = outputs_of(config, seed, arguments)
        made.append(
            {
                "name": name,
                "config": config,
                "seed": seed,
                "arguments": plain,
                "outputs": outputs,
            }
        )
    golden = {
        "made_by": "python tools/make_double_heads_goldens.py",
        "versions": {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
        "lm_logits_step": LM_LOGITS_STEP,
        "cases": made,
    }
    path = TESTS / "data" / "double_heads_goldens.json"
    path.write_text(json.dumps(golden) + "\n", encoding="utf-8")
    print(f"{len(made)} cases, {path.stat().st_size:,} bytes in {path}")


if __name__ == "__main__":
    main()
