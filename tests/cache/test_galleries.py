"""Kept galleries: used where they are right, never where anything is another, and made again when damaged."""

import errno
import multiprocessing
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from rankproof import Gallery, GalleryCache, Ranker, RankproofError
from rankproof.cache.tensor_file import decoded, encoded

COUNT = 24


class Counting(nn.Module):
    """Counts the images that pass it, outside of itself: nothing about it changes."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("shift", torch.zeros(5), persistent=False)
        self.scale = scale

    def forward(self, images):
        count(len(images))
        return images.flatten(1) @ self.weight.T * self.scale + self.shift


class Counter:
    total = 0

    def __reduce__(self):
        return (Counter, ())

    def __rankproof_state__(self):
        return []


COUNTER = Counter()


def count(images):
    COUNTER.total += images


@pytest.fixture
def images():
    return torch.rand(COUNT, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said):
    return GalleryCache(tmp_path / "kept", log=said.append)


def ranker(encoder=None, distance="cosine", **options):
    return Ranker(Counting() if encoder is None else encoder, distance, **{"chunk": 10, **options})


def passed(build, *given):
    """What a cache builds, and how many images passed the encoder for it."""
    before = COUNTER.total
    gallery = build(*given)
    return gallery, COUNTER.total - before


def only_file(cache):
    (kept,) = cache.list()
    return cache.folder.file(kept.key)


def test_a_second_gallery_embeds_eight_items_and_is_the_first_to_the_bit(cache, images, said):
    labels = torch.arange(COUNT) % 3
    first, whole = passed(cache.build, ranker(), images, labels)
    second, tried = passed(cache.build, ranker(), images, labels)
    assert whole > COUNT
    assert tried == 8 + 1  # one for the gradient
    plain = Gallery.build(ranker(), images, labels)
    for gallery in (first, second):
        assert torch.equal(gallery.embeddings, plain.embeddings)
        assert torch.equal(gallery.labels, labels)
        assert torch.equal(gallery.images, images)
        assert gallery.ranker.examination == plain.ranker.examination
    assert not said


def changed_pixel(images):
    images = images.clone()
    images[7, 0, 1, 2] += 1e-6
    return images


def moved(buffer):
    encoder = Counting()
    encoder.shift += buffer
    return encoder


def shifted(images):
    return images + 1e-6


def other(images):
    return images + 2e-6


def one_weight():
    encoder = Counting()
    with torch.no_grad():
        encoder.weight[2, 3] += 1e-6
    return encoder


OTHERS = {
    "one pixel": lambda x: (ranker(), changed_pixel(x)),
    "the order": lambda x: (ranker(), x.flip(0)),
    "fewer": lambda x: (ranker(), x[:-1]),
    "8 bits": lambda x: (ranker(), (x * 255).byte()),
    "another precision of pixels": lambda x: (ranker(), x.double()),
    "one weight": lambda x: (ranker(one_weight()), x),
    "a non-persistent buffer": lambda x: (ranker(moved(1e-6)), x),
    "a float": lambda x: (ranker(Counting(1 + 1e-6)), x),
    "mean": lambda x: (ranker(mean=[0.1]), x),
    "std": lambda x: (ranker(std=[0.5]), x),
    "preprocess": lambda x: (ranker(preprocess=shifted), x),
    "another preprocess": lambda x: (ranker(preprocess=other), x),
    "the distance": lambda x: (ranker(distance="euclidean"), x),
    "draws": lambda x: (ranker(draws=2), x),
    "chunk 1": lambda x: (ranker(chunk=1), x),
    "chunk 500": lambda x: (ranker(chunk=500), x),
    "precision": lambda x: (ranker(Counting().double()), x),
    "half precision": lambda x: (ranker(Counting().bfloat16()), x),
}


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_is_another_is_embedded(cache, images, name, said):
    cache.build(ranker(), images)
    asked, pixels = OTHERS[name](images)
    gallery, count = passed(cache.build, asked, pixels)
    assert count > len(pixels)
    assert torch.equal(gallery.embeddings, Gallery.build(asked, pixels).embeddings)
    assert len(cache.list()) == 2
    assert not said


def test_settings_of_torch_that_change_embeddings_count(cache, images):
    cache.build(ranker(), images)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert passed(cache.build, ranker(), images)[1] > COUNT
    finally:
        torch.set_float32_matmul_precision(before)


def test_labels_are_those_that_are_given(cache, images):
    first, second = torch.arange(COUNT) % 3, torch.arange(COUNT) % 4
    cache.build(ranker(), images, first)
    assert torch.equal(cache.build(ranker(), images, second.tolist()).labels, second)
    assert cache.build(ranker(), images).labels is None
    with pytest.raises(RankproofError, match="labels"):
        cache.build(ranker(), images, second[:-1])


class FromFile(nn.Module):
    """Reads a number from a file at each pass: what no key can see."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, images):
        with open(self.path) as file:
            return images.flatten(1).pow(float(file.read()))


