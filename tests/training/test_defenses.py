from dataclasses import replace

import pytest
import torch

from rankproof.errors import RankproofError
from rankproof.ranking import Cosine, Euclidean
from rankproof.training import (
    AntiCollapse,
    Contrastive,
    EmbeddingShift,
    Hardness,
    InnerAttack,
    MetricLearningLoss,
    MinMax,
    SingleStep,
    Suppress,
    Triplet,
    Undefended,
    WholeBatch,
)
from rankproof.training.defenses import StepInput
from rankproof.training.inner_attack import act_hm_inner_attack, eccv_inner_attack, shifted
from rankproof.training.triplets import mine_triplets

INNER = InnerAttack(eps=0.1, steps=6, step=0.03)
TRIPLET = Triplet(margin=0.5)
DEFENSES = [
    EmbeddingShift(inner=INNER),
    Suppress(inner=INNER),
    MinMax(inner=INNER),
    SingleStep(eps=0.1),
    AntiCollapse(inner=INNER),
    Hardness(inner=INNER),
    WholeBatch(inner=INNER),
]
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
TRIPLETS = torch.tensor([[0, 1, 2], [2, 3, 5], [4, 5, 6], [6, 0, 7]])


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def a_step(make, distance="cosine", loss=TRIPLET, **more):
    return StepInput(
        ranker=make.ranker(distance),
        loss=loss,
        images=make.images(8),
        labels=LABELS,
        triplets=TRIPLETS,
        rng=random(),
        **more,
    )


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_without_any_eps_a_defense_trains_on_clean_images(make, defense):
    """With eps 0 the attack finds the images themselves: the loss is what the formula says of them."""
    step = replace(a_step(make), eps_scale=0.0)
    z = step.ranker.embed_prepared(step.images)
    d = Cosine().between
    value = float(defense(step).loss.detach())
    if defense.name in ("act", "hm"):
        triplets = mine_triplets(z, LABELS, Cosine(), defense.mining, random())
        a, p, n = z[triplets].unbind(1)
        wanted = TRIPLET.of(d(a, p), d(a, n)).mean().detach()
        # [d(a, a) - d(a, p)]+ is 0: nothing moved.
    else:
        wanted = step.mean_loss(z).detach()
    assert value == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_the_loss_teaches_every_weight_and_leaves_the_encoder_as_it_was(make, defense):
    step = a_step(make)
    step.ranker.encoder.train()
    defense(step).loss.backward()
    for parameter in step.ranker.encoder.parameters():
        assert parameter.requires_grad
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().sum() > 0)
    assert step.ranker.encoder.training


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
def test_shifted_images_stay_within_eps_and_shift_more_than_random_ones(make, distance):
    ranker, images = make.ranker(distance), make.images(8)
    found = shifted(INNER, ranker, images, rng=random())
    assert float((found - images).abs().max()) <= INNER.eps + 1e-9
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    noise = (torch.rand(images.shape, generator=random(1), dtype=images.dtype) * 2 - 1).sign() * INNER.eps
    clean = ranker.embed_prepared(images)
    d = ranker.distance.between
    assert bool(
        (
            d(ranker.embed_prepared(found), clean)
            > d(ranker.embed_prepared((images + noise).clamp(0, 1)), clean)
        ).all()
    )


def test_batch_norms_see_no_attack_in_progress(make):
    """The inner attack runs in eval mode; only the pass that teaches moves running statistics."""
    ranker = make.ranker()
    ranker.encoder.features = torch.nn.Sequential(
        ranker.encoder.features, torch.nn.BatchNorm2d(3, dtype=torch.float64)
    )
    ranker.encoder.train()
    step = replace(a_step(make), ranker=ranker)
    EmbeddingShift(inner=INNER)(step)
    assert int(ranker.encoder.features[1].num_batches_tracked) == 1


def test_suppress_adds_the_shifts_of_all_three(make):
    """ECCV eq. 22, naively."""
    step = a_step(make, "euclidean")
    images = shifted(INNER, step.ranker, step.images, rng=random())
    z, moved = step.ranker.embed_prepared(step.images), step.ranker.embed_prepared(images)
    total = 0.0
    for triplet in TRIPLETS.tolist():
        total += sum(float((moved[x] - z[x]).detach().norm()) for x in triplet) / len(TRIPLETS)
    wanted = float(step.mean_loss(z).detach()) + 2.0 * total
    assert float(Suppress(inner=INNER, weight=2.0)(step).loss.detach()) == pytest.approx(wanted)


def test_madry_perturbs_the_anchors_only_and_hurts(make):
    step = a_step(make)
    clean = float(step.mean_loss(step.ranker.embed_prepared(step.images)).detach())
    assert float(MinMax(inner=INNER)(step).loss.detach()) > clean


