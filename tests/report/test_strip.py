import pytest
import torch
from torch.nn import functional

from rankproof import (
    CandidateLower,
    CandidateRaise,
    Gallery,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    Reorder,
    Threat,
    attack,
)
from rankproof.report.strip import order_strip, strip_of

EPS = 0.1
ROW = torch.tensor([7])
CLASSES = ("boot", "bag", "coat")


@pytest.fixture(params=[torch.float32, torch.float64], ids=["single", "double"])
def gallery(request, make):
    """60 images, each named by its own position in pixel 0."""
    ranker = make.ranker()
    pictures = make.images(60)
    pictures[:, 0, 0, 0] = torch.arange(60) / 255
    ranker = Ranker(ranker.encoder.to(request.param), "cosine")
    return Gallery.build(ranker, pictures.to(request.param), torch.arange(60) % 3)


def strip(gallery, goal, row=ROW, **options):
    result = attack(gallery, gallery.images[row], goal, Threat(EPS), gallery_ids=row, **options)
    return result, strip_of(result, gallery, CLASSES)


def item(tile):
    return round(float(tile.image[0, 0, 0]) * 255)


def places(gallery, image):
    """The whole ranking of a query in double precision, by hand."""
    with torch.no_grad():
        z = gallery.ranker.embed(image[None].to(gallery.embeddings)).double()
    distances = 1 - functional.cosine_similarity(gallery.embeddings.double(), z)
    return distances.argsort(stable=True).tolist()


@pytest.mark.parametrize(
    "goal",
    [QueryRaise(m=2), QueryLower(), QueryRaise() + 1.0 * Preserve(g=3), Reorder(k=4)],
    ids=["qa+", "qa-", "sp-qa+", "oa"],
)
def test_query_strips_show_the_ranking_and_the_chosen_at_their_true_ranks(gallery, goal):
    result, shown = strip(gallery, goal)
    chosen = set(result.targets[0].tolist())
    for tiles, image in ((shown.before, result.original[0]), (shown.after, result.adversarial[0])):
        order = places(gallery, image)
        ranks = [tile.rank for tile in tiles]
        assert ranks == sorted(set(ranks))
        assert ranks[:6] == list(range(6))
        assert [item(tile) for tile in tiles] == [order[rank] for rank in ranks]
        assert {item(tile) for tile in tiles if tile.chosen} == chosen
        assert [tile.label for tile in tiles] == [CLASSES[item(tile) % 3] for tile in tiles]
        for target in chosen:  # its neighbours on both sides are there
            place = order.index(target)
            assert {max(0, place - 1), place, min(59, place + 1)} <= set(ranks)
        assert not any(tile.attacked for tile in tiles)
    assert shown.query is None
    torch.testing.assert_close(shown.original, result.original[0].float())
    torch.testing.assert_close(shown.adversarial, result.adversarial[0].float())
    assert (shown.goal, shown.eps) == (result.goal, EPS)


@pytest.mark.parametrize("row", [3, 7, 19, 40])
def test_ranks_of_a_strip_are_those_of_the_verdict(gallery, row):
    result, shown = strip(gallery, QueryRaise(), torch.tensor([row]))
    for tiles, figure in ((shown.before, result.rank_before), (shown.after, result.rank_after)):
        (rank,) = [tile.rank for tile in tiles if tile.chosen]
        assert rank == round(float(figure[0, 0]) * 60 / 100)


@pytest.mark.parametrize("row", [3, 7, 19, 40])
@pytest.mark.parametrize("goal", [CandidateRaise(), CandidateLower()], ids=["ca+", "ca-"])
def test_candidate_strips_show_the_candidate_itself_at_its_rank(gallery, goal, row):
    result, shown = strip(gallery, goal, torch.tensor([row]))
    query = int(result.targets[0, 0])
    order = places(gallery, gallery.images[query])
    images = (result.original[0], result.adversarial[0])
    figures = (result.rank_before, result.rank_after)
    for tiles, image, figure, attacked in zip(
        (shown.before, shown.after), images, figures, (False, True), strict=True
    ):
        (own,) = [tile for tile in tiles if tile.chosen]
        assert own.rank == round(float(figure[0, 0]) * 60 / 100)
        assert own.attacked is attacked
        assert own.label == CLASSES[row % 3]  # the item's own class
        torch.testing.assert_close(own.image, image.float())
        assert not any(tile.attacked for tile in tiles if tile is not own)
        ranks = [tile.rank for tile in tiles]
        assert ranks == sorted(set(ranks))
        assert ranks[:6] == list(range(6))
        for tile in tiles:  # everything behind the candidate stands one place further back
            if tile is not own:
                assert item(tile) == order[tile.rank - (tile.rank > own.rank)]
    torch.testing.assert_close(shown.query, gallery.images[query].float())


