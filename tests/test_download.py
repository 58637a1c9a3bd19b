import hashlib
import os
import sys
from types import SimpleNamespace

import pytest
from local_server import Answer, serving
from test_hub import FILES as HUB_FILES
from test_hub import cache, point_to, repository  # noqa: F401

from minigpt2 import GPT2LMHeadModel, hub
from minigpt2.cli import main
from minigpt2.hub import archive, download, transfer

DATA = archive.TENSORS


@pytest.fixture
def published(shakespeare, monkeypatch):
    """{file: bytes}: the trained model, in the place of OpenAI's 124M."""
    files = {path.name: path.read_bytes() for path in shakespeare.folder.iterdir()}
    files[archive.META] = b"\x0a\x07a graph"
    files = {name: files[name] for name in archive.OPENAI_FILES}
    sizes = {"n_embd": 128, "n_layer": 4, "n_head": 4}
    monkeypatch.setitem(archive.GPT2_SIZES, "gpt2", sizes)
    monkeypatch.setitem(archive.TENSORS_SIZES, "gpt2", len(files[DATA]))
    for name in archive.VOCABULARY:
        facts = len(files[name]), hashlib.sha256(files[name]).hexdigest()
        monkeypatch.setitem(archive.VOCABULARY, name, facts)
    return files


@pytest.fixture
def openai(published, monkeypatch):
    """A server with these files. Waiting is cut short."""
    monkeypatch.setattr(transfer, "BLOCK", 2**16)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=lambda _: None))
    answers = {f"/124M/{name}": Answer(body) for name, body in published.items()}
    with serving(answers) as server:
        yield server


@pytest.fixture
def fetch(openai, tmp_path):
    """Download as the command does; return the folder."""

    def run(name="124M"):
        return download.from_openai(name, tmp_path / "124M", openai.url + "/")

    return run


def same_files(folder, published):
    return {path.name: path.read_bytes() for path in folder.iterdir()} == published


def test_the_seven_files_are_fetched_and_load(fetch, published, tmp_path):
    folder = fetch()
    assert same_files(folder, published)
    assert [path.name for path in tmp_path.iterdir()] == ["124M"]
    assert GPT2LMHeadModel.from_pretrained(folder).config.n_embd == 128


def test_the_command_prints_the_folder(openai, published, tmp_path, capsys):
    to = tmp_path / "new" / "folder"
    command = ["download", "gpt2", "--from", "openai", "--to", str(to)]
    assert main([*command, "--base-url", openai.url]) == 0
    assert capsys.readouterr() == (f"{to}\n", "")  # no progress bars in a pipe
    assert same_files(to, published)


def test_a_whole_folder_is_not_fetched_again(fetch, openai):
    fetch()
    openai.requests.clear()
    fetch()
    assert openai.requests == []