def test_what_no_key_sees_is_found_by_items_embedded_again(cache, images, tmp_path, said):
    file = tmp_path / "power.txt"
    file.write_text("1")
    cache.build(ranker(FromFile(str(file))), images)
    file.write_text("1.01")
    gallery = cache.build(asked := ranker(FromFile(str(file))), images)
    assert torch.equal(gallery.embeddings, images.flatten(1).pow(1.01))
    assert "is not that of this encoder any more" in said[0]
    assert len(said) == 1
    assert asked.examination == Gallery.build(ranker(FromFile(str(file))), images).ranker.examination
    said.clear()
    cache.build(ranker(FromFile(str(file))), images)
    assert not said  # kept anew
    file.write_text("no number")
    with pytest.raises(RankproofError, match="no number"):
        cache.build(ranker(FromFile(str(file))), images)


def flipped(content):
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def other_examination(content):
    return content.replace(rb"\"images\": 8", rb"\"images\": 9")


DAMAGES = {
    "a flipped bit": flipped,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"not a file of tensors",
    "its head": lambda content: content[:8] + b"x" + content[9:],
    "its length": lambda content: b"\xff" * 8 + content[8:],
    "another examination": other_examination,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_made_again(cache, images, name, said):
    first = cache.build(ranker(), images)
    file = only_file(cache)
    content = file.read_bytes()
    damaged = DAMAGES[name](content)
    assert damaged != content
    file.write_bytes(damaged)
    gallery, count = passed(cache.build, ranker(), images)
    assert count > COUNT
    assert torch.equal(gallery.embeddings, first.embeddings)
    assert len(said) == 1
    assert "damaged" in said[0]
    assert passed(cache.build, ranker(), images)[1] == 8 + 1


def test_a_file_of_another_key_is_not_taken(cache, images, said):
    cache.build(ranker(), images)
    file = only_file(cache)
    content = file.read_bytes()
    cache.clear()
    cache.build(ranker(mean=[0.1]), images)
    only_file(cache).write_bytes(content)
    assert passed(cache.build, ranker(mean=[0.1]), images)[1] > COUNT
    assert "damaged" in said[0]


def test_a_full_disk_is_one_line(cache, images, said, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    first = cache.build(ranker(), images)
    cache.build(ranker(), images.flip(0))
    assert torch.equal(first.embeddings, Gallery.build(ranker(), images).embeddings)
    assert len(said) == 1  # of all files
    assert "No space left on device" in said[0]
    assert not list(cache.folder.path.iterdir())


@pytest.mark.parametrize("folder", ["a file", "read-only"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, images, said, monkeypatch, folder):
    if folder == "a file":
        (tmp_path / "kept").write_text("")
    else:

        def refuse(*args, **options):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr("rankproof.io.tempfile.mkstemp", refuse)
    cache = GalleryCache(tmp_path / "kept", log=said.append)
    for _ in range(2):
        assert len(cache.build(ranker(), images)) == COUNT
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_what_cannot_be_read_is_not_kept_and_says_so(cache, images, said):
    held = (entry for entry in [1])
    gallery = cache.build(ranker(lambda x: x.flatten(1) if held else x, name="mine"), images)
    assert len(gallery) == COUNT
    assert said == ["mine: its gallery is not kept on disk, since a value of type generator cannot be read"]
    assert not cache.list()


@pytest.mark.parametrize("effect", [1.0, 0.0])
def test_a_random_encoder_is_not_kept(cache, images, effect):
    cache.build(ranker(lambda x: x.flatten(1) + effect * torch.rand(1)), images)
    assert not cache.list()


def test_an_examined_ranker_keeps_its_examination(cache, images):
    cache.build(ranker(), images)
    asked = ranker()
    asked.begin(images)
    asked.examination = mine = replace(asked.examination, repeat=1e-9)
    assert passed(cache.build, asked, images)[1] == 8
    assert asked.examination == mine


class TwoTypes(nn.Module):
    """Weights in double precision first, but pixels in bfloat16."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.linear = nn.Linear(16, 4).bfloat16()
        with torch.no_grad():
            self.linear.weight.copy_(torch.arange(64).view(4, 16) / 64)
            self.linear.bias.zero_()

    def forward(self, images):
        return self.linear(images.flatten(1))


def test_the_precision_that_was_settled_is_taken_over(cache, images, said):
    first = cache.build(ranker(TwoTypes(), "euclidean"), images)
    asked = ranker(TwoTypes(), "euclidean")
    second = cache.build(asked, images)
    assert len(cache.list()) == 1
    assert asked.examination.dtype == "bfloat16"
    assert torch.equal(first.embeddings, second.embeddings)
    assert torch.equal(asked.embed_all(images), first.embeddings)
    assert not said


@pytest.mark.parametrize("count", [2, 7, 8, 9])
def test_small_galleries(cache, images, count, said):
    first = cache.build(ranker(), images[:count])
    assert torch.equal(cache.build(ranker(), images[:count]).embeddings, first.embeddings)
    assert not said
    with pytest.raises(RankproofError, match="at least 2 items"):
        cache.build(ranker(), images[:1])


def test_the_least_recently_used_go_first(cache, images, said):
    def build(mean, used):
        before = {each.key for each in cache.list()}
        cache.build(ranker(mean=[mean]), images)
        key = next(each.key for each in cache.list() if mean == 0 or each.key not in before)
        os.utime(cache.folder.file(key), (used, used))
        return key

    first = build(0.0, used=1)
    cache.folder = replace(cache.folder, size=3 * cache.list()[0].bytes + 10)
    second, third = build(0.1, used=2), build(0.2, used=3)
    os.utime(cache.folder.file(first), (1, 1))
    cache.build(ranker(mean=[0.0]), images)  # used again: the second is now the oldest
    fourth = build(0.3, used=4)
    assert second not in (found := {each.key for each in cache.list()})
    assert found == {first, third, fourth}
    assert not said


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path, images, said):
    cache = GalleryCache(tmp_path / "kept", 100, said.append)
    cache.build(ranker(), images)
    assert not cache.list()
    assert "RANKPROOF_CACHE_SIZE" in said[0]


def test_a_list_and_what_is_cleared(cache, images):
    cache.build(ranker(name="mine"), images)
    cache.build(ranker(mean=[0.1], name="other"), images)
    only = cache.list()
    assert {(each.model, each.items, each.dimensions) for each in only} == {("mine", 24, 5), ("other", 24, 5)}
    with pytest.raises(RankproofError, match="no key begins"):
        cache.clear("x")
    with pytest.raises(RankproofError, match="2 keys begin"):
        cache.clear("")
    assert cache.clear(only[0].key[:8]) == only[0].bytes
    assert [each.key for each in cache.list()] == [only[1].key]
    cache.folder.file(only[1].key).write_bytes(b"")
    assert cache.list()[0].items == 0
    (cache.folder.path / "notes.safetensors").write_text("not ours")
    cache.clear()
    assert not cache.list()
    assert (cache.folder.path / "notes.safetensors").exists()


def build_elsewhere(folder, barrier, results):
    torch.set_num_threads(1)
    images = torch.rand(COUNT, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    cache = GalleryCache(folder, log=lambda text: results.put(text))
    barrier.wait()
    for _ in range(5):
        gallery = cache.build(ranker(), images)
        cache.clear()
    results.put(gallery.embeddings.double().sum().item())


def test_two_processes_at_once(tmp_path, images):
    """Both build, read and remove the same gallery again and again."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=build_elsewhere, args=(tmp_path / "kept", barrier, results)) for _ in range(2)
    ]
    for process in both:
        process.start()
    found = [results.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    expected = Gallery.build(ranker(), images).embeddings.double().sum().item()
    assert found == [expected, expected]


class Switched(Counting):
    """Lets no gradient through where something outside of it, which no key sees, says so."""

    def forward(self, images):
        z = super().forward(images)
        return z.detach() if os.environ.get("RANKPROOF_TEST_DETACH") else z


def test_a_gradient_that_vanished_is_found_out(cache, images, monkeypatch):
    cache.build(ranker(Switched()), images)
    monkeypatch.setenv("RANKPROOF_TEST_DETACH", "1")
    gallery, count = passed(cache.build, ranker(Switched()), images)
    assert count < COUNT
    assert gallery.ranker.examination.gradient == "none"


def test_kept_embeddings_of_another_form_are_damaged(cache, images, said):
    cache.build(ranker(), images)
    file = only_file(cache)
    tensors, metadata = decoded(file.read_bytes())
    for other in (
        tensors["embeddings"][:, :4],
        tensors["embeddings"].double(),
        tensors["embeddings"][..., None],
    ):
        file.write_bytes(encoded({**tensors, "embeddings": other}, metadata))
        assert cache.build(ranker(), images).embeddings.shape == (COUNT, 5)
    assert "damaged" in said[0]


def test_a_file_of_one_number_is_listed_as_damaged(cache, images):
    cache.build(ranker(), images)
    file = only_file(cache)
    file.write_bytes(encoded({"embeddings": torch.tensor(1.0)}, {"key": file.stem}))
    assert [each.kind for each in cache.list()] == ["damaged"]
