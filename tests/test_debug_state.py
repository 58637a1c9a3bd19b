"""llm.c's debug state of a model, against torch's autograd through transformers."""

import numpy as np
import pytest
from test_llmc_file import state_file

from minigpt2 import GPT2Config, GPT2LMHeadModel
from minigpt2.checkpoints.llmc_file import LlmcSizes
from minigpt2.cli import main
from minigpt2.tracing.llmc_state import State, read_state
from minigpt2.training.debug_state import debug_state

SIZES = {"vocab_size": 50, "n_positions": 12, "n_embd": 8, "n_layer": 2, "n_head": 2}


@pytest.mark.peers
def test_a_debug_state_is_what_torch_computes(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    model = GPT2LMHeadModel(GPT2Config(**SIZES), seed=3)
    model.save_pretrained(tmp_path / "model")
    ids = np.random.default_rng(5).integers(0, 50, (1, 8))
    x, y = ids[:, :-1], ids[:, 1:]

    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "model").eval()
    logits = theirs(torch.tensor(x)).logits
    loss = torch.nn.functional.cross_entropy(logits[0], torch.tensor(y[0]))
    loss.backward()
    gradients = {
        name.removeprefix("transformer."): parameter.grad.numpy()
        for name, parameter in theirs.named_parameters()
    }
    logits, loss = logits.detach().numpy(), loss.detach().numpy()
    sizes = LlmcSizes(12, 50, 2, 2, 8)
    expected = state_file(State(x, y, logits, loss, gradients), sizes)

    out = tmp_path / "state.bin"
    made = ["golden", "make", "--model", str(tmp_path / "model"), "--out", str(out)]
    assert main([*made, "--ids", *map(str, ids[0])]) == 0
    written = out.read_bytes()
    whole = 1024 + 2 * 4 * x.size  # the header and the ids, to the byte
    assert written[:whole] == expected[:whole]
    found, wanted = (np.frombuffer(b[whole:], "<f4") for b in (written, expected))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-6)  # sums in another order
    assert read_state(out, sizes).loss == found[x.size * 50]


def test_what_llmc_has_not_is_refused(tmp_path, capsys):
    model = GPT2LMHeadModel(GPT2Config(**SIZES, tie_word_embeddings=False), seed=3)
    with pytest.raises(ValueError, match="tied embeddings"):
        debug_state(model, [[1, 2, 3]])
    tied = GPT2LMHeadModel(GPT2Config(**SIZES), seed=3)
    with pytest.raises(ValueError, match="two ids at least"):
        debug_state(tied, [[1]])
    command = ["golden", "make", "--out", str(tmp_path / "state.bin")]
    assert main([*command, "--text", "To be", "--text", "To be, or not"]) == 1
    assert "no padding" in capsys.readouterr().err
    assert not (tmp_path / "state.bin").exists()
