"""Make tests/data/score/expected.json: perplexities that transformers computes.

    python tools/make_score_goldens.py

needs torch and transformers. The text beside the file is the first of Shakespeare's
Sonnets and a line that is not ASCII. The small trained model reads it in float64, by the
recipe in transformers' documentation, "Perplexity of fixed-length models". For each
window and stride the file has

- `losses`: the mean loss of the ids that count in each window, from torch's cross
  entropy on the logits (transformers' own loss is float32);
- `scored`: how many ids these are;
- `recipe`: the perplexity by the recipe's sums. They take each window's loss times
  (ids that count - 1), also where the window's first id is not one of them;
- `log_probs`: the log-probabilities of the ids from the second on, for window 64 and
  stride 16.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy

TESTS = Path(__file__).resolve().parent.parent / "tests"
MODEL = TESTS.parent / "minigpt2" / "data" / "shakespeare-1m"
FOLDER = TESTS / "data" / "score"
WINDOWS = ((256, 256), (256, 128), (64, 16), (100, 37), (64, 63))


def strided(
    model: transformers.GPT2LMHeadModel, ids: list[int], window: int, stride: int
) -> tuple[dict[str, Any], list[float]]:
    """Return the case that the recipe makes, and the log-probabilities of its ids."""
    counts, losses, log_probs = [], [], []
    nll_sum, n_tokens, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        labels = inputs.clone()
        labels[:, : -(end - previous_end)] = -100
        with torch.no_grad():
            logits = model(inputs).logits[0, :-1]
        labels = labels[0, 1:]
        each = cross_entropy(logits, labels, ignore_index=-100, reduction="none")
        each = each[labels != -100].tolist()
        valid = end - previous_end
        loss = sum(each) / len(each)
        nll_sum += loss * (valid - 1)
        n_tokens += valid - 1
        counts.append(len(each))
        losses.append(loss)
        log_probs += [-one for one in each]
        previous_end = end
        if end == len(ids):
            break
    return {
        "window": window,
        "stride": stride,
        "scored": counts,
        "losses": losses,
        "recipe": math.exp(nll_sum / n_tokens),
    }, log_probs


def main() -> None:
    """Write the file."""
    text = (FOLDER / "sonnets.txt").read_bytes().decode("utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    ids = tokenizer(text)["input_ids"]
    model = transformers.GPT2LMHeadModel.from_pretrained(
        MODEL, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    cases = []
    for window, stride in WINDOWS:
        case, log_probs = strided(model, ids, window, stride)
        cases.append(case)
        if window == 64 and stride == 16:
            case["log_probs"] = log_probs
    facts = {
        "source": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "ids": ids,
        "cases": cases,
    }
    path = FOLDER / "expected.json"
    path.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    print(f"{path}: {len(ids)} ids")


if __name__ == "__main__":
    main()
