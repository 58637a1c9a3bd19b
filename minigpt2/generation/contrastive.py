"""Contrastive search: likely, but unlike what was said before.

Of the top_k likeliest next ids, the one is taken that maximises

    (1 - penalty_alpha) p(id) - penalty_alpha max_j cos(h(id), h_j)

where h(id) is the last hidden state after that id, so all k are read to get it, and h_j
are those of the text before. Source: Su et al. 2022.
"""

import numpy as np

from .. import ops
from .beams import best_of
from .chain import Chain
from .loop import Texts, check_choice, context_of
from .outputs import GenerateDecoderOnlyOutput, Record


def generate(job):
    """Run a job to its end; return GenerateDecoderOnlyOutput."""
    o, prompt = job.options, job.prompt
    k = min(o.top_k, job.model.config.vocab_size)
    record = Record(o)
    wanted = {**record.wanted(), "output_hidden_states": True}
    chain = Chain(o, prompt.given.shape[1], job.logits_processor)
    texts = Texts(prompt.text, o.max_new_tokens)
    context = context_of(job, prompt, o.max_new_tokens)
    logits, output = context.read(prompt.ids, 1, **wanted)
    logits = logits[:, -1]  # [B, V]
    before = unit(output.hidden_states[-1])  # [B, T, C]
    before[~prompt.visible[:, -before.shape[1] :]] = np.nan  # padding is like nothing
    context.repeat(k)
    rows, ended, columns = np.arange(len(prompt)), np.zeros(len(prompt), bool), []
    for step in range(o.max_new_tokens):
        scores = chain(texts.so_far, step, logits)
        check_choice(scores.max(axis=-1), logits)
        record.add(scores, logits, output)
        p = ops.softmax(scores)
        ids = np.stack([best_of(row, k) for row in p])  # [B, k]
        logits, output = context.read(ids.reshape(-1, 1), 1, **wanted)
        after = unit(output.hidden_states[-1][:, -1]).reshape(
            *ids.shape, -1
        )  # [B, k, C]
        likeness = np.nanmax(after @ before.swapaxes(1, 2), axis=-1)  # [B, k]
        value = (1.0 - o.penalty_alpha) * np.take_along_axis(p, ids, axis=1)
        chosen = (value - o.penalty_alpha * likeness).argmax(axis=1)  # [B]
        next_ids = np.where(ended, o.pad_token_id, ids[rows, chosen])
        columns.append(next_ids)
        texts.add(next_ids)
        ended |= job.stopping(texts.so_far, scores)
        if job.streamer is not None:
            job.streamer.put(next_ids)
        if ended.all():
            break
        winners = rows * k + chosen
        before = np.concatenate([before, after[rows, chosen][:, None]], axis=1)
        logits, output = logits[winners, -1], selected(output, winners)
        # the k rows of a prompt differ in nothing but their last column
        context.rearrange(np.repeat(winners, k), since=context.length - 1)
    return GenerateDecoderOnlyOutput(
        sequences=np.concatenate([prompt.given, np.stack(columns, axis=1)], axis=1),
        **record.fields(),
    )


def weighed(likelihood, after, before, alpha):
    """Return which of k candidates [B] is the best, by the formula above.

    likelihood [B, k]; after [B, k, C] and before [B, T, C]: unit vectors, or NaN.
    """
    likeness = np.nanmax(after @ before.swapaxes(1, 2), axis=-1)  # [B, k]
    return ((1.0 - alpha) * likelihood - alpha * likeness).argmax(axis=1)


def unit(vectors):
    """Divide each vector by its length, so that products are cosines."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def selected(output, rows):
    """Return the rows of a pass's attentions and hidden states that were chosen."""
    for name in ("attentions", "hidden_states"):
        arrays = getattr(output, name)
        if arrays is not None:
            setattr(output, name, tuple(array[rows] for array in arrays))
    return output
