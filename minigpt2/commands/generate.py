"""`minigpt2 generate`: continue texts."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..generation.config import GenerationConfig
from ..generation.options import kinds_of, option_of
from ..hub import EMBEDDED_MODEL
from ..runtime.progress import Progress
from . import add_model, add_weights, text_of

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel
    from ..tokenizer import GPT2Tokenizer

BATCH = 8  # prompts of a file that are continued side by side
DEFAULT_NEW = 100  # ids to add where nothing else is said and n_positions allows it

# Options of sampling that have another default here than in GenerationConfig, or whose
# default is worth saying.
DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 1.0}
# The help of options that are not quite what GenerationConfig says.
HELP = {
    "max_new_tokens": f"how many ids to add (default: {DEFAULT_NEW}, or what "
    "n_positions leaves)",
    "min_new_tokens": "no end id before so many new ids",
    "seed": "where random numbers come from (default: drawn, and told on stderr)",
    "num_beams": "the beams of beam search; implies --greedy",
}


def add_to(commands: Any) -> None:
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
    add_weights(parser, "keep the parameters in less memory (default: as they are)")
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
    parser.add_argument(
        "--greedy", action="store_true", help="take the likeliest id at each step"
    )
    parser.add_argument(
        "--stop",
        action="append",
        dest="stop_strings",
        metavar="TEXT",
        help="end after TEXT; may be repeated",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of generation as GenerationConfig declares them."""
    group: Any = parser
    for field in fields(GenerationConfig):
        option = option_of(field)
        if option.heading:
            group = parser.add_argument_group(option.heading)
        if option.metavar:
            default = DEFAULTS.get(field.name)
            help = HELP.get(field.name, option.help)
            group.add_argument(
                "--" + field.name.replace("_", "-"),
                type=int if int in kinds_of(field) else float,
                metavar=option.metavar,
                default=default,
                help=help if default is None else f"{help} (default: {default})",
            )


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return {name: value} of the options of generation that are given or have defaults."""
    names = [field.name for field in fields(GenerationConfig)]
    found = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def run(arguments: argparse.Namespace) -> int:
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
    elif arguments.json or arguments.prompts or speaker.has_several_results():
        speaker.continue_all(prompts)
    else:
        speaker.write(speaker.ids_of(prompts[0]))
    return 0


def prompts_of(arguments: argparse.Namespace) -> list[str]:
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


def prompt_of(line: str, number: int) -> str:
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

    def __init__(
        self,
        model: GPT2LMHeadModel,
        tokenizer: GPT2Tokenizer,
        arguments: argparse.Namespace,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.json = arguments.json
        self.options = given_options(arguments)
        self.new = self.options.pop("max_new_tokens", None)
        self.seed = self.options.pop("seed", None)
        sampling = {name: self.options.pop(name) for name in DEFAULTS}
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if "stop_strings" in self.options:
            self.options["tokenizer"] = tokenizer
        if arguments.greedy or "num_beams" in self.options:
            return
        if self.seed is None:
            self.seed = secrets.randbits(32)
            print(f"seed {self.seed}", file=sys.stderr)
        self.options |= {"do_sample": True, **sampling}

    def has_several_results(self) -> bool:
        """Say whether there is more to print at the end than one text as it comes."""
        return not {"num_return_sequences", "num_beams"}.isdisjoint(self.options)

    def ids_of(self, text: str) -> list[int]:
        """Return the ids of a text; of the empty one, the id that begins texts."""
        return self.tokenizer.encode(text) or [self.model.config.bos_token_id]

    def max_new(self, length: int) -> int:
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

    def write(self, ids: list[int]) -> None:
        """Write a text and its continuation as it comes."""
        from ..generation.streamers import TextStreamer

        self.model.generate(
            [ids],
            max_new_tokens=self.max_new(len(ids)),
            seed=self.seed,
            streamer=TextStreamer(self.tokenizer, skip_special_tokens=True),
            **self.options,
        )

    def continue_all(self, prompts: list[str]) -> None:
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

    def results(
        self, first: int, prompts: list[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number, result) of a batch of prompts, numbered from `first`."""
        rows = [self.ids_of(prompt) for prompt in prompts]
        batch = self.tokenizer.pad(
            {"input_ids": rows}, padding_side="left", return_tensors="np"
        )
        mask = batch["attention_mask"]
        ids = batch["input_ids"] * mask  # the model need not have the padding's id
        width = ids.shape[1]
        seeds = None
        if self.seed is not None:
            seeds = [self.seed + first + row for row in range(len(rows))]
        start = time.perf_counter()
        out: Any = self.model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=self.max_new(width),
            seed=seeds,
            **self.options,
        )
        seconds = time.perf_counter() - start
        each = self.options.get("num_return_sequences", 1)
        for number, row in enumerate(out[:, width:]):
            new = self.until_end(row.tolist())
            prompt_ids = rows[number // each]
            whole = prompt_ids + new
            result: dict[str, Any] = {
                "prompt": prompts[number // each],
                "text": self.tokenizer.decode(whole, skip_special_tokens=True),
                "new_text": self.tokenizer.decode(new, skip_special_tokens=True),
                "prompt_ids": prompt_ids,
                "ids": new,
                "seed": None if seeds is None else seeds[number // each],
                "seconds": round(seconds, 6),
                "batch": len(out),
            }
            if self.json:
                result["logprobs"] = self.log_probs(whole, len(prompt_ids))
            yield first * each + number, result

    def until_end(self, ids: list[int]) -> list[int]:
        """Cut what follows the first end id, which is padding."""
        end = self.model.config.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids

    def log_probs(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each id from position `start` on."""
        from ..tasks.score import token_log_probs

        windows = token_log_probs(self.model, ids, start=start)
        return [round(float(p), 6) for _, _, log_probs in windows for p in log_probs]

    def take_turns(self, text: str) -> None:
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
            out: Any = self.model.generate(
                [ids],
                max_new_tokens=self.max_new(len(ids)),
                seed=None if self.seed is None else self.seed + turn,
                streamer=TextStreamer(
                    self.tokenizer, skip_prompt=turn > 0, skip_special_tokens=True
                ),
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