def test_a_candidate_at_the_very_end_is_shown(gallery):
    farthest = places(gallery, gallery.images[0])[-1]
    targets = torch.tensor([[0]])
    result, shown = strip(gallery, CandidateLower(form="distance"), torch.tensor([farthest]), targets=targets)
    assert float(result.rank_after[0, 0]) == 100  # behind all 60, its own clean copy included
    assert shown.after[-1].chosen
    assert shown.after[-1].rank == 60


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (QueryRaise(), "changed the query and wanted the marked item to rise to the top."),
        (QueryRaise(form="distance"), "rise to the top"),
        (QueryLower(), "sink to the end."),
        (QueryLower(form="distance"), "sink to the end."),
        (QueryLower() + 1.0 * Preserve(g=3), "sink to the end while the other top results stay"),
        (CandidateRaise(), "changed the marked item itself and wanted it to rise to the top"),
        (CandidateLower(form="distance"), "changed the marked item itself and wanted it to sink"),
        (Reorder(k=3), "in another order"),
    ],
)
def test_what_the_attacker_wanted_in_words(gallery, goal, words):
    assert words in strip(gallery, goal)[1].wanted


def black_box_strip(gallery, adversarial, targets, visible=10):
    return order_strip(
        gallery.images[7],
        adversarial,
        torch.tensor(targets),
        gallery,
        eps=EPS,
        visible=visible,
        budget=1000,
    )


def test_a_black_box_strip_shows_the_chosen_before_as_wanted_and_after(gallery):
    before, after = (places(gallery, gallery.images[row]) for row in (7, 30))
    targets = [before[place] for place in (2, 0, 1)]
    shown = black_box_strip(gallery, gallery.images[30], targets, visible=20)
    assert [(tile.rank, item(tile), tile.mark) for tile in shown.before] == [
        (0, targets[1], "B"),
        (1, targets[2], "C"),
        (2, targets[0], "A"),
    ]
    assert [(tile.rank, item(tile), tile.mark) for tile in shown.order] == [
        (rank, target, mark) for rank, (target, mark) in enumerate(zip(targets, "ABC", strict=True))
    ]
    own = sorted((after.index(target), target) for target in targets)
    assert [(tile.rank, item(tile)) for tile in shown.after] == own
    assert [tile.mark for tile in shown.after] == ["ABC"[targets.index(target)] for _, target in own]
    assert all(tile.chosen for tile in (*shown.before, *shown.order, *shown.after))
    assert (shown.visible, shown.budget, shown.goal, shown.eps) == (20, 1000, "oa", EPS)


def test_what_a_black_box_shows_no_longer_is_marked_and_counts_as_lost(gallery):
    before, after = (places(gallery, gallery.images[row]) for row in (7, 30))
    far = max(before[:5], key=after.index)
    assert after.index(far) > 0
    shown = black_box_strip(gallery, gallery.images[30], [far, before[5]], visible=after.index(far))
    assert [item(tile) for tile in shown.after if tile.unseen] == [
        target for target in [far, before[5]] if after.index(target) >= after.index(far)
    ]
    assert not any(tile.unseen for tile in shown.order)
    assert "to −1.00." in shown.wanted
    assert "to 1.00." in black_box_strip(gallery, gallery.images[7], before[:3]).wanted
    assert "order A\N{NO-BREAK SPACE}B\N{NO-BREAK SPACE}C, drawn" in (
        black_box_strip(gallery, gallery.images[7], before[:3]).wanted
    )


def test_no_strip_without_pictures_and_none_of_a_shift(gallery):
    bare = Gallery(gallery.ranker, gallery.embeddings)
    result = attack(bare, gallery.images[ROW], QueryRaise(), Threat(EPS), gallery_ids=ROW)
    assert strip_of(result, bare) is None
    picture, chosen = gallery.images[7], torch.tensor([1, 2])
    assert order_strip(picture, picture, chosen, bare, eps=EPS, visible=9, budget=9) is None
    assert strip(gallery, MaxShift())[1] is None


def test_8_bit_pictures_and_missing_classes(gallery):
    eight = (gallery.images * 255).round().to(torch.uint8)
    coarse = Gallery(gallery.ranker, gallery.embeddings, None, eight)
    result = attack(coarse, eight[ROW], QueryRaise(), Threat(EPS), gallery_ids=ROW)
    tiles = strip_of(result, coarse, CLASSES).before
    for tile in tiles:
        assert tile.label is None
        torch.testing.assert_close(tile.image, eight[item(tile)].float() / 255)
