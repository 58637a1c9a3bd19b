"""What `generate` returns with return_dict_in_generate=True, and how it is gathered."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..model.outputs import ModelOutput


@dataclass
class GenerateDecoderOnlyOutput(ModelOutput):
    """R rows: num_return_sequences for each prompt. What was not asked for is None.

    - sequences [R, T + new] (int64): prompts and continuations.
    - scores: for each step the processed scores [R, V] from which its ids were chosen.
    - logits: for each step the model's own scores [R, V].
    - attentions: for each step n_layer arrays [R, H, T or 1, S].
    - hidden_states: for each step n_layer + 1 arrays [R, T or 1, C].
    - past_key_values: the cache of all that was read: the columns of `sequences` but the
      last. None where there are no such columns: prompts with padding behind the text,
      a sliding window, use_cache=False; speculative decoding and contrastive search.

    A row that had ended goes on as padding, and what is here of it has no meaning.
    """

    sequences: Any = None
    scores: Any = None
    logits: Any = None
    attentions: Any = None
    hidden_states: Any = None
    past_key_values: Any = None


@dataclass
class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """As GenerateDecoderOnlyOutput; the arrays of a step have a row for each beam.

    There are no past_key_values: at the end the cache is that of the beams that went on,
    not of the texts that are returned.

    - sequences_scores [R]: sums of the log-probabilities, divided by (number of new
      ids) ** length_penalty; only with output_scores.
    - scores: for each step the processed log-probabilities [B * num_beams, V].
    - beam_indices [R, new] (int64): from which beam (row of a step's arrays) each new id
      came; -1 after the end.
    """

    sequences: Any = None
    sequences_scores: Any = None
    scores: Any = None
    logits: Any = None
    beam_indices: Any = None
    attentions: Any = None
    hidden_states: Any = None


class Record:
    """Collects what the options want to have of each step."""

    def __init__(self, options):
        self.kept = {
            name: [] if getattr(options, f"output_{name}") else None
            for name in ("scores", "logits", "attentions", "hidden_states")
        }
        self.active = options.return_dict_in_generate

    def wanted(self):
        """The arguments that the model's forward needs for it."""
        return {
            f"output_{name}": True
            for name in ("attentions", "hidden_states")
            if self.active and self.kept[name] is not None
        }

    def add(self, scores, logits, output=None, times=1):
        """Note one step; the pass's output has a row for `times` rows of the scores."""
        if not self.active:
            return
        step = {
            "scores": scores,
            "logits": logits,
            "attentions": output and output.attentions,
            "hidden_states": output and output.hidden_states,
        }
        for name, values in self.kept.items():
            if values is not None:
                value = step[name]
                if isinstance(value, tuple) and times > 1:
                    value = tuple(np.repeat(a, times, axis=0) for a in value)
                values.append(value)

    def fields(self):
        """Return {name: a tuple with one entry a step, or None}."""
        return {
            name: None if values is None else tuple(values)
            for name, values in self.kept.items()
        }


def transition_scores(sequences, scores, beam_indices=None, normalize_logits=False):
    """Return the score of each new id [R, new], from what `generate` returned.

    - sequences, scores, beam_indices: of the output; output_scores=True is needed.
    - normalize_logits (bool): log-probabilities rather than scores.

    Ids after a beam's end have 0. With beams, the sum over a row divided by (new ids)
    ** length_penalty is sequences_scores.
    """
    table = np.stack(scores)  # [new, rows of a step, V]
    if normalize_logits:
        table = ops.log_softmax(table)
    if beam_indices is None:
        beam_indices = np.repeat(np.arange(table.shape[1])[:, None], len(table), axis=1)
    used = (beam_indices >= 0).sum(axis=1).max()
    beams = beam_indices[:, :used]
    ids = sequences[:, sequences.shape[1] - used :]
    found = table[np.arange(used), np.maximum(beams, 0), ids]
    return np.where(beams >= 0, found, 0).astype(table.dtype)