@pytest.mark.parametrize("file", archive.OPENAI_FILES)
def test_a_folder_with_a_wrong_file_is_refused_and_left_as_it_is(fetch, file):
    folder = fetch()
    damaged = bytearray((folder / file).read_bytes())
    damaged[len(damaged) // 2 if file != archive.META else 0] ^= 0x20
    if file in ("checkpoint", "hparams.json"):
        damaged = b"{}"
    (folder / file).write_bytes(damaged)
    with pytest.raises(FileExistsError, match="is there, and is no whole copy") as info:
        fetch()
    assert file.partition(".data")[0] in str(info.value)
    assert (folder / file).read_bytes() == damaged


@pytest.mark.parametrize("times", [1, 4])
def test_a_broken_connection_is_resumed(fetch, openai, published, times):
    body = published[DATA]
    cut = Answer(body, cut_after=100_000)
    openai.answers[f"/124M/{DATA}"] = [cut] * times + [Answer(body)]
    assert same_files(fetch(), published)
    ranges = [asked for _, path, asked in openai.requests if path.endswith(DATA)]
    starts = [int(asked[6:-1]) for asked in ranges if asked]
    assert starts == sorted(starts)
    assert len(starts) == times


def test_a_server_that_ignores_ranges_sends_all_again(fetch, openai, published):
    body = published[DATA]
    answers = [Answer(body, cut_after=100_000), Answer(body, ranges=False)]
    openai.answers[f"/124M/{DATA}"] = answers
    assert same_files(fetch(), published)


def test_silence_is_broken_off_and_resumed(fetch, openai, published, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.3)
    body = published[DATA]
    openai.answers[f"/124M/{DATA}"] = [Answer(body, wait=1.0), Answer(body)]
    assert same_files(fetch(), published)


def test_without_a_length_the_size_is_still_checked(fetch, openai, published):
    body = published[DATA]
    openai.answers[f"/124M/{DATA}"] = Answer(body, chunked=True)
    assert same_files(fetch(), published)


def test_a_second_attempt_goes_on_where_the_first_stopped(fetch, openai, published):
    body = published[DATA]
    path = f"/124M/{DATA}"
    openai.answers[path] = [Answer(body, cut_after=200_000), Answer(b"", 503)]
    with pytest.raises(OSError, match=f"{DATA} could not be fetched.*try again"):
        fetch()
    openai.requests.clear()
    openai.answers[path] = Answer(body)
    assert same_files(fetch(), published)
    ((method, asked_for, asked),) = openai.requests
    assert asked_for == path  # nothing else was fetched again
    assert 0 < int(asked.removeprefix("bytes=").removesuffix("-")) <= 200_000


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize("file", [archive.INDEX, DATA])
def test_a_refusal_leaves_no_folder(fetch, openai, tmp_path, status, file):
    openai.answers[f"/124M/{file}"] = Answer(b"<html>no</html>", status)
    with pytest.raises(OSError, match=f"/124M/{file} could not be fetched.*{status}"):
        fetch()
    assert not (tmp_path / "124M").exists()


def test_when_nobody_answers_the_error_names_the_address(fetch, openai, tmp_path):
    openai.stop()
    with pytest.raises(OSError, match=f"{openai.url}/124M/checkpoint could not be"):
        fetch()
    assert list(tmp_path.iterdir()) == []  # nothing has come, so nothing is left


@pytest.mark.parametrize("file", archive.OPENAI_FILES)
def test_a_web_page_in_place_of_a_file_is_an_error(fetch, openai, published, file):
    path = f"/124M/{file}"
    openai.answers[path] = Answer(b"<!DOCTYPE html><title>Log in</title>")
    with pytest.raises(OSError, match=f"{path}"):
        fetch()
    openai.answers[path] = Answer(published[file])
    assert same_files(fetch(), published)


@pytest.mark.parametrize("file", archive.OPENAI_FILES)
def test_a_truncated_file_is_an_error(fetch, openai, published, file, tmp_path):
    body = published[file]
    openai.answers[f"/124M/{file}"] = Answer(body[: len(body) // 3])
    if file == archive.META:
        openai.answers[f"/124M/{file}"] = Answer(body[:4], length=len(body))
    with pytest.raises(OSError, match=f"{file}"):
        fetch()
    assert not (tmp_path / "124M").exists()


def test_a_changed_bit_in_a_tensor_is_an_error(fetch, openai, published, tmp_path):
    body = bytearray(published[DATA])
    body[1_000_000] ^= 1
    openai.answers[f"/124M/{DATA}"] = Answer(bytes(body))
    with pytest.raises(OSError, match="sent something else: .* is damaged"):
        fetch()
    assert not (tmp_path / "124M").exists()
    assert not (tmp_path / "124M.part" / DATA).exists()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_does_not_end_is_broken_off(fetch, openai, published, chunked):
    body = published[DATA] + b"x" * 2**20
    openai.answers[f"/124M/{DATA}"] = Answer(body, chunked=chunked)
    with pytest.raises(OSError, match="more than the 4,353,024 bytes"):
        fetch()


def test_of_two_downloads_into_one_folder_the_second_is_told_to_wait(
    fetch, openai, published, tmp_path
):
    import fcntl

    part = tmp_path / "124M.part"
    part.mkdir()
    other = os.open(part, os.O_RDONLY)  # what another process holds
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(FileExistsError, match=f"another process .* {part}: wait"):
        fetch()
    assert part.exists()
    assert openai.requests == []
    os.close(other)
    assert same_files(fetch(), published)


def test_another_sizes_files_are_refused(fetch, openai, monkeypatch):
    monkeypatch.setitem(archive.TENSORS_SIZES, "gpt2", 497_759_232)
    with pytest.raises(OSError, match="wants data files of {0: 4353024} bytes"):
        fetch()


def test_openais_files_need_no_library(fetch, published, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert same_files(fetch(), published)


def test_unknown_names_and_missing_libraries_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no '125M'; there are gpt2, .* 1558M"):
        download.from_openai("125M", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install .*\[hub\]"):
        download.from_hub("gpt2", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_published_sizes_are_four_bytes_a_parameter():
    for name, size in archive.GPT2_SIZES.items():
        C, layers = size["n_embd"], size["n_layer"]
        block = 12 * C * C + 13 * C
        parameters = 50257 * C + 1024 * C + layers * block + 2 * C
        assert archive.TENSORS_SIZES[name] == 4 * parameters


def test_what_is_here_already_is_not_moved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "gpt2"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    for name, where in (("gpt2", "gpt2"), (hub.EMBEDDED_MODEL, hub.EMBEDDED_MODEL)):
        assert main(["download", name, "--to", str(tmp_path / "new")]) == 1
        message = capsys.readouterr().err
        assert f"{name} is here already, in " in message
        assert where in message
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"]
    assert (mine / "config.json").read_text() == "{}"


def test_from_the_hub_into_a_folder(cache, monkeypatch, tmp_path, capsys):  # noqa: F811
    to = tmp_path / "tiny"
    with serving(repository("me/tiny", HUB_FILES)) as server:
        point_to(server.url, monkeypatch)
        assert main(["download", "me/tiny", "--to", str(to)]) == 0
        assert same_files(to, HUB_FILES)
        assert not any(path.is_symlink() for path in to.iterdir())
        assert main(["download", "me/tiny", "--to", str(to)]) == 1
        assert "is there already" in capsys.readouterr().err
        assert not cache.exists()
        assert main(["download", "me/tiny"]) == 0
        assert capsys.readouterr().out == f"{hub.model_folder('me/tiny')}\n"
