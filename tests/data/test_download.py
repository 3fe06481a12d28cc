import gzip
import hashlib
import importlib
from dataclasses import replace

import pytest

from rankproof.data import download
from rankproof.errors import RankproofError

# The package exports the function under the module's own name.
room = importlib.import_module("rankproof.data.download")
CONTENT = {"one.gz": b"first" * 1000, "two.gz": b"second" * 1000}


def md5(raw):
    return hashlib.md5(raw).hexdigest()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A publisher on this disk instead of the two real ones."""
    folder = tmp_path / "published"
    folder.mkdir()
    files = []
    for name, content in CONTENT.items():
        raw = gzip.compress(content, mtime=0)
        (folder / name).write_bytes(raw)
        files.append(room.Remote(name=name, size=len(raw), md5=md5(raw), content=md5(content)))
    source = room.Publication(address=f"{folder.as_uri()}/", files=tuple(files))
    monkeypatch.setattr(room, "SOURCES", {"mnist": source})
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_fetches_every_file_and_leaves_nothing_else(published, root):
    seen = []
    folder = download("mnist", root, lambda done, total: seen.append((done, total)))
    assert folder == root / "mnist"
    assert names(folder) == ["one.gz", "two.gz"]
    assert gzip.decompress((folder / "two.gz").read_bytes()) == CONTENT["two.gz"]
    assert (folder / "one.gz").stat().st_mode & 0o444 == 0o444
    total = sum(path.stat().st_size for path in published.iterdir())
    assert seen[-1] == (total, total)
    assert sorted(seen) == seen


def test_what_is_there_is_not_fetched_again(published, root):
    folder = download("mnist", root)
    for path in published.iterdir():
        path.unlink()
    assert download("mnist", root) == folder


def test_a_copy_packed_anew_is_kept(published, root):
    folder = download("mnist", root)
    other = gzip.compress(CONTENT["one.gz"], compresslevel=1, mtime=77)
    (folder / "one.gz").write_bytes(other)
    download("mnist", root)
    assert (folder / "one.gz").read_bytes() == other


@pytest.mark.parametrize("damaged", [b"", b"half", gzip.compress(b"something else", mtime=0)])
def test_a_damaged_copy_is_fetched_again(published, root, damaged):
    folder = download("mnist", root)
    (folder / "one.gz").write_bytes(damaged)
    download("mnist", root)
    assert (folder / "one.gz").read_bytes() == (published / "one.gz").read_bytes()


@pytest.mark.parametrize(
    "change", [lambda raw: raw + b"x", lambda raw: raw[:-1], lambda raw: raw[:-1] + b"?"]
)
def test_a_wrong_checksum_is_not_kept(published, root, change):
    path = published / "one.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(RankproofError, match=r"one\.gz: came with the wrong checksum"):
        download("mnist", root)
    assert names(root / "mnist") == []


def test_an_endless_answer_is_cut_off(published, root):
    path = published / "one.gz"
    path.write_bytes(bytes(1 << 20))
    seen = []
    with pytest.raises(RankproofError, match="wrong checksum"):
        download("mnist", root, lambda done, total: seen.append(done))
    assert seen[-1] <= room.SOURCES["mnist"].files[0].size + 1


def test_offline_says_where_to_put_the_files(published, root, monkeypatch):
    source = replace(room.SOURCES["mnist"], address="http://127.0.0.1:9/")
    monkeypatch.setattr(room, "SOURCES", {"mnist": source})
    with pytest.raises(
        RankproofError, match=r"cannot be fetched \(.*\); put one\.gz, two\.gz into "
    ) as error:
        download("mnist", root)
    assert str(root / "mnist") in str(error.value)
    assert "\n" not in str(error.value)
    assert names(root / "mnist") == []


def test_a_root_that_is_a_file_is_an_error_in_one_line(published, root):
    root.write_text("in the way")
    with pytest.raises(RankproofError, match="cannot be fetched"):
        download("mnist", root)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(RankproofError, match="known are fashion-mnist, mnist"):
        download("imagenet", tmp_path)


def test_the_published_sets_are_recognised_without_a_network(real, real_data, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("nothing should be fetched")

    real("fashion-mnist"), real("mnist")
    monkeypatch.setattr(room, "urlopen", refuse)
    for name in ("fashion-mnist", "mnist"):
        assert download(name, real_data) == real_data / name
