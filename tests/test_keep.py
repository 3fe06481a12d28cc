"""`--size keep`: images of several sizes, each attacked at its own resolution."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import rankproof as rp
from rankproof.attacks import SearchOptions
from rankproof.attacks.mixed import MixedBatch, attack_mixed
from rankproof.cli import app
from rankproof.data import MixedDataset, MixedImages, load_queries
from rankproof.errors import RankproofError
from rankproof.models import Source
from rankproof.system import SystemOptions, load_task, open_system

SIDE = 12
ENCODER = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

def pooled():
    return network()

def fixed():
    return network(), {"size": 12, "mean": [0.5] * 3, "std": [0.25] * 3}

def flat():
    return nn.Flatten()
"""
# Height and width of each photo: two sizes several times, others once, strips of one pixel.
SIZES = [(16, 20), (9, 30), (16, 20), (20, 16), (1, 25), (9, 30), (16, 20), (13, 13), (40, 2), (16, 20)]
EPS = 8 / 255


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def told(result):
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def photo(key, height, width, channels=3):
    random = np.random.default_rng(key)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return random.integers(0, 256, shape, dtype=np.uint8)


def write(top, sizes, start=0, grey=()):
    for number, (height, width) in enumerate(sizes):
        path = top / f"{'abc'[number % 3]}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = 1 if number in grey else 3
        Image.fromarray(photo(start + number, height, width, channels)).save(path)
    return top


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = tmp_path_factory.mktemp("place")
    (top / "own.py").write_text(ENCODER)
    write(top / "mixed", SIZES, grey=(1,))
    write(top / "same", [(16, 20)] * 8)
    write(top / "uploads", [(30, 9), (16, 20), (30, 9)], start=100)
    return top


def options(**more):
    return SystemOptions(size="keep", split_by="none", **more)


@pytest.fixture(scope="module")
def mixed(place):
    return open_system(f"{place / 'own.py'}:fixed", str(place / "mixed"), options())


def by_hand(place):
    """Each photo as a file viewer has it, in the order of the folder: a, b, c."""
    files = sorted((place / "mixed").glob("*/*.png"))
    return [
        torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy()).permute(2, 0, 1)
        for file in files
    ]


# -- loading ----------------------------------------------------------------------------------------


def test_images_keep_their_size_and_order(place):
    data = rp.load(place / "mixed", split_by="none", size="keep")
    assert isinstance(data, MixedDataset)
    for image, expected in zip(data.images, by_hand(place), strict=True):
        assert torch.equal(image, expected)
    assert "10 images of 6 sizes from 1x25 to 20x16 (kept) in 3 classes" in data.note
    assert data.sha256 == rp.load(place / "mixed", split_by="none", size="keep").sha256


def test_images_of_one_size_are_a_tensor(place):
    kept, plain = (rp.load(place / "same", split_by="none", size=size) for size in ("keep", None))
    assert torch.equal(kept.images, plain.images)
    assert kept.note == plain.note
    assert kept.sha256 == plain.sha256


def test_images_of_several_sizes_are_no_tensor(place):
    with pytest.raises(RankproofError, match="its images have 6 sizes"):
        rp.load(place / "mixed", split_by="none", size="keep").one_size()


def test_groups_hold_one_size_and_cover_all():
    images = MixedImages(
        [torch.full((1, *size), number, dtype=torch.uint8) for number, size in enumerate(SIZES)]
    )
    groups = list(images.groups(640))
    assert [rows.tolist() for rows, _ in groups] == [[0, 2], [6, 9], [1, 5], [3], [4], [7], [8]]
    for rows, part in groups:
        assert part[:, 0, 0, 0].tolist() == rows.tolist()
    assert images.take(torch.tensor([8, 4])).shapes == ((1, 40, 2), (1, 1, 25))
    assert images.sample(4).shape[0] == 4


@pytest.mark.parametrize(
    "images",
    [
        [],
        [torch.zeros(2, 2, dtype=torch.uint8)],
        [torch.zeros(1, 2, 2)],
        [torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(3, 2, 2, dtype=torch.uint8)],
    ],
)
def test_what_is_no_list_of_images_is_refused(images):
    with pytest.raises(RankproofError, match="images: "):
        MixedImages(images)


