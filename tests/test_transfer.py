"""An address arrives in a file whole, or an error says why; whatever the server does."""

import io
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_server import Answer, serving

from minigpt2.hub import transfer
from minigpt2.hub.transfer import fetch

BODY = bytes(range(256)) * 40  # 10,240 bytes
SIZE = len(BODY)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small blocks, and no waiting; returns the seconds that would have been waited."""
    waited = []
    monkeypatch.setattr(transfer, "BLOCK", 1000)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=waited.append))
    return waited


def ranges(server):
    return [asked for _, _, asked in server.requests]


@pytest.mark.parametrize("size", [None, SIZE])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_is_fetched(tmp_path, size, chunked):
    with serving({"/a": Answer(BODY, chunked=chunked)}) as server:
        fetch(server.url + "/a", tmp_path / "a", size)
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_file_that_is_whole_takes_no_request(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    with serving({}) as server:
        fetch(server.url + "/a", tmp_path / "a", SIZE)
        assert server.requests == []


def test_a_file_of_unknown_size_is_fetched_from_the_start(tmp_path):
    (tmp_path / "a").write_bytes(b"of another time")
    with serving({"/a": Answer(BODY)}) as server:
        fetch(server.url + "/a", tmp_path / "a")
        assert ranges(server) == [None]
    assert (tmp_path / "a").read_bytes() == BODY


answers = st.builds(
    Answer,
    st.just(BODY),
    status=st.sampled_from([200, 200, 200, 429, 503]),
    ranges=st.booleans(),
    cut_after=st.none() | st.integers(0, SIZE - 1),
    chunked=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, SIZE), answers=st.lists(answers, min_size=1, max_size=8))
def test_whatever_breaks_the_file_is_right_in_the_end(
    before, answers, tmp_path_factory
):
    path = tmp_path_factory.mktemp("transfer") / "a"
    path.write_bytes(BODY[:before])
    with serving({"/a": [*answers, Answer(BODY)]}) as server:
        for _ in range(len(answers) + 1):
            try:
                fetch(server.url + "/a", path, SIZE)
                break
            except OSError:
                assert BODY.startswith(path.read_bytes())
    assert path.read_bytes() == BODY


def test_a_server_that_is_busy_is_asked_again_ever_more_slowly(tmp_path, quick):
    busy = [Answer(b"", 503), Answer(b"", 429), Answer(b"", 500)]
    with serving({"/a": [*busy, Answer(BODY)]}) as server:
        fetch(server.url + "/a", tmp_path / "a")
        assert len(server.requests) == 4
    assert quick == [1, 2, 4]
    with serving({"/a": Answer(b"", 503)}) as server:
        with pytest.raises(OSError, match="503: Service Unavailable .try again"):
            fetch(server.url + "/a", tmp_path / "a")
        assert len(server.requests) == transfer.ATTEMPTS


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(tmp_path, quick, status):
    with serving({"/a": Answer(b"", status)}) as server:
        with pytest.raises(OSError, match=f"/a could not be fetched: .*{status}"):
            fetch(server.url + "/a", tmp_path / "a", SIZE)
        assert len(server.requests) == 1
    assert quick == []


@pytest.mark.parametrize(
    ("body", "size", "says"),
    [
        (BODY[:100], SIZE, "100 bytes, and it should have 10,240"),
        (BODY * 2, SIZE, "more than the 10,240 bytes"),
        (BODY, SIZE + 1, "no more than the 10,240 bytes here"),
    ],
)
def test_of_another_file_nothing_is_kept(tmp_path, body, size, says):
    if size > SIZE:
        (tmp_path / "a").write_bytes(BODY)
    with serving({"/a": Answer(body)}) as server:
        with pytest.raises(OSError, match=says):
            fetch(server.url + "/a", tmp_path / "a", size)
        assert len(server.requests) == 1
    assert (tmp_path / "a").read_bytes() == b""


def test_a_file_of_unknown_size_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SMALL", SIZE - 1)
    with (
        serving({"/a": Answer(BODY, chunked=True)}) as server,
        pytest.raises(OSError, match="more than the 10,239 bytes"),
    ):
        fetch(server.url + "/a", tmp_path / "a")


def test_the_proxy_of_the_environment_is_asked(tmp_path, monkeypatch):
    with serving({"http://nowhere.invalid/a": Answer(BODY)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        fetch("http://nowhere.invalid/a", tmp_path / "a", SIZE)
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/a", "ConnectionRefusedError"),  # nothing listens there
        ("nonsense", "unknown url type: 'nonsense'"),
    ],
)
def test_what_is_no_server_is_an_error_that_says_so(tmp_path, monkeypatch, url, says):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(OSError, match=f"{url} could not be fetched: {says}"):
        fetch(url, tmp_path / "a")


def test_progress_is_shown_on_a_terminal_from_where_it_goes_on(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    (tmp_path / "a").write_bytes(BODY[:5000])
    with serving({"/file": Answer(BODY)}) as server:
        fetch(server.url + "/file", tmp_path / "a", SIZE)
    shown = sys.stderr.getvalue()
    assert "file [" in shown
    assert " 6/10 MiB" in shown
    assert " 10/10 MiB" in shown
    assert " 1/10" not in shown
