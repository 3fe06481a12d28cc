"""What has to come true, against plain loops over sorted lists."""

import pytest
import torch

from rankproof import (
    CandidateLower,
    CandidateRaise,
    Gallery,
    LeaveTop,
    MaxShift,
    Mismatch,
    Misrank,
    NearestOther,
    Preserve,
    QueryLower,
    QueryRaise,
    RankproofError,
    Reorder,
    WrongFirst,
)
from rankproof.goals import AttackContext, registry
from rankproof.goals.wish import sight

FIRST, N = 4, 20
GOALS = {
    "qa+": QueryRaise(m=2),
    "qa-": QueryLower(m=1),
    "sp-qa+": QueryRaise(m=1) + 1.0 * Preserve(g=3),
    "ca+": CandidateRaise(w=2),
    "ca-": CandidateLower(w=1),
    "oa": Reorder(k=3, sight=5),
    "mismatch": Mismatch(),
    "nearest-other": NearestOther(),
    "top4": LeaveTop(),
    "misrank": Misrank(),
    "wrong-first": WrongFirst(),
}


def distance(a, b):
    return float(((a - b) ** 2).sum())


def places(gallery, query, left_out):
    """Each item's place in the returned list; equally far ones in gallery order."""
    items = [item for item in range(len(gallery)) if item != left_out]
    items.sort(key=lambda item: (distance(query, gallery.embeddings[item]), item))
    return {item: place for place, item in enumerate(items)}


def whole(seed, count, duplicates, make):
    """A gallery of whole numbers, whose ties are exact, with classes."""
    spread = 3 if duplicates else 40
    embeddings = torch.randint(-spread, spread + 1, (count, 2), generator=make.random(seed)).double()
    return Gallery(make.ranker("euclidean", 2), embeddings, torch.arange(count) % 3)


def expected(name, gallery, bound, i, z, own):
    """Whether the wish of attack i holds at an embedding, by its definition."""
    labels, mine = gallery.labels.tolist(), None if own is None else int(own[i])
    targets, kept = bound.targets[i].tolist(), bound.preserved[i].tolist()
    if name in ("ca+", "ca-"):
        ranks = []
        for query in targets:
            others = [item for item in range(len(gallery)) if item != mine]
            here = distance(gallery.embeddings[query], z)
            nearer = [x for x in others if distance(gallery.embeddings[query], gallery.embeddings[x]) < here]
            ranks.append(len(nearer))
        return all(rank < FIRST for rank in ranks) if name == "ca+" else all(rank >= 10 for rank in ranks)
    place = places(gallery, z, mine)
    match name:
        case "qa+":
            return all(place.get(c, 99) < FIRST for c in targets)
        case "qa-":
            return all(place[c] >= 20 for c in targets)
        case "sp-qa+":
            return all(place.get(c, 99) < FIRST for c in targets) and all(place[c] < 6 for c in kept)
        case "oa":
            order = [place[c] for c in targets]
            return order == sorted(order) and max(order) < 5
        case "mismatch" | "nearest-other":
            return place[targets[0]] == 0
        case "top4":
            return place[targets[0]] >= 4
        case "misrank":
            return place[targets[0]] < place[targets[1]]
        case _:
            first = next(item for item, at in place.items() if at == 0)
            return labels[first] != labels[mine] if mine is not None else first != targets[0]


@pytest.mark.parametrize(("seed", "duplicates", "own"), [(0, True, True), (1, True, False), (2, False, True)])
@pytest.mark.parametrize("name", GOALS)
def test_a_wish_holds_where_the_loop_says_so(make, name, seed, duplicates, own):
    gallery = whole(seed, 30, duplicates, make)
    ids = torch.randint(30, (4,), generator=make.random(seed + 1))
    if not own and name in ("nearest-other", "misrank"):
        own = True  # they need to know the classes
    goal = GOALS[name]
    context = AttackContext(
        gallery=gallery,
        clean=gallery.embeddings[ids],
        rng_keys=ids.tolist(),
        seed=seed,
        gallery_ids=ids if own else None,
        exclude_self=own,
    )
    targets = None
    if own and name in ("qa+", "qa-", "sp-qa+"):  # the own copy itself has no place
        targets = torch.stack([(ids + step) % 30 for step in range(1, goal.parameters["m"] + 1)], dim=1)
    bound = goal.bind(AttackContext(**(vars(context) | {"targets": targets})))
    wish = goal.wish(bound, FIRST)
    for step in range(6):  # near the targets, so that some wishes hold
        z = torch.randint(-3, 4, (4, 2), generator=make.random(seed + step)).double()
        z = z + (gallery.embeddings[bound.targets[:, 0]] if step % 2 else 0)
        found = wish.reached(z).tolist()
        assert found == [expected(name, gallery, bound, i, z[i], ids if own else None) for i in range(4)]
        margin = wish.evaluate(z)
        torch.testing.assert_close(margin.fitness, -margin.loss)
        sure = margin.loss.abs() > 1e-9  # elsewhere gallery order decides
        assert ((margin.loss < 0) == torch.tensor(found))[sure].all()
        torch.testing.assert_close(wish.towards(z).fitness, margin.fitness)