# -- embedding --------------------------------------------------------------------------------------


def test_an_embedding_is_that_of_the_image_alone_resized_in_the_chain(place, mixed):
    spaces = {}
    exec(ENCODER, spaces)
    network, settings = spaces["fixed"]()
    chain = rp.Preprocess(resize=(SIDE, SIDE))
    alone = rp.Ranker(network, mean=settings["mean"], std=settings["std"], preprocess=chain)
    expected = torch.cat([alone.embed_all(image[None]) for image in by_hand(place)])
    assert torch.allclose(mixed.gallery.embeddings, expected, atol=1e-6)
    assert mixed.gallery.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (
        "stretched to 12x12 (bilinear) before the encoder, as what its own processor does is not known"
        in mixed.dataset.note
    )


def test_an_encoder_that_pools_takes_each_size(place):
    target = open_system(f"{place / 'own.py'}:pooled", str(place / "same"), options())
    assert any("reaches the encoder at its own size" in note for note in target.notes)
    gallery = rp.Gallery.build(
        target.gallery.ranker,
        MixedImages([torch.zeros(3, 9, 8, dtype=torch.uint8), torch.zeros(3, 12, 12, dtype=torch.uint8)]),
    )
    assert gallery.embeddings.shape == (2, 32)


def test_large_queries_of_one_size_pass_in_small_numbers(place):
    write(place / "large", [(700, 900)] * 2, start=200)
    task = load_task(f"{place / 'own.py'}:fixed", str(place / "mixed"), options(queries=str(place / "large")))
    assert task.ranker.chunk == 1
    task = load_task(f"{place / 'own.py'}:fixed", str(place / "mixed"), options())
    assert task.ranker.chunk == 500  # large images among others pass alone, see `passes_of`
    seen = []
    task.ranker.passes_of, real = (lambda count: seen.append(count) or real(count)), task.ranker.passes_of
    large = torch.zeros(3, 700, 900, dtype=torch.uint8)
    task.ranker.embed_all(MixedImages([large, large, large[:, :8, :8]]))
    assert seen == [1, 1, 500]


def test_an_encoder_that_does_not_pool_is_refused_in_one_line(place):
    with pytest.raises(RankproofError, match="this encoder does not pool"):
        open_system(f"{place / 'own.py'}:flat", str(place / "mixed"), options())


def test_the_encoders_own_processor_comes_first(place, monkeypatch):
    own = rp.Preprocess(resize=(SIDE, SIDE), jpeg=None)
    source = Source(encoder=nn.Flatten(), name="it", input=(3, SIDE, SIDE), preprocess=own)
    monkeypatch.setattr("rankproof.system.loading.open_encoder", lambda *given, **more: source)
    task = load_task("it", str(place / "mixed"), options())
    assert list(task.ranker.preprocess) == [own]
    assert any("passes the encoder's own Preprocess(resize=(12, 12)" in note for note in task.notes)
    asked = rp.Preprocess(resize=SIDE + 1, crop=SIDE)
    strips = [row for row, size in enumerate(SIZES) if min(size) == 1]
    assert strips  # of which a crop can be taken all the same, since they are enlarged first
    task = load_task("it", str(place / "mixed"), options(preprocess=asked))
    assert list(task.ranker.preprocess) == [asked]  # what the user says of the service counts
    jpeg = rp.Preprocess(jpeg=90)
    assert list(load_task("it", str(place / "mixed"), options(preprocess=jpeg)).ranker.preprocess) == [
        jpeg,
        own,
    ]


def test_a_chain_that_does_not_fit_the_encoder_is_refused(place):
    with pytest.raises(RankproofError, match="wants images of 3x12x12, those of 3x1x25 come out as 3x12x300"):
        open_system(
            f"{place / 'own.py'}:fixed", str(place / "mixed"), options(preprocess=rp.Preprocess(resize=12))
        )


