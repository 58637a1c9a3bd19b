"""Have transformers answer the cases of tests/generation_cases.py.

    python tools/make_generation_goldens.py

Run once with transformers 5.23.0 and once with 4.49.0, the last that has group beams
and contrastive search; each run writes its own half of
tests/data/generation_goldens.json. Both need torch.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import generation_cases as cases  # noqa: E402

GOLDENS = ROOT / "tests" / "data" / "generation_goldens.json"


def model_of(spread: float, old: bool) -> transformers.GPT2LMHeadModel:
    """Return transformers' model with the parameters of the cases."""
    config = transformers.GPT2Config(
        **cases.CONFIG, **cases.ENDS, attn_implementation="eager"
    )
    model = transformers.GPT2LMHeadModel(config)
    state = cases.state_dict(spread)
    state = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    model.load_state_dict(state, strict=False)  # without the tied head
    # 4.49's group beams take float32 only; both score in float32
    return (model if old else model.double()).eval()


def answer(
    model: transformers.GPT2LMHeadModel, prompts: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return what the model makes of the prompts of that name."""
    out = model.generate(
        torch.tensor(cases.PROMPTS[prompts]["ids"]),
        attention_mask=torch.tensor(cases.PROMPTS[prompts]["mask"]),
        return_dict_in_generate=True,
        output_scores=True,
        **{"top_k": 0, **cases.ALWAYS, **options},
    )
    scores = out.get("sequences_scores")
    return {
        "sequences": out.sequences.tolist(),
        "sequences_scores": None if scores is None else scores.tolist(),
    }


def main() -> None:
    """Write the half of the goldens that the installed version answers."""
    old = transformers.__version__.startswith("4.")
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    chosen = cases.OLD if old else cases.NEW
    goldens["4.49" if old else "5"] = {
        "made_with": f"transformers {transformers.__version__}, "
        f"torch {torch.__version__}",
        "answers": {
            f"{name} {spread}": answer(model_of(spread, old), *case)
            for spread in cases.SPREADS
            for name, case in chosen.items()
        },
    }
    GOLDENS.write_text(
        json.dumps(goldens, separators=(",", ":"), sort_keys=True) + "\n"
    )


main()
