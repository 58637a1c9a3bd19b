"""How this package was installed, for messages that say how to install more of it."""


def pip_install(extra: str) -> str:
    """Return the pip command that adds an extra: from the checkout it came from, if any.

    An installer notes in direct_url.json where a package came from that is from no index
    (the specification "Recording the Direct URL Origin of installed distributions").
    """
    # (All of this takes as long to import as a small model to load, and is seldom needed.)
    import json
    from importlib import metadata
    from urllib.parse import unquote, urlsplit
    from urllib.request import url2pathname

    try:
        said = metadata.distribution("minigpt2").read_text("direct_url.json")
        url = urlsplit(json.loads(said or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return f"pip install '.[{extra}]' in its checkout"
    if url.scheme == "file":
        return f"pip install '{url2pathname(unquote(url.path))}[{extra}]'"
    return f'pip install "minigpt2[{extra}]"'