# -- attacks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", [rp.QueryRaise(m=2), rp.CandidateLower(w=2), rp.Reorder(k=3)])
def test_an_attack_does_not_depend_on_the_sizes_beside_it(mixed, tmp_path, goal):
    method = rp.PGD(steps=4)
    rows = torch.arange(10)
    whole = attack_mixed(
        mixed.gallery,
        MixedBatch(images=mixed.dataset.images, gallery_ids=rows, save=tmp_path),
        goal,
        rp.Threat(EPS),
        method=method,
    )
    assert len(whole) == 10
    assert whole.gallery_ids.tolist() == rows.tolist()
    for row in (0, 4, 8, 9):
        alone = rp.attack(
            mixed.gallery,
            mixed.dataset.images[row][None],
            goal,
            rp.Threat(EPS),
            method=method,
            gallery_ids=rows[row, None],
        )
        assert torch.equal(alone.targets[0], whole.targets[row])
        assert torch.allclose(alone.headline()[0].double(), whole.headline()[row].double(), atol=1e-6)
    saved = {}
    for folder in tmp_path.iterdir():
        with np.load(folder / "attack.npz") as stored:
            assert folder.name == "x".join(map(str, stored["original"].shape[2:]))
            assert np.abs(stored["adversarial"] - stored["original"]).max() <= EPS + 1e-6
            saved |= dict(zip(stored["row"].tolist(), stored["original"], strict=True))
    for row in range(10):
        assert np.array_equal(saved[row], mixed.dataset.images[row].numpy().astype(np.float32) / 255)


def test_one_size_in_a_mixed_list_is_the_attack_on_a_tensor(place):
    target = open_system(f"{place / 'own.py'}:fixed", str(place / "same"), options())
    images = target.dataset.images
    for ids in (torch.arange(8), None):
        plain = rp.attack(target.gallery, images, rp.QueryRaise(m=1), rp.Threat(EPS), gallery_ids=ids)
        listed = attack_mixed(
            target.gallery,
            MixedBatch(images=MixedImages(list(images)), gallery_ids=ids),
            rp.QueryRaise(m=1),
            rp.Threat(EPS),
        )
        assert torch.equal(plain.rank_after, listed.rank_after)
        assert plain.summary.ci95 == listed.summary.ci95


def test_a_black_box_attacks_every_size(mixed):
    oracle, goal, few = rp.LocalOracle(mixed.gallery, visible=8), rp.Reorder(k=2), 12
    options = SearchOptions(budget=few)
    ids = torch.arange(10)
    whole = attack_mixed(
        oracle, MixedBatch(images=mixed.dataset.images, gallery_ids=ids), goal, rp.Threat(EPS), search=options
    )
    alone = rp.attack(
        oracle, mixed.dataset.images[4][None], goal, rp.Threat(EPS), budget=few, gallery_ids=ids[4:5]
    )
    assert torch.equal(whole.targets[4], alone.targets[0])
    assert whole.tau[4] == alone.tau[0]
    assert whole.log.scores.shape == (10, few)


def test_a_later_run_leaves_nothing_of_an_earlier_one(mixed, tmp_path):
    (tmp_path / "notes").mkdir()
    for rows in ([0, 4], [8]):
        images = mixed.dataset.take(torch.tensor(rows))
        batch = MixedBatch(images=images, save=tmp_path)
        attack_mixed(mixed.gallery, batch, rp.QueryRaise(m=1), rp.Threat(0.0))
    saved = {path.parent.name for path in tmp_path.glob("*/attack.npz")}
    assert saved == {"x".join(map(str, images.shapes[0][1:]))}


def test_a_shared_perturbation_has_one_size(mixed):
    with pytest.raises(RankproofError, match="shared perturbation has one size"):
        attack_mixed(
            mixed.gallery,
            MixedBatch(images=mixed.dataset.images),
            rp.QueryRaise(m=1),
            rp.Threat(EPS, shared=True),
        )


def test_the_score_of_several_sizes_is_that_of_one(place):
    target = open_system(f"{place / 'own.py'}:fixed", str(place / "same"), options())
    images, method = target.dataset.images, rp.PGD(steps=2)
    plain = rp.robustness_score(target.gallery, images, trials=3, method=method)
    listed = rp.robustness_score(target.gallery, MixedImages(list(images)), trials=3, method=method)
    for name, values in plain.values.items():
        assert torch.equal(values, listed.values[name])
    assert listed.eps == plain.eps == 77 / 255


# -- commands ---------------------------------------------------------------------------------------