@pytest.mark.parametrize(("pool", "places"), [(1, 10), (10, 10), (11, 20), (50, 50), (99, 100), (101, 101)])
def test_n_is_the_first_page_that_holds_the_pool(pool, places):
    assert sight(pool) == places


def test_every_audited_goal_but_shift_has_a_wish_with_a_sentence(make):
    values = {"w": 1, "m": 1, "k": 5, "g": 5, "xi": 1.0, "first": 10, "places": 20}
    for name in registry.names():
        spec = registry.spec(name)
        assert (spec.wish is None) == (name == "shift")
        if spec.wish is not None:
            sentence = spec.wish(values)
            assert sentence[0].islower()
            assert not sentence.endswith(".")
    gallery = make.gallery()
    context = AttackContext(gallery=gallery, clean=gallery.embeddings[:1], rng_keys=[0], seed=0)
    assert MaxShift().wish(MaxShift().bind(context), 10) is None


def test_wrong_first_needs_no_classes(make):
    gallery = make.raw("euclidean", torch.tensor([[0.0], [1.0], [3.0], [9.0]]).double())
    ids = torch.tensor([0])
    context = AttackContext(
        gallery=gallery,
        clean=gallery.embeddings[:1],
        rng_keys=[0],
        seed=0,
        gallery_ids=ids,
        exclude_self=True,
    )
    bound = WrongFirst().bind(context)
    assert bound.targets.tolist() == [[1]]
    for z, right in ((0.0, 1.0), (1.9, 1.0), (2.1, 0.0)):
        assert bound.metrics(torch.tensor([[z]]).double())["hit"].tolist() == [right]
    assert bound.evaluate(torch.tensor([[2.5]]).double()).loss.item() == pytest.approx(0.5 - 1.5)


def test_equal_classes_say_as_little_as_none(make):
    bare = make.raw("euclidean", torch.tensor([[0.0], [1.0], [3.0]]).double())
    gallery = Gallery(bare.ranker, bare.embeddings, torch.tensor([7, 7, 7]))
    context = AttackContext(
        gallery=gallery, clean=gallery.embeddings[:1], rng_keys=[0], seed=0, gallery_ids=torch.tensor([0])
    )
    assert WrongFirst().bind(context).reached(torch.tensor([[2.5]]).double()).tolist() == [True]


def test_a_query_alone_in_its_class_has_what_it_wants(make):
    bare = make.raw("euclidean", torch.tensor([[0.0], [1.0], [3.0]]).double())
    gallery = Gallery(bare.ranker, bare.embeddings, torch.tensor([0, 1, 1]))
    context = AttackContext(
        gallery=gallery, clean=gallery.embeddings[:1], rng_keys=[0], seed=0, gallery_ids=torch.tensor([0])
    )
    bound = WrongFirst().bind(context)
    evaluation = bound.evaluate(gallery.embeddings[:1].clone().requires_grad_(True))
    assert bound.reached(gallery.embeddings[:1]).tolist() == [True]
    assert evaluation.loss.item() == 0  # so that its missing gradient is no reason to doubt


def test_wrong_first_needs_two_other_items(make):
    gallery = make.raw("euclidean", torch.tensor([[0.0], [1.0]]).double())
    context = AttackContext(
        gallery=gallery, clean=gallery.embeddings[:1], rng_keys=[0], seed=0, gallery_ids=torch.tensor([0])
    )
    with pytest.raises(RankproofError, match="WrongFirst needs two other items"):
        WrongFirst().bind(context)