def test_single_step_mixes_the_clean_loss_and_that_one_step_up(make):
    step = a_step(make)
    images = step.images.clone().requires_grad_(True)
    loss = step.mean_loss(step.ranker.embed_prepared(images))
    (gradient,) = torch.autograd.grad(loss, images)
    moved = step.mean_loss(step.ranker.embed_prepared((step.images + 0.1 * gradient.sign()).clamp(0, 1)))
    assert float(moved.detach()) > float(loss.detach())
    wanted = 0.3 * float(loss.detach()) + 0.7 * float(moved.detach())
    assert float(SingleStep(eps=0.1, share=0.3)(step).loss.detach()) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "loss",
    [TRIPLET, Contrastive(margin=0.5), MetricLearningLoss("SupConLoss", classes=3, dimensions=4)],
    ids=lambda loss: loss.name,
)
def test_whole_batch_raises_whatever_loss_it_is_given_by_moving_every_image(make, loss):
    """One step up the gradient of the whole batch's loss, naively; more steps go further."""
    step = a_step(make, loss=loss)
    output = WholeBatch(inner=InnerAttack(eps=0.1, steps=1, step=0.1, start=0.0))(step)
    images = step.images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(step.mean_loss(step.ranker.embed_prepared(images)), images)
    assert bool((gradient.abs().flatten(1).sum(1) > 0).all())
    moved = step.ranker.embed_prepared((step.images + 0.1 * gradient.sign()).clamp(0, 1))
    torch.testing.assert_close(output.z, moved)
    torch.testing.assert_close(output.loss, step.mean_loss(moved))
    clean, strong = Undefended()(step), WholeBatch(inner=INNER)(a_step(make, loss=loss))
    assert float(strong.loss.detach()) > float(clean.loss.detach())


def test_act_pulls_positive_and_negative_together(make):
    step = a_step(make, "sphere")
    output = AntiCollapse(inner=INNER)(step)
    z = step.ranker.embed_prepared(step.images)
    triplets = mine_triplets(z, LABELS, step.ranker.distance, "random", random())
    a, p, n = output.z.chunk(3)
    torch.testing.assert_close(a, z[triplets[:, 0]])  # anchors stay clean
    d = step.ranker.distance.between
    assert float((d(p, n) - d(z[triplets[:, 1]], z[triplets[:, 2]])).mean().detach()) < 0
    assert float(output.adversarial_loss) == pytest.approx(float(output.loss.detach()))


@pytest.mark.parametrize("previous", [None, 0.0, 0.1, 0.9])
def test_hm_makes_triplets_harder_up_to_the_target(make, previous):
    step = a_step(make, "sphere", Triplet(margin=0.2), previous_loss=previous)
    strong = InnerAttack(eps=0.3, steps=60, step=0.01)
    output = Hardness(inner=strong)(step)
    d = step.ranker.distance.between
    z = step.ranker.embed_prepared(step.images)
    triplets = mine_triplets(z, LABELS, step.ranker.distance, "softhard", random())
    ca, cp, cn = z[triplets].unbind(1)
    a, p, n = output.z.chunk(5)[:3]
    target = -min(0.2 if previous is None else previous, 0.2)
    clean, found = (d(ca, cp) - d(ca, cn)).detach(), (d(a, p) - d(a, n)).detach()
    easy = clean < target
    assert bool((found[easy] > clean[easy]).all())
    assert bool((found[easy] < target + 0.05).all())  # no harder than asked for, up to a step
    intra = (d(ca, a) - d(ca, cp)).relu().mean()
    wanted = (0.2 + found).relu().mean() + 0.5 * intra
    assert float(output.loss.detach()) == pytest.approx(float(wanted.detach()))


@pytest.mark.parametrize("how", ["random", "semihard", "softhard"])
@pytest.mark.parametrize("seed", range(5))
def test_mining_is_what_the_naive_definition_allows(make, how, seed):
    z = torch.randn(20, 3, generator=make.random(seed), dtype=torch.float64)
    labels = torch.randint(4, (20,), generator=make.random(seed + 50))
    d = torch.cdist(z, z)
    seen = set()
    for anchor, positive, negative in mine_triplets(z, labels, Euclidean(), how, random(seed)).tolist():
        assert labels[anchor] == labels[positive] != labels[negative]
        assert anchor != positive
        assert not {anchor, positive} & seen  # every image is in one pair at most
        seen |= {anchor, positive}
        own = [j for j in range(20) if labels[j] == labels[anchor]]
        others = [j for j in range(20) if labels[j] != labels[anchor]]
        farthest = max(float(d[anchor, j]) for j in own)
        allowed = [j for j in others if how == "random" or d[anchor, j] < farthest]
        if how == "semihard":
            allowed = [j for j in allowed if d[anchor, j] > d[anchor, positive]]
        nearest = min(others, key=lambda j: float(d[anchor, j]))
        assert negative in (allowed or [nearest])
    counts = labels.bincount()
    assert len(seen) == int((counts // 2 * 2).sum())


@pytest.mark.parametrize("defense", [DEFENSES[2], *DEFENSES[4:6]], ids=lambda defense: defense.name)
def test_what_is_made_of_triplets_refuses_other_losses(recipe, defense):
    with pytest.raises(RankproofError, match="made of triplets"):
        replace(recipe, loss=Contrastive(margin=0.2), defense=defense)


def test_the_papers_settings():
    assert eccv_inner_attack(28) == InnerAttack(eps=0.3, steps=30, step=0.01)
    assert eccv_inner_attack(224) == InnerAttack(eps=0.06, steps=20, step=0.006)
    assert (act_hm_inner_attack(28).eps, act_hm_inner_attack(28).steps) == (77 / 255, 32)
    assert act_hm_inner_attack(224).eps == 8 / 255
    with pytest.raises(RankproofError, match="steps must be at least 1, got 0"):
        InnerAttack(eps=0.1, steps=0, step=0.1)


def test_undefended_training_is_the_plain_loss(make):
    step = a_step(make)
    z = step.ranker.embed_prepared(step.images)
    assert float(Undefended()(step).loss.detach()) == pytest.approx(float(step.mean_loss(z).detach()))