def words(place, *more, data="mixed"):
    return "--model", f"{place / 'own.py'}:fixed", "--data", place / data, "--divide", "none", *more


def test_saved_images_have_the_same_ranks_after_a_png(place, mixed, tmp_path):
    found = told(
        call(
            "attack",
            *words(
                place,
                "--size",
                "keep",
                "--goal",
                "qa+",
                "--eps",
                "8/255",
                "--grid",
                "--json",
                "--save",
                tmp_path / "out",
            ),
        )
    )
    assert found["trials"] == 10
    whole = rp.AttackResult.load(tmp_path / "out")
    assert found["rank_after"] == pytest.approx(float(whole.rank_after.mean()))
    assert whole.original.shape == (10, 3, 0, 0)
    files = [None] * 10
    for folder in (tmp_path / "out").glob("*x*"):
        with np.load(folder / "attack.npz") as stored:
            for row, pixels in zip(stored["row"], stored["adversarial"], strict=True):
                files[row] = tmp_path / "png" / f"{row:02}.png"
                files[row].parent.mkdir(exist_ok=True)
                Image.fromarray(np.rint(pixels * 255).astype(np.uint8).transpose(1, 2, 0)).save(files[row])
    uploads = load_queries(tmp_path / "png", mixed.dataset)
    z = mixed.gallery.ranker.embed_all(uploads.images)
    ranks = 100 * mixed.gallery.rank_of(z, whole.targets).double() / len(mixed.gallery)
    assert torch.allclose(ranks, whole.rank_after.double())


def test_queries_of_other_sizes_than_the_gallery(place):
    found = told(
        call(
            "attack",
            *words(
                place,
                "--size",
                "keep",
                "--queries",
                place / "uploads",
                "--goal",
                "qa+",
                "--eps",
                "8/255",
                "--json",
            ),
        )
    )
    assert found["trials"] == 3
    found = told(
        call(
            "evaluate",
            *words(
                place,
                "--size",
                "keep",
                "--queries",
                place / "uploads",
                "--no-robustness",
                "--json",
                data="same",
            ),
        )
    )
    assert found["queries"] == 3


def test_evaluate_attacks_every_size(place):
    write(place / "two", [(16, 20), (13, 13)] * 4)
    command = "evaluate", *words(place, "--size", "keep", "--trials", 8, "--eps", "0", "--json", data="two")
    found = told(call(*command))
    assert found["trials"] == 8
    assert found["ers_terms"]["shift"] == pytest.approx(100)


def test_saving_images_of_one_size_leaves_none_of_several(place, tmp_path):
    more = "--goal", "qa+", "--eps", "0", "--trials", 2, "--save", tmp_path
    assert call("attack", *words(place, "--size", "keep", *more)).exit_code == 0
    assert list(tmp_path.glob("*x*/attack.npz"))
    assert call("attack", *words(place, *more, data="same")).exit_code == 0
    assert [file.parent for file in tmp_path.glob("**/attack.npz")] == [tmp_path]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("audit", "--size", "keep", "--eps", "1/255", "--out", "report"), "its images have 6 sizes"),
        (("serve", "--size", "keep"), "--size keep: a service gives uploads the size of its gallery"),
    ],
)
def test_what_needs_one_size_says_so_in_one_line(place, tmp_path, monkeypatch, command, reason):
    monkeypatch.chdir(tmp_path)
    name, *more = command
    result = call(name, *words(place, *more))
    (error,) = result.stderr.splitlines()  # and nothing before it: nothing was embedded
    assert error.startswith("error: ")
    assert reason in error
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("more", "told_so"), [(["3.5/255"], True), (["3.5/255", "--grid"], False), (["3/255"], False)]
)
def test_a_budget_that_a_saved_image_exceeds_is_told(place, more, told_so):
    few = "--goal", "qa+", "--trials", 1, "--steps", 1, "--json", "--eps"
    notes = told(call("attack", *words(place, "--size", "keep", *few, *more)))["notes"]
    assert any("images differ by up to 4/255; --grid stays" in note for note in notes) == told_so


def test_a_size_that_is_none_is_refused(place):
    result = call("attack", *words(place, "--size", "own", "--goal", "qa+", "--eps", "1/255"))
    assert result.exit_code == 2
    assert "'own' is no side in pixels" in result.stderr
