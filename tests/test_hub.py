import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from local_server import Answer, serving

import minigpt2
from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, hub

FOLDER = hub.DATA / "shakespeare-1m"
FILES = {  # (what else a repository has, such as ORIGIN.txt, stays there)
    path.name: path.read_bytes()
    for path in FOLDER.iterdir()
    if path.suffix != ".txt" or path.name == "merges.txt"
}
SAFETENSORS = "model.safetensors"
OLD, NEW = "a" * 40, "b" * 40


def repository(id, files, commit=OLD, requested="main"):
    """What the Hub answers for a model with these files: {path: Answer}."""
    listing = {"id": id, "sha": commit, "siblings": [{"rfilename": n} for n in files]}
    answer = Answer(json.dumps(listing).encode())
    answers = {f"/api/models/{id}": answer}
    for revision in (requested, commit):
        answers[f"/api/models/{id}/revision/{revision}"] = answer
        for name, body in files.items():
            headers = {"ETag": f'"{commit[:8]}-{name}"', "X-Repo-Commit": commit}
            answers[f"/{id}/resolve/{revision}/{name}"] = Answer(body, headers=headers)
    return answers


def put_in_cache(cache, id, files, commit=OLD):
    """Lay out a model as transformers leaves it in its cache."""
    folder = Path(cache) / f"models--{id.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    for name, body in files.items():
        (snapshot / name).write_bytes(body)
    return snapshot


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache in place of the user's, and a Hub that nobody answers for."""
    from huggingface_hub import constants

    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    point_to("http://127.0.0.1:9", monkeypatch)  # port 9: nothing listens there
    return folder


def point_to(url, monkeypatch):
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # the latter before version 1
        monkeypatch.setattr(
            module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
        )


@pytest.fixture
def the_hub(cache, monkeypatch):
    """A Hub with the embedded model as me/tiny."""
    with serving(repository("me/tiny", {**FILES, "README.md": b"not needed"})) as it:
        point_to(it.url, monkeypatch)
        yield it


def fetched(server):
    return sorted({Path(p).name for method, p, _ in server.requests if "resolve" in p})


def test_folders_and_the_embedded_model_need_no_hub():
    assert hub.model_folder(FOLDER) == hub.model_folder("shakespeare-1m") == FOLDER
    assert hub.tokenizer_folder(str(FOLDER)) == FOLDER
    assert hub.config_file(FOLDER) == FOLDER / "config.json"


def test_a_model_and_its_tokenizer_are_fetched_once(the_hub):
    model = GPT2LMHeadModel.from_pretrained("me/tiny")
    assert fetched(the_hub) == ["config.json", SAFETENSORS]
    tokenizer = GPT2Tokenizer.from_pretrained("me/tiny")
    assert fetched(the_hub) == ["config.json", "merges.txt", SAFETENSORS, "vocab.json"]
    ids = tokenizer.encode("To be, or not", return_tensors="np")
    expected = GPT2LMHeadModel.from_pretrained(FOLDER)
    assert (model(ids).logits == expected(ids).logits).all()

    the_hub.requests.clear()
    GPT2LMHeadModel.from_pretrained("me/tiny")
    assert not [path for method, path, _ in the_hub.requests if SAFETENSORS in path]


def test_a_cached_model_loads_when_nobody_answers(the_hub, cache, monkeypatch):
    folder = hub.model_folder("me/tiny")
    the_hub.stop()
    assert hub.model_folder("me/tiny") == folder
    assert hub.config_file("me/tiny") == folder / "config.json"
    with pytest.raises(OSError, match="me/other can't be had, nor is it in the cache"):
        hub.model_folder("me/other")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_cached_model_loads_when_the_hub_is_out_of_order(the_hub, status):
    folder = hub.model_folder("me/tiny")
    the_hub.answers["/api/models/me/tiny"] = Answer(b"", status)
    assert hub.model_folder("me/tiny") == folder


def test_a_refusal_is_not_answered_from_the_cache(the_hub):
    hub.model_folder("me/tiny")
    gone = Answer(b"", 404, {"X-Error-Code": "RepoNotFound"})
    the_hub.answers["/api/models/me/tiny"] = gone
    with pytest.raises(OSError, match="no model .*/me/tiny"):
        hub.model_folder("me/tiny")


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ("gpt2", "gpt2"),
        ("gpt2", "openai-community/gpt2"),
        ("openai-community/gpt2", "gpt2"),
        ("distilgpt2", "distilbert/distilgpt2"),
        ("distilbert/distilgpt2", "distilgpt2"),
    ],
)
def test_named_models_come_from_the_cache_without_a_request(cache, asked, there):
    snapshot = put_in_cache(cache, there, FILES)
    assert hub.model_folder(asked) == snapshot
    assert hub.config_file(asked) == snapshot / "config.json"


