"""`minigpt2 download`: fetch a model."""

import argparse


def add_to(commands: "argparse._SubParsersAction") -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "download",
        help="fetch a model",
        description="Fetch a model and print the folder that it is in. From the "
        "Hugging Face Hub it goes into the cache that transformers uses too, or with "
        "--to into a folder; this needs the library huggingface_hub. OpenAI's original "
        "files always go into a folder. A download that was broken off goes on where "
        "it stopped.",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, owner/name; or "
        "OpenAI's names: 124M, 355M, 774M, 1558M",
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=("openai", "hub"),
        help="(default: openai for OpenAI's names, else hub)",
    )
    parser.add_argument("--to", metavar="FOLDER", help="(default for openai: ./124M)")
    parser.add_argument("--revision", metavar="R", help="hub: branch, tag or commit")
    parser.add_argument("--base-url", metavar="URL", help="openai: a mirror's address")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fetch, and print the folder."""
    from .. import hub
    from ..hub import archive, download

    name, source = arguments.name, arguments.source
    if source is None:
        source = "openai" if name in archive.OPENAI_NAMES else "hub"
    if source == "openai":
        if arguments.revision:
            raise ValueError("--revision is for --from hub")
        base_url = arguments.base_url or archive.OPENAI
        folder = download.from_openai(name, arguments.to, base_url)
    elif arguments.base_url:
        raise ValueError("--base-url is for --from openai; HF_ENDPOINT for the Hub")
    elif arguments.to:
        folder = download.from_hub(name, arguments.to, arguments.revision)
    else:
        folder = hub.whole_folder(name, revision=arguments.revision)
    print(folder)
    return 0
