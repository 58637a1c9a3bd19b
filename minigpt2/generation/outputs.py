"""What `generate` returns with return_dict_in_generate=True, and how it is gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from ..model.cache import KVCache
from ..model.outputs import ModelOutput
from .config import GenerationConfig

if TYPE_CHECKING:
    from .job import Job

PerStep = tuple[np.ndarray, ...]  # an array for each step
PerStepAndLayer = tuple[
    tuple[np.ndarray, ...], ...
]  # for each step, one for each layer


@dataclass
class GenerateDecoderOnlyOutput(ModelOutput):
    """R rows: num_return_sequences for each prompt. What was not asked for is None.

    A row that had ended goes on as padding, and what is here of it has no meaning.

    - sequences [R, T + new] (int64): prompts and continuations.
    - scores: for each step the processed scores [R, V] from which its ids were chosen.
    - logits: for each step the model's logits [R, V].
    - attentions: for each step n_layer arrays [R, H, T or 1, S].
    - hidden_states: for each step n_layer + 1 arrays [R, T or 1, C].
    - past_key_values: the cache of all that was read: the columns of `sequences` but the
      last. None where there are no such columns: prompts with padding behind the ids,
      a sliding window, use_cache=False, speculative decoding.
    """

    sequences: np.ndarray
    scores: PerStep | None = None
    logits: PerStep | None = None
    attentions: PerStepAndLayer | None = None
    hidden_states: PerStepAndLayer | None = None
    past_key_values: KVCache | None = None


@dataclass
class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """As GenerateDecoderOnlyOutput; the arrays of a step have a row for each beam.

    past_key_values are those of the beams that went on to the end [B * num_beams], not of
    the sequences that are returned; None as in GenerateDecoderOnlyOutput.

    - sequences_scores [R]: sums of the log-probabilities, divided by (number of new
      ids) ** length_penalty; only with output_scores.
    - scores: for each step the processed log-probabilities [B * num_beams, V].
    - beam_indices [R, new] (int64): from which beam (row of a step's arrays) each new id
      came; -1 after the end.
    """

    sequences: np.ndarray
    sequences_scores: np.ndarray | None = None
    scores: PerStep | None = None
    logits: PerStep | None = None
    beam_indices: np.ndarray | None = None
    attentions: PerStepAndLayer | None = None
    hidden_states: PerStepAndLayer | None = None
    past_key_values: KVCache | None = None


GenerateOutput = GenerateDecoderOnlyOutput | GenerateBeamDecoderOnlyOutput


class Record:
    """Collects what the options want to have of each step."""

    def __init__(self, options: GenerationConfig):
        self.kept: dict[str, list | None] = {
            name: [] if getattr(options, f"output_{name}") else None
            for name in ("scores", "logits", "attentions", "hidden_states")
        }
        self.active = options.return_dict_in_generate

    def wanted(self) -> dict[str, bool]:
        """Return the arguments that the model's forward needs for it."""
        return {
            f"output_{name}": True
            for name in ("attentions", "hidden_states")
            if self.active and self.kept[name] is not None
        }

    def add(
        self,
        scores: np.ndarray,
        logits: np.ndarray,
        output: ModelOutput | None = None,
        times: int = 1,
    ) -> None:
        """Note one step.

        Args:
            scores, logits: [R, V].
            output: of the forward pass.
            times: for how many rows of the scores the output has a row.
        """
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

    def fields(self) -> dict[str, Any]:
        """Return {name: a tuple with one entry a step, or None}."""
        return {
            name: None if values is None else tuple(values)
            for name, values in self.kept.items()
        }


def prompts_alone(job: Job) -> GenerateOutput:
    """Return the output of a job that is to add nothing."""
    o, streamer = job.options, job.call.streamer
    if streamer is not None:
        streamer.put(job.prompt.given)
        streamer.end()
    sequences = np.repeat(job.prompt.given, o.num_return_sequences, axis=0)
    fields = Record(o).fields()
    if o.num_beams == 1:
        return GenerateDecoderOnlyOutput(sequences=sequences, **fields)
    scores = np.zeros(len(sequences), job.model.dtype)
    return GenerateBeamDecoderOnlyOutput(
        sequences=sequences,
        sequences_scores=scores if o.output_scores else None,
        beam_indices=np.empty((len(sequences), 0), np.int64),
        **fields,
    )


def transition_scores(
    sequences: np.ndarray,
    scores: Sequence[np.ndarray],
    beam_indices: np.ndarray | None = None,
    normalize_logits: bool = False,
) -> np.ndarray:
    """Return the score of each new id [R, new], from what `generate` returned.

    Ids after a beam's end have 0, and so has padding that is no id. With beams, the sum
    over a row divided by (new ids) ** length_penalty is sequences_scores.

    Args:
        sequences, scores, beam_indices: of the output; output_scores=True is needed.
        normalize_logits: return log-probabilities rather than scores.
    """
    if not len(scores):
        return np.empty((len(sequences), 0))
    table = np.stack(scores)  # [new, rows of a step, V]
    if normalize_logits:
        table = ops.log_softmax(table)
    if beam_indices is None:
        beam_indices = np.repeat(np.arange(table.shape[1])[:, None], len(table), axis=1)
    used = (beam_indices >= 0).sum(axis=1).max()
    beam_indices = beam_indices[:, :used]
    ids = sequences[:, sequences.shape[1] - used :]
    is_id = (beam_indices >= 0) & (ids >= 0) & (ids < table.shape[2])
    places = np.where(is_id, ids, 0)
    found = table[np.arange(used), np.maximum(beam_indices, 0), places]
    return np.where(is_id, found, 0).astype(table.dtype)
