"""`minigpt2 generate`: continue texts."""

import json
import secrets
import sys
import time

from ..hub import EMBEDDED_MODEL
from ..runtime.progress import Progress
from . import add_model, add_weights, text_of

BATCH = 8  # prompts of a file that are continued side by side
DEFAULT_NEW = 100  # ids to add where nothing else is said and the context has room


def add_to(commands):
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue PROMPT; the text is printed as it comes. Samples with "
        "temperature 0.8 and top-k 40 unless told otherwise.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "prompt", metavar="PROMPT", nargs="?", help="'-': standard input"
    )
    add_model(parser, EMBEDDED_MODEL)
    add_weights(parser, "keep the weights in less memory (default: as they are)")
    add_options(parser)
    source.add_argument(
        "--prompts",
        metavar="FILE",
        help="continue each line of FILE ('-': standard input), or with JSON lines each "
        'string or {"prompt": ...}; prompt i has the seed S + i',
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="after each continuation read a line of text to go on with: an empty one "
        r"goes on at once, \n in it is a line break, end of input ends",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a result: ids, text, log-probabilities, timing",
    )
    parser.set_defaults(run=run)


def add_options(parser):
    """Add the options of generation, named as generation.config names them."""
    choice = parser.add_argument_group("how the next id is chosen")
    choice.add_argument(
        "--greedy", action="store_true", help="take the likeliest id at each step"
    )
    choice.add_argument("--temperature", type=float, default=0.8, metavar="T")
    choice.add_argument(
        "--top-k", type=int, default=40, metavar="K", help="0: off (default: 40)"
    )
    choice.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="1: off (the default)"
    )
    choice.add_argument("--min-p", type=float, metavar="P")
    choice.add_argument("--typical-p", type=float, metavar="P")
    choice.add_argument("--repetition-penalty", type=float, metavar="R")
    choice.add_argument("--no-repeat-ngram-size", type=int, metavar="N")
    choice.add_argument(
        "--num-beams", type=int, metavar="N", help="beam search (says --greedy)"
    )
    choice.add_argument("--length-penalty", type=float, metavar="L")
    choice.add_argument(
        "--seed", type=int, metavar="S", help="(default: drawn, and told on stderr)"
    )
    length = parser.add_argument_group("how much")
    length.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="ids to add (default: 100, or what the context leaves)",
    )
    length.add_argument("--min-new-tokens", type=int, metavar="N")
    length.add_argument("--num-return-sequences", type=int, metavar="N")
    length.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help="end after TEXT; may be repeated",
    )
    length.add_argument("--max-time", type=float, metavar="SECONDS")
    length.add_argument(
        "--sliding-window",
        type=int,
        metavar="W",
        help="when the context is full, go on from the last W ids",
    )
    length.add_argument(
        "--prompt-lookup-num-tokens",
        type=int,
        metavar="N",
        help="draft N ids at a time from the text itself: the same result, faster "
        "where the text repeats itself",
    )


# Options that are handed on as they are, if they are given.
PASSED_ON = (
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "length_penalty",
    "min_new_tokens",
    "num_return_sequences",
    "max_time",
    "sliding_window",
    "prompt_lookup_num_tokens",
)


def run(arguments):
    """Continue one text as it comes, several results, a file of prompts, or turns."""
    from ..model.gpt2 import GPT2LMHeadModel
    from ..tokenizer import GPT2Tokenizer

    if arguments.interactive and (arguments.json or arguments.prompts):
        raise ValueError("--interactive goes with neither --json nor --prompts")
    prompts = prompts_of(arguments)
    speaker = Speaker(
        GPT2LMHeadModel.from_pretrained(arguments.model, weights=arguments.weights),
        GPT2Tokenizer.from_pretrained(arguments.model),
        arguments,
    )
    if arguments.interactive:
        speaker.take_turns(prompts[0])
    elif arguments.json or arguments.prompts or speaker.several():
        speaker.continue_all(prompts)
    else:
        speaker.write(speaker.ids_of(prompts[0]))
    return 0


def prompts_of(arguments):
    """Return the texts to continue."""
    if arguments.prompts is None:
        return [text_of(arguments.prompt)]
    if arguments.prompts == "-":
        text = text_of("-")
    else:
        with open(arguments.prompts, encoding="utf-8") as file:
            text = file.read()
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{arguments.prompts} has no prompts")
    if lines[0].lstrip()[0] in '{"':
        return [prompt_of(line, number) for number, line in enumerate(lines, start=1)]
    return lines


def prompt_of(line, number):
    """Return the prompt of a JSON line: a string, or an object's "prompt"."""
    try:
        value = json.loads(line)
        return value if isinstance(value, str) else value["prompt"] + ""
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'line {number} is neither a JSON string nor {{"prompt": "..."}}: '
            f"{line[:60]}"
        ) from None


