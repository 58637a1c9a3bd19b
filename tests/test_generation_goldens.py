"""generate() against what transformers answered to the same questions.

tools/make_generation_goldens.py made the answers; they say with which versions.
test_generation_peers.py asks many more questions where transformers is installed.
"""

import json
from pathlib import Path

import generation_cases as cases
import numpy as np
import pytest

from minigpt2 import GPT2Config, GPT2LMHeadModel

GOLDENS = json.loads(
    (Path(__file__).parent / "data" / "generation_goldens.json").read_text()
)


@pytest.mark.parametrize("spread", cases.SPREADS)
@pytest.mark.parametrize("name", [*cases.NEW, *cases.OLD])
def test_it_says_what_transformers_said(name, spread):
    config = GPT2Config(**cases.CONFIG, **cases.ENDS)
    model = GPT2LMHeadModel(config, dtype=np.float64, seed=None)
    model.load_state_dict(cases.state_dict(spread))
    version, case = ("5", cases.NEW) if name in cases.NEW else ("4.49", cases.OLD)
    prompts, options = case[name]
    golden = GOLDENS[version]["answers"][f"{name} {spread}"]
    out = model.generate(
        cases.PROMPTS[prompts]["ids"],
        attention_mask=cases.PROMPTS[prompts]["mask"],
        return_dict_in_generate=True,
        output_scores=True,
        **cases.ALWAYS,
        **options,
    )
    expected = np.array(golden["sequences"])
    np.testing.assert_array_equal(
        out.sequences, expected, err_msg=f"made with {GOLDENS[version]['made_with']}"
    )
    if golden["sequences_scores"] is not None:
        # transformers sums log-probabilities in float32
        np.testing.assert_allclose(
            out.sequences_scores, golden["sequences_scores"], rtol=2e-5, atol=2e-5
        )
