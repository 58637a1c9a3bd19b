"""`minigpt2 generate`: continue texts."""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from ..generation.config import GenerationConfig
from ..generation.options import kinds_of, option_of
from ..hub import EMBEDDED_MODEL
from ..runtime.progress import Progress
from . import WEIGHT_FORMATS, add_computing, add_model, add_weights, text_of
from .prompts import KEYS, Prompt, read_prompts

if TYPE_CHECKING:
    import numpy as np

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
BANNER = r"(\n is a line break, an empty line lets the model go on, Ctrl-D ends)"


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue PROMPT; the text is printed as it comes. Samples with "
        "temperature 0.8 and top-k 40 unless told otherwise.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="?",
        help="in quotes if it has spaces; '-': standard input",
    )
    add_model(parser, EMBEDDED_MODEL)
    add_weights(parser, "keep the parameters in less memory (default: as they are)")
    add_computing(parser)
    source.add_argument(
        "--prompts",
        metavar="FILE",
        help="continue each line of FILE ('-': standard input), or with JSON Lines each "
        f"string or object with a prompt ({', '.join(KEYS)}); the prompt in line i, from "
        "0 and blank ones counted, has the seed S + i",
    )
    parser.add_argument(
        "--format",
        choices=("text", "jsonl"),
        help='what FILE is (default: jsonl if its first line begins with { or ")',
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="after each continuation read a line of text to go on with; without PROMPT "
        r"read that first. An empty line goes on at once, \n in it is a line break and "
        r"\\ a backslash, end of input ends",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a result: ids, text, log-probabilities, timing",
    )
    parser.add_argument(
        "--new-text",
        action="store_true",
        help="print what is new, without the prompt",
    )
    parser.add_argument(
        "--greedy", action="store_true", help="take the likeliest id at each step"
    )
    parser.add_argument(
        "--stop",
        action="append",
        dest="stop_strings",
        metavar="TEXT",
        help=r"end after TEXT, in which \n is a line break and \\ a backslash; may be "
        "repeated",
    )
    parser.add_argument(
        "--assistant-model",
        metavar="NAME_OR_FOLDER",
        help="a smaller model of the same vocabulary that drafts, or bfloat16, int8 or "
        "int4 for the model itself in fewer bits: with --greedy the same text, sooner; "
        "without, text from the same distribution",
    )
    add_options(parser)
    parser.set_defaults(run=run, text_argument="PROMPT")


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
                help=help if default is None else f"{help} (default: {default})",
            )


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return {name: value} of the options of generation that are given."""
    names = [field.name for field in fields(GenerationConfig)]
    found = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def run(arguments: argparse.Namespace) -> int:
    """Continue one text as it comes, several results, a file of prompts, or turns."""
    a = arguments
    if a.interactive and (a.json or a.prompts or a.new_text):
        raise ValueError(
            "--interactive goes with none of --json, --prompts, --new-text"
        )
    if a.format and not a.prompts:
        raise ValueError("--format says what the FILE of --prompts is")
    if a.prompt is None and a.prompts is None and not a.interactive:
        a.usage_error("one of the arguments PROMPT --prompts is required")
    if a.interactive and a.prompt == "-":
        raise ValueError("--interactive reads standard input, so PROMPT can't be '-'")
    if a.temperature == 0 and not a.greedy:
        raise ValueError(
            "--temperature must be above 0; --greedy takes the likeliest id at each step"
        )
    if a.prompts:
        prompts = read_prompts(a.prompts, a.format)
    else:
        prompts = [Prompt(text_of(a.prompt or ""))]
    speaker = Speaker(arguments)
    if a.interactive:
        speaker.take_turns(a.prompt)
    elif a.json or a.prompts or speaker.has_several_results():
        speaker.continue_all(prompts)
    else:
        speaker.write(prompts[0])
    return 0


def unescaped(text: str) -> str:
    r"""Return a typed text with a line break for \n and a backslash for \\."""
    return "\\".join(part.replace("\\n", "\n") for part in text.split("\\\\"))


class Speaker:
    """A model, its tokenizer and the options, and the ways to have it speak."""

    def __init__(self, arguments: argparse.Namespace):
        from ..model.gpt2 import GPT2LMHeadModel
        from ..tokenizer import GPT2Tokenizer

        a = arguments
        self.model = GPT2LMHeadModel.from_pretrained(
            a.model, weights=a.weights, backend=a.backend
        )
        self.tokenizer = GPT2Tokenizer.from_pretrained(a.model)
        # What comes piece by piece can't be cleaned up, so nothing is.
        self.tokenizer.clean_up_tokenization_spaces = False
        self.json, self.new_text = a.json, a.new_text
        self.options = given_options(arguments)
        self.new = self.options.pop("max_new_tokens", None)
        self.seed = self.options.pop("seed", None)
        self.seed_is_told = self.seed is not None
        if a.assistant_model in WEIGHT_FORMATS:
            self.options["assistant_model"] = a.assistant_model
        elif a.assistant_model:
            self.options["assistant_model"] = GPT2LMHeadModel.from_pretrained(
                a.assistant_model, backend=a.backend
            )
        if "stop_strings" in self.options:
            strings = [unescaped(text) for text in self.options["stop_strings"]]
            self.options |= {"stop_strings": strings, "tokenizer": self.tokenizer}
        if a.greedy or "num_beams" in self.options:
            unused = [name for name in DEFAULTS if self.options.pop(name, None)]
            if unused:
                names = ", ".join("--" + name.replace("_", "-") for name in unused)
                print(f"({names}: of no use without sampling)", file=sys.stderr)
            self.seed_is_told = True
            self.options["do_sample"] = False  # whatever the folder's file says
            return
        if self.seed is None:
            self.seed = secrets.randbits(32)
        self.options = {"do_sample": True, **DEFAULTS, **self.options}

    def has_several_results(self) -> bool:
        """Say whether there is more to print at the end than one text as it comes."""
        return not {"num_return_sequences", "num_beams"}.isdisjoint(self.options)

    def ids_of(self, text: str) -> list[int]:
        """Return the ids of a text; of the empty one, the id that begins texts."""
        ids = self.tokenizer.encode(text, verbose=False) if text else []
        return ids or [self.model.config.bos_token_id]

    def max_new(self, prompt: Prompt, length: int) -> int:
        """Return how many ids to add to a prompt of so many ids.

        Raises:
            ValueError: the model does not take so many.
        """
        limit = self.model.config.n_positions
        new = self.new if prompt.max_new_tokens is None else prompt.max_new_tokens
        if "sliding_window" in self.options:
            return DEFAULT_NEW if new is None else new
        if length > limit or (new is None and length == limit):
            raise ValueError(
                f"{prompt} has {length} ids and this model takes {limit}, what it adds "
                "included: shorten the prompt, or give --sliding-window"
            )
        if new is None:
            return min(DEFAULT_NEW, limit - length)
        if length + new > limit + 1:  # the last new id is not read
            raise ValueError(
                f"{prompt} has {length} ids, and with {new} new ones these are more than "
                f"this model's n_positions={limit}: shorten the prompt, ask for fewer, or "
                "give --sliding-window"
            )
        return new

    def tell_seed(self) -> None:
        """Tell a drawn seed, once, when there is a result."""
        if not self.seed_is_told:
            print(f"seed {self.seed}", file=sys.stderr, flush=True)
            self.seed_is_told = True

    def streamer(self, skip_prompt: bool) -> Any:
        """Return a streamer to standard output that tells the seed first."""
        from ..generation.streamers import TextStreamer

        speaker = self

        class Voice(TextStreamer):
            def put(self, ids: np.ndarray) -> None:
                speaker.tell_seed()
                super().put(ids)

        return Voice(self.tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)

    def write(self, prompt: Prompt) -> None:
        """Write a text and its continuation as it comes."""
        ids = self.ids_of(prompt.text)
        self.model.generate(
            [ids],
            max_new_tokens=self.max_new(prompt, len(ids)),
            seed=self.seed,
            streamer=self.streamer(skip_prompt=self.new_text),
            **self.options,
        )

    def continue_all(self, prompts: Sequence[Prompt]) -> None:
        """Print every result of every prompt, a batch of prompts at a time.

        What is wrong with a prompt is said before the first of them is continued.
        """
        batches = list(self.batches(prompts))
        with Progress("batches of prompts", len(batches)) as progress:
            first = True
            for batch, max_new in batches:
                progress.step()
                for result in self.results(batch, max_new):
                    self.tell_seed()
                    progress.clear()
                    if self.json:
                        print(json.dumps(result, ensure_ascii=False), flush=True)
                    else:
                        text = result["new_text" if self.new_text else "text"]
                        print("---\n" * (not first) + text, flush=True)
                    first = False

    def batches(
        self, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[list[tuple[Prompt, list[int]]], int]]:
        """Yield (prompts and their ids, how many ids to add), in the prompts' order.

        Each batch has the prompts that get the same number of ids: so a prompt gets what
        it gets alone.
        """
        rows = [(prompt, self.ids_of(prompt.text)) for prompt in prompts]
        sizes = [self.max_new(prompt, len(ids)) for prompt, ids in rows]
        for max_new, group in groupby(zip(rows, sizes), key=lambda pair: pair[1]):
            while batch := [row for row, _ in islice(group, BATCH)]:
                yield batch, max_new

    def results(
        self, batch: Sequence[tuple[Prompt, list[int]]], max_new: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the results of a batch of prompts."""
        import numpy as np

        # An id that the model has not, and so can't choose.
        padding = self.model.config.vocab_size
        width = max(len(ids) for _, ids in batch)
        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros_like(ids)
        for row, (_, sequence) in enumerate(batch):
            ids[row, width - len(sequence) :] = sequence
            mask[row, width - len(sequence) :] = 1
        seeds = None
        if self.seed is not None and self.options["do_sample"]:
            seeds = [
                self.seed + prompt.index if prompt.seed is None else prompt.seed
                for prompt, _ in batch
            ]
        start = time.perf_counter()
        out: Any = self.model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max_new,
            seed=seeds,
            pad_token_id=padding,
            **self.options,
        )
        seconds = time.perf_counter() - start
        each = self.options.get("num_return_sequences", 1)
        for number, row in enumerate(out[:, width:].tolist()):
            prompt, prompt_ids = batch[number // each]
            new = [id for id in row if id != padding]  # which is at the end alone
            whole = prompt_ids + new
            result: dict[str, Any] = {
                "index": prompt.index,
                "id": prompt.id,
                "prompt": prompt.text,
                "text": self.tokenizer.decode(whole, skip_special_tokens=True),
                "new_text": self.tokenizer.decode(new, skip_special_tokens=True),
                "prompt_ids": prompt_ids,
                "ids": new,
                "finish_reason": self.finish_reason(prompt_ids, new, max_new),
                "seed": None if seeds is None else seeds[number // each],
                "seconds": round(seconds, 6),
                "batch": len(out),
            }
            if prompt.id is None:
                del result["id"]
            if self.json:
                result["logprobs"] = self.log_probs(whole, len(prompt_ids))
            yield result

    def finish_reason(self, prompt: list[int], new: list[int], max_new: int) -> str:
        """Return why a result ends, in the words of text-generation-inference."""
        import numpy as np

        from ..generation.stopping import StopStrings

        if new and new[-1] in self.end_ids():
            return "eos_token"
        strings = self.options.get("stop_strings")
        if strings and new:
            stop = StopStrings(strings, self.tokenizer)
            if stop.completes(np.array(prompt + new)):
                return "stop_sequence"
        return "length" if len(new) >= max_new else "time"

    def end_ids(self) -> list[int]:
        """Return the model's end ids."""
        for config in (
            getattr(self.model, "generation_config", None),
            self.model.config,
        ):
            ends = getattr(config, "eos_token_id", None)
            if ends is not None:
                return [ends] if isinstance(ends, int) else list(ends)
        return []

    def log_probs(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each id from position `start` on."""
        from ..tasks.score import token_log_probs

        windows = token_log_probs(self.model, ids, start=start)
        return [round(float(p), 6) for _, _, log_probs in windows for p in log_probs]

    def take_turns(self, text: str | None) -> None:
        """Write a text's continuation, read a line, go on; what was read is kept."""
        from ..generation.prefix_cache import PrefixCache

        limit, cache = self.model.config.n_positions, PrefixCache(capacity=1)
        # When the context is full, the turns themselves cut what is read to the window.
        window = self.options.pop("sliding_window", None) or limit // 2
        print(BANNER, file=sys.stderr, flush=True)
        typed = text is None
        if text is None:
            text = read_line()
        if text is None:
            return
        turns = Turns(self.tokenizer, text, self.ids_of(text))
        turn = 0
        while True:
            if len(turns.ids) + (self.new or 1) > limit:
                kept = max(min(window, limit - 1), 1)
                print(
                    f"(the context is full: its last {kept} ids stay)", file=sys.stderr
                )
                turns.keep(kept)
            out: Any = self.model.generate(
                [turns.ids],
                max_new_tokens=self.max_new(Prompt(""), len(turns.ids)),
                seed=None if self.seed is None else self.seed + turn,
                streamer=self.streamer(skip_prompt=typed or turn > 0),
                prefix_cache=cache,
                **self.options,
            )
            turns.generated(out[0].tolist()[len(turns.ids) :])
            turn += 1
            line = read_line()
            if line is None:
                return
            try:
                turns.typed(line)
            except ValueError as error:  # a byte that is no text
                print(f"({error})", file=sys.stderr)


class Turns:
    """The ids of a text that a user and a model write by turns.

    They are what `encode` gives for the text as a whole, also where a token stands across
    the end of a turn. What the model wrote as special ids or as parts of characters stays
    as it is.

    Attributes:
        ids: all of them.
    """

    def __init__(self, tokenizer: GPT2Tokenizer, text: str, ids: list[int]):
        self.tokenizer, self.ids = tokenizer, ids
        self._fixed = [] if text else ids  # the ids before `_text`, not encoded again
        self._text = text
        self._is_cut = False  # the text begins in the middle

    def typed(self, line: str) -> None:
        """Take what the user wrote. ValueError if it has no ids."""
        if not line:
            return
        encoded = self.tokenizer.encode(
            self._text + line,
            add_special_tokens=not (self._fixed or self._is_cut),
            add_prefix_space=False if self._is_cut else None,
            verbose=False,
        )
        self._text += line
        self.ids = self._fixed + encoded

    def generated(self, new: list[int]) -> None:
        """Take the ids that the model wrote."""
        special = set(self.tokenizer.all_special_ids)
        stop = max((i + 1 for i, id in enumerate(new) if id in special), default=0)
        if stop:
            self._fix(self.ids + new[:stop], is_cut=False)
        self.ids = self.ids + new
        try:
            self._text += self._text_of(new[stop:])
        except ValueError:
            self._fix(self.ids, is_cut=True)

    def keep(self, count: int) -> None:
        """Forget all but the last ids."""
        self.ids = self.ids[-count:]
        self._fix([], is_cut=True)
        try:
            self._text = self._text_of(self.ids)
        except ValueError:
            self._fix(self.ids, is_cut=True)

    def _fix(self, ids: list[int], is_cut: bool) -> None:
        self._fixed, self._text, self._is_cut = ids, "", is_cut

    def _text_of(self, ids: list[int]) -> str:
        """Return the text of ids. ValueError if it begins or ends within a character."""
        return self.tokenizer.bpe.decode(ids).decode("utf-8")


def read_line() -> str | None:
    """Read a line that is typed, with the keys of readline on a terminal; None: the end."""
    if sys.stdin is None:
        return None
    if not sys.stdin.isatty():
        data = sys.stdin.buffer.readline()
        line = data.decode("utf-8", "replace")
        return unescaped(line.removesuffix("\n").removesuffix("\r")) if data else None
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  it teaches `input` the arrow keys
    try:
        return unescaped(input("> "))
    except EOFError:
        print(file=sys.stderr)
        return None
