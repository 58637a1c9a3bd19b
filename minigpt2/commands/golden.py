"""`minigpt2 golden`: every number of a pass in a file, for the tests of another port."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from ..hub import EMBEDDED_MODEL
from . import Commands, add_model, add_weights, text_of

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel
    from ..model.pretrained import PreTrainedModel
    from ..tracing.golden import Golden

# tracing.golden's, which must not be imported before the arguments are read.
TRACED = ("safetensors", "npz", "json", "onnx")
FORMATS = (*TRACED, "llm.c")
BY_SUFFIX = (
    "its suffix says the format: .safetensors, .npz, .json; none for a folder of ONNX's "
    "test data; .bin for llm.c's debug state"
)


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "golden",
        help="write every number of a pass to a file, for the tests of another port",
        description="Golden files hold the steps of a forward pass by name, with all that "
        "a comparison needs to know.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    add_make(actions)
    add_tiny(actions)
    add_show(actions)
    add_convert(actions)
    add_diff(actions)


def add_make(actions: Commands) -> None:
    parser = actions.add_parser(
        "make",
        help="trace a pass and write what its steps give",
        description="Trace a forward pass, measure at each step how far float32 is from "
        "float64, and write a golden file. The loss is among its outputs if there are "
        "several ids.",
    )
    add_model(parser, EMBEDDED_MODEL)
    add_weights(parser, "round the parameters, and trace what the formulas compute")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--text",
        metavar="TEXT",
        action="append",
        help="the text to read; '-': standard input. Several are a batch, the shorter ones "
        "padded on the left",
    )
    source.add_argument(
        "--ids", metavar="ID", nargs="+", type=int, help="the ids to read"
    )
    parser.add_argument(
        "--names",
        metavar="PATTERN",
        nargs="+",
        default=["*"],
        help="the steps to write, such as 'h.*.attn.weights' (default: all; what the "
        "model returns is always written)",
    )
    add_dtype(parser)
    add_out(parser)
    parser.set_defaults(run=make)


def add_tiny(actions: Commands) -> None:
    parser = actions.add_parser(
        "tiny",
        help="write tiny models, made so that bugs show, each with its golden file",
        description="Write tiny models into folders of Hugging Face's layout, each with a "
        "golden file of a batch that has padding. They have the same bits everywhere; "
        "minigpt2/testing/tiny.py says what they are made for.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="takes a folder for each model"
    )
    parser.add_argument(
        "--names", metavar="NAME", nargs="+", help="which models (default: all)"
    )
    add_dtype(parser)
    parser.add_argument(
        "--format",
        choices=TRACED,
        default="safetensors",
        help="the golden files' format (default: safetensors)",
    )
    parser.set_defaults(run=tiny)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="compute in it (default: float32)",
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="FILE", required=True, help=f"the golden file; {BY_SUFFIX}"
    )
    add_format(parser)


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=FORMATS, help="the format, if the suffix does not say it"
    )


def add_show(actions: Commands) -> None:
    parser = actions.add_parser(
        "show",
        help="say what a golden file holds",
        description="Print what a golden file says of itself, and its tensors: name, "
        "dtype, shape, the least and the largest number, and the tolerance.",
    )
    parser.add_argument("file", metavar="FILE")
    add_sizes(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=show)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="the model of a debug state of llm.c, which does not say its sizes (not "
        "needed for those of OpenAI's models)",
    )


def add_convert(actions: Commands) -> None:
    parser = actions.add_parser(
        "convert",
        help="write a golden file in another format",
        description="Write what a golden file holds in another format.",
    )
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST", help=BY_SUFFIX)
    add_sizes(parser)
    add_format(parser)
    parser.set_defaults(run=convert)


def add_diff(actions: Commands) -> None:
    parser = actions.add_parser(
        "diff",
        help="say which step of another port is wrong, and what is wrong in it",
        description="Compare what a port dumped with a golden file of the same inputs: "
        "replay every step from what the port had before it, and try the known mistakes "
        "where one is wrong. The exit code is 0 if they are the same, 1 if they differ, "
        "2 if they cannot be compared.",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="a golden file")
    parser.add_argument(
        "theirs",
        metavar="THEIRS",
        help="what the port dumped: .safetensors, .npz, .json, .pt, or a folder",
    )
    parser.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="the golden's model (default: the folder that the golden lies in, or what "
        "the golden says that it was made from)",
    )
    parser.add_argument(
        "--map",
        metavar="FILE",
        help='other names, in JSON: {"their.layer{i}.out": "h.{i}.attn.c_proj"}',
    )
    parser.add_argument(
        "--rtol",
        metavar="X",
        type=float,
        help="what an error may be of a step's largest value (default: what the "
        "precision excuses)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=diff, error_code=2)  # 1 says that they differ


def make(arguments: argparse.Namespace) -> int:
    """Trace, and print the file."""
    import numpy as np

    from ..model.gpt2 import GPT2LMHeadModel
    from ..tracing.golden import format_of, golden_of, make_golden, save_golden

    a = arguments
    format = format_of(a.out, a.format)
    model = GPT2LMHeadModel.from_pretrained(
        a.model, dtype=np.dtype(a.dtype), weights=a.weights, backend="numpy"
    )
    texts = None if a.text is None else list(map(text_of, a.text))
    inputs = inputs_of(a, texts, model)
    if format == "llm.c":
        from ..training.debug_state import debug_state

        if a.names != ["*"]:
            raise ValueError("llm.c's debug state is whole: leave out --names")
        if "attention_mask" in inputs:
            raise ValueError("llm.c has no padding: give texts of the same length")
        golden = golden_of(debug_state(model, inputs["input_ids"]))
    else:
        text = texts[0] if texts and len(texts) == 1 else None
        golden = make_golden(
            model, names=a.names, text=text, command=command_line(), **inputs
        )
        golden.about["model"] = a.model
    save_golden(a.out, golden, format)
    print(a.out)
    return 0


def command_line() -> str:
    return shlex.join(["minigpt2", *sys.argv[1:]])


def tiny(arguments: argparse.Namespace) -> int:
    """Write tiny models and their golden files, and print the folders."""
    from pathlib import Path

    from ..testing import TINY_MODELS, tiny_inputs, tiny_model
    from ..tracing.golden import SUFFIXES, make_golden, save_golden

    a = arguments
    models = {name: tiny_model(name, dtype=a.dtype) for name in a.names or TINY_MODELS}
    suffix = {format: suffix for suffix, format in SUFFIXES.items()}[a.format]
    for name, model in models.items():
        inputs: dict[str, Any] = dict(tiny_inputs(name).arguments())
        golden = make_golden(model, command=command_line(), **inputs)
        folder = Path(a.folder) / name
        model.float().save_pretrained(folder)
        save_golden(folder / f"golden{suffix}", golden, a.format)
        print(folder)
    return 0


def inputs_of(
    arguments: argparse.Namespace, texts: list[str] | None, model: GPT2LMHeadModel
) -> dict[str, Any]:
    """Return the arguments of the pass; ValueError for texts without a token."""
    import numpy as np

    from ..tokenizer import GPT2Tokenizer
    from ..tracing.golden import padded_inputs

    if texts is None:
        rows = [arguments.ids]
    else:
        tokenizer = GPT2Tokenizer.from_pretrained(arguments.model)
        rows = [tokenizer.encode(text) for text in texts]
    if not all(rows):
        raise ValueError("a text has no tokens, and a pass needs one")
    longest = max(map(len, rows))
    end = model.config.eos_token_id  # (Padding may be any id, and ends may be several.)
    ids = np.full((len(rows), longest), end if isinstance(end, int) else 0)
    mask = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :], mask[i, longest - len(row) :] = row, 1
    inputs = padded_inputs(ids, mask)
    if mask.all():
        del inputs["attention_mask"], inputs["position_ids"]
    if longest == 1:
        del inputs["labels"]
    return inputs


def opened(path: str, model: str | None) -> Golden:
    """Read a golden file; `model` says the sizes that llm.c's debug state does not."""
    from ..config import GPT2Config
    from ..tracing.golden import read_golden

    sizes = None if model is None else GPT2Config.from_pretrained(model)
    return read_golden(path, sizes)


