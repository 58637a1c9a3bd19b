"""Files are written whole or not at all, and bad JSON is named."""

import pytest

from minigpt2.runtime.files import open_whole, read_json, sha256, write_whole


def test_a_file_appears_with_all_its_bytes(tmp_path):
    write_whole(tmp_path / "a", b"one")
    write_whole(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, stop):
    write_whole(tmp_path / "a", b"old")

    def interrupted():
        with open_whole(tmp_path / "a") as file:
            file.write(b"half of the n")
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "a", b"")


@pytest.mark.parametrize("content", [b"<html>", b"\xff\xfe", b"", b"[1, 2]"])
def test_what_is_no_json_object_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "digest"),  # examples of FIPS 180-2
    [
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"a" * 1_000_000,
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ),
    ],
)
def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path, content, digest):
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == digest
