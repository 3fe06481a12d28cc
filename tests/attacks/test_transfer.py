import numpy as np
import pytest
import torch

from rankproof import (
    PGD,
    AttackResult,
    CandidateLower,
    CandidateRaise,
    Gallery,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    Threat,
    Universal,
    attack,
    choose,
    load,
    on_unseen,
    transfer,
)
from rankproof.errors import RankproofError
from rankproof.models import new_encoder
from rankproof.training import InBatch, Recipe, Triplet, train

EPS = 60 / 255
GOALS = [CandidateRaise(w=2), CandidateLower(w=2), QueryRaise(m=2), QueryLower(m=2)]
SP = [QueryRaise(m=1) + 1.0 * Preserve(g=3), QueryLower(m=1) + 100.0 * Preserve(g=3)]


@pytest.fixture(scope="module")
def data():
    return load("digits", "test").head(300)


@pytest.fixture(scope="module")
def models(data):
    """Galleries of two encoders that differ in their seeds only, trained for a moment."""

    def one(seed):
        ranker = Ranker(new_encoder("digits", seed), "cosine")
        recipe = Recipe(loss=Triplet(margin=0.2), sampler=InBatch(batch=100), epochs=1, seed=seed)
        train(ranker, load("digits", "train"), data, recipe)
        return Gallery.build(ranker, data.images, data.labels)

    return one(0), one(1)


@pytest.mark.parametrize("goal", [*GOALS, *SP], ids=lambda goal: str(goal)[:24])
def test_a_transfer_to_the_model_itself_changes_nothing(models, data, goal):
    index = torch.arange(0, 60, 3)
    result = attack(models[0], data.take(index), goal, Threat(EPS), method=PGD(steps=4), gallery_ids=index)
    same = transfer(result, models[0], goal)
    for name, values in result.after.items():
        torch.testing.assert_close(same.after[name], values, atol=0.4, rtol=0)  # a pass of another size
        torch.testing.assert_close(same.before[name], result.before[name], atol=0.4, rtol=0)


def test_a_transfer_is_ranked_in_the_other_models_own_embedding(models, data):
    index = torch.arange(40)
    goal = CandidateRaise(w=1)
    result = attack(models[0], data.take(index), goal, Threat(EPS), method=PGD(steps=8), gallery_ids=index)
    moved = transfer(result, models[1], goal)
    other = models[1]
    unit = other.ranker.distance.prepare
    z = unit(other.ranker.embed_all(result.adversarial).double())
    items = unit(other.embeddings.double())
    ranks = []
    for row, query in enumerate(result.targets[:, 0].tolist()):
        d = 1 - items @ items[query]
        ranks.append(100 / 300 * int((d < 1 - z[row] @ items[query]).sum()))
    assert moved.rank_after[:, 0].tolist() == pytest.approx(ranks, abs=0.4)
    # Made for the one, it helps with the other, but less.
    assert result.mean.mean < moved.mean.mean < moved.headline(after=False).mean()


def test_targets_of_one_model_can_be_attacked_through_another(models, data):
    index = torch.arange(20)
    images, goal = data.take(index), SP[1]
    chosen = choose(models[1], images, goal, gallery_ids=index, seed=3)
    direct = attack(models[1], images, goal, Threat(EPS), method=PGD(steps=1), gallery_ids=index, seed=3)
    assert torch.equal(chosen.targets, direct.targets)
    assert torch.equal(chosen.preserved, direct.preserved)
    through = attack(
        models[0],
        images,
        goal,
        Threat(EPS),
        method=PGD(steps=4),
        gallery_ids=index,
        targets=chosen.targets,
        preserved=chosen.preserved,
    )
    found = transfer(through, models[1], goal)
    torch.testing.assert_close(found.before["rank"], direct.before["rank"])
    torch.testing.assert_close(found.before["sp_rank"], direct.before["sp_rank"])


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: type(goal).__name__)
def test_one_perturbation_moves_seen_and_unseen_images(models, data, goal):
    gallery, seen, unseen = models[0], torch.arange(0, 100), torch.arange(100, 200)
    targets = torch.tensor([[7, 250]]).expand(100, -1)
    threat = Threat(EPS, shared=True)
    result = attack(
        gallery, data.take(seen), goal, threat, method=Universal(steps=20), gallery_ids=seen, targets=targets
    )
    assert result.perturbation.shape == (1, 1, 8, 8)
    assert float(result.perturbation.abs().max()) <= EPS + 1e-7
    assert torch.equal(result.adversarial, (result.original + result.perturbation).clamp(0, 1))
    other = on_unseen(result, gallery, goal, data.take(unseen), gallery_ids=unseen)
    assert torch.equal(other.adversarial, (data.take(unseen) + result.perturbation).clamp(0, 1))
    sign = 1 if isinstance(goal, CandidateLower | QueryLower) else -1
    for found in (result, other):
        gain = sign * (found.headline() - found.headline(after=False)).mean()
        assert float(gain) > 5