def test_a_named_model_is_fetched_from_where_it_lives_today(cache, monkeypatch):
    with serving(repository("openai-community/gpt2", FILES)) as server:
        point_to(server.url, monkeypatch)
        folder = hub.model_folder("gpt2")
    assert folder.parts[-3] == "models--openai-community--gpt2"
    assert (folder / SAFETENSORS).read_bytes() == FILES[SAFETENSORS]


def test_the_newest_files_are_asked_for(the_hub):
    first = hub.model_folder("me/tiny")
    the_hub.answers.update(repository("me/tiny", FILES, commit=NEW))
    second = hub.model_folder("me/tiny")
    assert (first.name, second.name) == (OLD, NEW)


def test_a_full_commit_hash_needs_no_request_once_it_is_cached(the_hub):
    folder = hub.model_folder("me/tiny", revision=OLD)
    the_hub.stop()
    assert hub.model_folder("me/tiny", revision=OLD) == folder


def test_revisions_have_files_of_their_own(the_hub):
    config = FILES["config.json"].replace(b'"vocab_size": 2048', b'"vocab_size": 2049')
    files = {**FILES, "config.json": config}
    the_hub.answers.update(repository("me/tiny", files, NEW, requested="v2"))
    assert GPT2Config.from_pretrained("me/tiny").vocab_size == 2048
    assert GPT2Config.from_pretrained("me/tiny", revision="v2").vocab_size == 2049


def test_shards_are_fetched_by_the_index(cache, monkeypatch):
    shards = {"model-1-of-2.safetensors": b"one", "model-2-of-2.safetensors": b"two"}
    index = {"weight_map": dict(zip("ab", shards))}
    files = {
        "config.json": FILES["config.json"],
        "model.safetensors.index.json": json.dumps(index).encode(),
        "pytorch_model.bin": b"not fetched",
        "generation_config.json": b"{}",
        **shards,
    }
    with serving(repository("me/large", files)) as server:
        point_to(server.url, monkeypatch)
        folder = hub.model_folder("me/large")
        wanted = sorted(set(files) - {"pytorch_model.bin"})
        assert sorted(path.name for path in folder.iterdir()) == wanted
    assert hub.model_folder("me/large", local_files_only=True) == folder
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="not all that is needed"):
        hub.model_folder("me/large", local_files_only=True)


def test_pytorch_files_are_fetched_where_there_are_no_safetensors(cache, monkeypatch):
    files = {"config.json": FILES["config.json"], "pytorch_model.bin": b"parameters"}
    with serving(repository("me/old", files)) as server:
        point_to(server.url, monkeypatch)
        assert (hub.model_folder("me/old") / "pytorch_model.bin").is_file()


def test_cache_dir_is_a_cache_of_its_own(the_hub, cache, tmp_path):
    folder = hub.model_folder("me/tiny", cache_dir=tmp_path / "mine")
    assert folder.is_relative_to(tmp_path / "mine")
    assert not cache.exists()


def test_local_files_only_makes_no_request(the_hub):
    with pytest.raises(FileNotFoundError, match="me/tiny is not in the cache"):
        GPT2LMHeadModel.from_pretrained("me/tiny", local_files_only=True)
    assert the_hub.requests == []


def test_the_token_is_sent_and_a_refusal_says_what_to_do(the_hub, cache):
    refusal = Answer(b"", 401, headers={"X-Error-Code": "RepoNotFound"})
    the_hub.answers = {"/api/models/me/private": refusal}
    with pytest.raises(OSError, match="if it is private, give token="):
        hub.model_folder("me/private", token="hf_" + "x" * 34)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (404, "RepoNotFound", "no model http://.*/me/tiny"),
        (404, "RevisionNotFound", "has no revision 'v9'"),
        (403, "GatedRepo", "is gated: accept its terms"),
        (403, None, "can't be had"),
        (500, None, "can't be had"),
    ],
)
def test_each_refusal_has_its_own_error(the_hub, status, code, says):
    path = "/api/models/me/tiny/revision/v9"
    headers = {"X-Error-Code": code} if code else {}
    the_hub.answers[path] = Answer(b"", status, headers)
    with pytest.raises(OSError, match=says):
        hub.model_folder("me/tiny", revision="v9")