class Speaker:
    """A model, its tokenizer and the options, and the ways to have it speak."""

    def __init__(self, model, tokenizer, arguments):
        self.model, self.tokenizer = model, tokenizer
        self.new, self.seed = arguments.max_new_tokens, arguments.seed
        self.json = arguments.json
        given = {name: getattr(arguments, name) for name in PASSED_ON}
        self.options = {name: v for name, v in given.items() if v is not None}
        if arguments.stop:
            self.options |= {"stop_strings": arguments.stop, "tokenizer": tokenizer}
        if arguments.greedy or arguments.num_beams:
            return
        if self.seed is None:
            self.seed = secrets.randbits(32)
            print(f"seed {self.seed}", file=sys.stderr)
        self.options |= {
            "do_sample": True,
            "temperature": arguments.temperature,
            "top_k": arguments.top_k,
            "top_p": arguments.top_p,
        }

    def several(self):
        """Say whether there is more to print at the end than one text as it comes."""
        return {"num_return_sequences", "num_beams"} & set(self.options)

    def ids_of(self, text):
        """Return the ids of a text; of the empty one, the id that begins texts."""
        return self.tokenizer.encode(text) or [self.model.config.bos_token_id]

    def room(self, length):
        """Return how many ids to add to a prompt of so many ids."""
        limit = self.model.config.n_positions
        if self.new is not None or "sliding_window" in self.options:
            return self.new or DEFAULT_NEW
        if length >= limit:
            raise ValueError(
                f"the prompt has {length} ids and this model takes {limit}, what it "
                "adds included: shorten the prompt, or give --sliding-window"
            )
        return min(DEFAULT_NEW, limit - length)

    def write(self, ids):
        """Write a text and its continuation as it comes."""
        from ..generation.streamers import TextStreamer

        self.model.generate(
            [ids],
            max_new_tokens=self.room(len(ids)),
            seed=self.seed,
            streamer=TextStreamer(self.tokenizer),
            **self.options,
        )

    def continue_all(self, prompts):
        """Print every result of every prompt, a batch of prompts at a time."""
        starts = range(0, len(prompts), BATCH)
        with Progress("batches of prompts", len(starts)) as progress:
            for first in starts:
                progress.step()
                for number, result in self.results(
                    first, prompts[first : first + BATCH]
                ):
                    progress.clear()
                    if self.json:
                        print(json.dumps(result, ensure_ascii=False), flush=True)
                    else:
                        print("---\n" * (number > 0) + result["text"], flush=True)

    def results(self, first, prompts):
        """Yield (number, result) of a batch of prompts, numbered from `first`."""
        import numpy as np

        rows = [self.ids_of(prompt) for prompt in prompts]
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros(ids.shape, np.int64)
        for row, text in enumerate(rows):
            ids[row, width - len(text) :] = text
            mask[row, width - len(text) :] = 1
        seeds = None
        if self.seed is not None:
            seeds = [self.seed + first + row for row in range(len(rows))]
        start = time.perf_counter()
        out = self.model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=self.room(width),
            seed=seeds,
            **self.options,
        )
        seconds = time.perf_counter() - start
        each = self.options.get("num_return_sequences", 1)
        for number, row in enumerate(out[:, width:]):
            new = self.until_end(row.tolist())
            text = rows[number // each]
            result = {
                "prompt": prompts[number // each],
                "text": self.tokenizer.decode(text + new, skip_special_tokens=True),
                "new_text": self.tokenizer.decode(new, skip_special_tokens=True),
                "prompt_ids": text,
                "ids": new,
                "seed": None if seeds is None else seeds[number // each],
                "seconds": round(seconds, 6),
                "batch": len(out),
            }
            if self.json:
                result["logprobs"] = self.log_probabilities(text, new)
            yield first * each + number, result

    def until_end(self, ids):
        """Cut what follows the first end id, which is padding."""
        end = self.model.config.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids

    def log_probabilities(self, prompt, new):
        """Return the model's log-probability of each new id, by one pass over all."""
        import numpy as np

        from .. import ops

        whole = (prompt + new)[-self.model.config.n_positions - 1 :]
        new = new[-(len(whole) - 1) :]
        logits = self.model([whole[:-1]], logits_to_keep=len(new)).logits[0]
        logs = ops.log_softmax(logits)[np.arange(len(new)), new]
        return [round(float(value), 6) for value in logs]

    def take_turns(self, text):
        """Write a text's continuation, read a line, go on; what was read is kept."""
        from ..generation.prefix_cache import PrefixCache
        from ..generation.streamers import TextStreamer

        limit, cache = self.model.config.n_positions, PrefixCache(capacity=1)
        self.options.pop("sliding_window", None)  # the turns do it themselves
        ids = self.ids_of(text)
        turn = 0
        while True:
            if len(ids) + (self.new or 1) > limit:
                kept = max(limit // 2, 1)
                print(
                    f"(the context is full: its last {kept} ids stay)", file=sys.stderr
                )
                ids = ids[-kept:]
            out = self.model.generate(
                [ids],
                max_new_tokens=self.room(len(ids)),
                seed=None if self.seed is None else self.seed + turn,
                streamer=TextStreamer(self.tokenizer, skip_prompt=turn > 0),
                prefix_cache=cache,
                **self.options,
            )
            ids, turn = out[0].tolist(), turn + 1
            if sys.stdin.isatty():
                print("> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                return
            ids += self.tokenizer.encode(line.rstrip("\n").replace("\\n", "\n"))