def show(arguments: argparse.Namespace) -> int:
    """Print what a golden file holds."""
    import numpy as np

    golden = opened(arguments.file, arguments.model)
    rows: list[dict[str, Any]] = []
    for name, array in [
        *((f"inputs.{name}", array) for name, array in golden.inputs.items()),
        *golden.steps.items(),
    ]:
        numbers = array[np.isfinite(array)]
        rows.append(
            {
                "name": name,
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "least": numbers.min().item() if numbers.size else None,
                "largest": numbers.max().item() if numbers.size else None,
                "tolerance": golden.tolerance.get(name),
            }
        )
    if arguments.json:
        about = {"outputs": golden.outputs, **golden.about}
        print(json.dumps({**about, "tensors": rows}, ensure_ascii=False))
        return 0
    show_about(golden)
    width = max(len(row["name"]) for row in rows)
    print(
        f"\n{'':{width}}  dtype    shape                  least     largest  tolerance"
    )
    for row in rows:
        shape = " ".join(map(str, row["shape"])) or "-"
        numbers = "".join(
            f"{'' if row[key] is None else format(row[key], '.4g'):>12}"
            for key in ("least", "largest")
        )
        tolerance = "" if row["tolerance"] is None else f"{row['tolerance']:.1e}"
        print(
            f"{row['name']:{width}}  {row['dtype']:8} {shape:16}{numbers}{tolerance:>11}"
        )
    return 0