def test_the_shared_step_is_the_sign_of_the_mean_gradient(models, data):
    """One step against a naive loop over images."""
    gallery, seen = models[0], torch.arange(30)
    target = torch.tensor([[11]])
    goal = CandidateRaise(w=1)
    result = attack(
        gallery,
        data.take(seen),
        goal,
        Threat(EPS, shared=True),
        method=Universal(steps=1, step=0.01),
        gallery_ids=seen,
        targets=target.expand(30, -1),
    )
    total = torch.zeros(1, 8, 8)
    query, whole = gallery.prepared[11], gallery.prepared
    with gallery.ranker.frozen():
        for image in data.take(seen):
            x = image[None].clone().requires_grad_(True)
            z = gallery.ranker.embed_prepared(x)[0]
            hinges = ((1 - query @ z) - (1 - whole @ query)).clamp(min=0).mean()
            total += torch.autograd.grad(hinges, x)[0][0]
    sure = total.abs() > 1e-6
    assert torch.equal(result.perturbation[0][sure], -0.01 * total.sign()[sure])


def test_a_universal_attack_is_saved_with_its_perturbation(models, data, tmp_path):
    seen = torch.arange(10)
    result = attack(
        models[0],
        data.take(seen),
        QueryRaise(m=1),
        Threat(EPS, shared=True),
        method=Universal(steps=2),
        gallery_ids=seen,
        targets=torch.tensor([[4]]).expand(10, -1),
    )
    result.save(tmp_path)
    assert torch.equal(AttackResult.load(tmp_path).perturbation, result.perturbation)
    with np.load(tmp_path / "attack.npz") as stored:
        assert stored["perturbation"].shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("threat", "method", "targets", "fragment"),
    [
        (Threat(EPS, shared=True), PGD(), [[1], [1]], "sought by Universal"),
        (Threat(EPS), Universal(), [[1], [1]], "sought by Universal"),
        (Threat(EPS, shared=True), None, None, "equal rows"),
        (Threat(EPS, shared=True), None, [[1], [2]], "equal rows"),
    ],
)
def test_what_cannot_be_shared_is_refused(models, data, threat, method, targets, fragment):
    ids = None if targets is None else torch.tensor(targets)
    with pytest.raises(RankproofError, match=fragment):
        attack(models[0], data.as_float()[:2], QueryRaise(m=1), threat, method=method, targets=ids)


def test_bad_transfers_are_refused(models, data):
    index = torch.arange(5)
    result = attack(
        models[0], data.take(index), GOALS[0], Threat(EPS), method=PGD(steps=1), gallery_ids=index
    )
    small = Gallery(models[1].ranker, models[1].embeddings[:50])
    with pytest.raises(RankproofError, match="same items"):
        transfer(result, small, GOALS[0])
    with pytest.raises(RankproofError, match="same goal"):
        transfer(result, models[1], GOALS[1])
    with pytest.raises(RankproofError, match="needs a universal attack"):
        on_unseen(result, models[0], GOALS[0], data.as_float()[:3])