def test_a_web_page_instead_of_the_hubs_answer_is_an_error(the_hub):
    the_hub.answers["/api/models/me/tiny"] = Answer(b"<html>Please log in</html>")
    with pytest.raises(OSError, match="me/tiny can't be had"):
        hub.model_folder("me/tiny")


def test_a_repository_without_parameters_is_an_error(cache, monkeypatch):
    with serving(repository("me/empty", {"config.json": b"{}"})) as server:
        point_to(server.url, monkeypatch)
        with pytest.raises(FileNotFoundError, match="lacks what is needed"):
            hub.model_folder("me/empty")


def test_a_download_that_breaks_leaves_nothing_that_looks_whole(the_hub, cache):
    path = f"/me/tiny/resolve/{OLD}/{SAFETENSORS}"
    right = the_hub.answers[path]
    the_hub.answers[path] = Answer(right.body[:1000], headers=right.headers)
    the_hub.answers[path].headers["X-Linked-Size"] = str(len(right.body))
    with pytest.raises(OSError, match="me/tiny can't be had"):
        hub.model_folder("me/tiny")
    the_hub.answers[path] = Answer(right.body, headers={**right.headers})
    assert (hub.model_folder("me/tiny") / SAFETENSORS).read_bytes() == right.body


@pytest.mark.parametrize("name", ["gpt2", "gpt2-xl", "distilgpt2"])
def test_the_named_tokenizers_are_in_the_package(cache, name):
    assert GPT2Tokenizer.from_pretrained(name).encode("Hello world") == [15496, 995]
    assert not cache.exists()


@pytest.mark.parametrize("name", ["gpt3", "no/such/folder", "./models", "C:\\gpt2"])
def test_what_can_be_no_name_is_a_folder_that_is_missing(name):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hub.model_folder(name)


def test_a_path_is_never_looked_up_on_the_hub():
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hub.model_folder(Path("me/tiny"))


@pytest.mark.parametrize("owner", [GPT2Config, GPT2LMHeadModel, GPT2Tokenizer])
def test_options_that_are_not_taken_are_refused_by_name(owner):
    with pytest.raises(ValueError, match="proxies is not an option here: set"):
        owner.from_pretrained("me/tiny", proxies={})


def test_unknown_options_of_the_functions_are_errors():
    with pytest.raises(TypeError, match="unknown option cache"):
        hub.model_folder("me/tiny", cache="here")
    with pytest.raises(ValueError, match="exclude each other"):
        hub.model_folder("me/tiny", local_files_only=True, force_download=True)


def test_without_huggingface_hub_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install .*\[hub\]"):
        hub.model_folder("gpt2-large")
    assert hub.model_folder("shakespeare-1m") == FOLDER


def test_the_environment_decides_cache_mirror_and_offline_mode(tmp_path):
    code = "from minigpt2 import hub; print(hub.model_folder('me/tiny'))"

    def run(**environment):
        clean = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
        environment = {**clean, "HF_HOME": str(tmp_path), **environment}
        command = [sys.executable, "-W", "error", "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    with serving(repository("me/tiny", FILES)) as server:
        online = run(HF_ENDPOINT=server.url)
        assert online.stdout.startswith(str(tmp_path / "hub")), online.stderr
        assert online.stderr == ""  # no progress bars in a pipe
        server.requests.clear()
        offline = run(HF_ENDPOINT=server.url, HF_HUB_OFFLINE="1")
        assert offline.stdout == online.stdout
        assert server.requests == []


def test_the_archive_maps_have_todays_addresses():
    config = minigpt2.GPT2_PRETRAINED_CONFIG_ARCHIVE_MAP
    model = minigpt2.GPT2_PRETRAINED_MODEL_ARCHIVE_MAP
    names = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"]
    assert list(config) == list(model) == names
    base = "https://huggingface.co/openai-community/gpt2-xl/resolve/main"
    assert config["gpt2-xl"] == f"{base}/config.json"
    assert model["gpt2-xl"] == f"{base}/model.safetensors"


@pytest.mark.peers
def test_transformers_and_minigpt2_find_each_others_downloads(the_hub, cache):
    transformers = pytest.importorskip("transformers")
    hub.model_folder("me/tiny")
    the_hub.requests.clear()
    theirs = transformers.GPT2LMHeadModel.from_pretrained(
        "me/tiny", cache_dir=cache, local_files_only=True
    )
    assert theirs.config.n_embd == 128
    assert the_hub.requests == []

    other = cache.parent / "theirs"
    transformers.GPT2LMHeadModel.from_pretrained("me/tiny", cache_dir=other)
    assert hub.model_folder("me/tiny", cache_dir=other, local_files_only=True)