def show_about(golden: Golden) -> None:
    """Print what a golden file says of itself, but for the defaults of its model."""
    for key, value in golden.about.items():
        if key == "config" and isinstance(value, dict):
            sizes = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
            value = " ".join(f"{name}={value.get(name)}" for name in sizes)
        elif isinstance(value, dict):
            value = " ".join(f"{name}={part}" for name, part in value.items())
        if value is not None:
            print(f"{key}: {value}")
    outputs = [f"{output} = {step}" for output, step in golden.outputs.items()]
    print(f"outputs: {', '.join(outputs) or '-'}")


def convert(arguments: argparse.Namespace) -> int:
    """Write a golden file in another format, and print it."""
    from ..tracing.golden import format_of, save_golden

    a = arguments
    format = format_of(a.target, a.format)
    save_golden(a.target, opened(a.source, a.model), format)
    print(a.target)
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Print what is wrong; return 0 (the same), 1 (it differs) or 2 (not comparable)."""
    from ..tracing.diagnosis import DIFFERS, SAME, diagnose
    from ..tracing.dumps import read_dump
    from ..tracing.report import as_json, report

    a = arguments
    golden = opened(a.reference, a.model)
    model, missing = model_of(golden, a)
    theirs = read_dump(a.theirs, None if model is None else model.config)
    names = None if a.map is None else names_in(a.map)
    found = diagnose(golden, theirs, model=model, names=names, rtol=a.rtol)
    found.notes += missing
    print(json.dumps(as_json(found), indent=1) if a.json else report(found))
    return {SAME: 0, DIFFERS: 1}.get(found.status, 2)


def names_in(path: str) -> dict[str, str]:
    """Read a file of --map."""
    from ..runtime.files import read_json

    names = read_json(path)
    if not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{path} must hold an object: {{their name: our name}}")
    return names


def model_of(
    golden: Golden, arguments: argparse.Namespace
) -> tuple[PreTrainedModel | None, list[str]]:
    """Return the model that a golden was made from, if it can be found, or a note."""
    from pathlib import Path

    from ..model.double_heads import GPT2DoubleHeadsModel
    from ..model.gpt2 import GPT2LMHeadModel, GPT2Model
    from ..tracing.golden import weights_sha256

    classes = (GPT2LMHeadModel, GPT2Model, GPT2DoubleHeadsModel)
    said = golden.about.get("model")
    beside = Path(arguments.reference).resolve().parent
    if arguments.model is not None:
        where = arguments.model
    elif (beside / "config.json").exists():
        where = str(beside)
    elif isinstance(said, str):
        where = said
    else:
        return None, ["which model the golden is of is not known: give --model"]
    named: dict[str, type[PreTrainedModel]] = {cls.__name__: cls for cls in classes}
    cls = named.get(str(golden.about.get("model_class")), GPT2LMHeadModel)
    weights = golden.about.get("weights") or "float32"
    try:
        model = cls.from_pretrained(where, backend="numpy", weights=weights)
    except (OSError, ValueError, ImportError) as error:
        if arguments.model is not None:
            raise
        return None, [f"the golden's model is not there ({error}): give --model"]
    hashed = golden.about.get("weights_sha256")
    if hashed is None or weights_sha256(model) == hashed:
        return model, []
    if arguments.model is not None:
        raise ValueError(f"{where} has other parameters than the golden's model")
    return None, [f"{where} has other parameters than the golden's model: give --model"]
