import pytest
import torch
from torch.nn import functional

from rankproof.errors import RankproofError
from rankproof.ranking.distances import distance_by_name
from rankproof.training import Contrastive, MetricLearningLoss, Triplet

DISTANCES = ["cosine", "euclidean", "sphere"]


def batch(make, name, count=12, seed=0):
    z = torch.randn(count, 4, generator=make.random(seed), dtype=torch.float64)
    labels = torch.randint(3, (count,), generator=make.random(seed + 1))
    triplets = torch.randint(count, (20, 3), generator=make.random(seed + 2))
    distance = distance_by_name(name)
    return distance.prepare(z).requires_grad_(True), labels, triplets, distance


def between(name, a, b):
    return 1 - (a * b).sum() if name == "cosine" else (a - b).square().sum().sqrt()


@pytest.mark.parametrize("name", DISTANCES)
def test_triplet_loss_is_the_naive_loop(make, name):
    z, labels, triplets, distance = batch(make, name)
    triplets = triplets[(triplets[:, 0] != triplets[:, 1]) & (triplets[:, 0] != triplets[:, 2])]
    found = Triplet(margin=0.3)(z, labels, triplets, distance)
    naive = torch.stack([
        (0.3 + between(name, z[a], z[p]) - between(name, z[a], z[n])).clamp(min=0)
        for a, p, n in triplets.tolist()
    ])  # fmt: skip
    torch.testing.assert_close(found, naive)
    torch.testing.assert_close(
        *(torch.autograd.grad(x.mean(), z, retain_graph=True)[0] for x in (found, naive))
    )


@pytest.mark.parametrize("name", DISTANCES)
def test_contrastive_loss_is_the_naive_loop_over_all_pairs(make, name):
    z, labels, triplets, distance = batch(make, name)
    found = Contrastive(margin=0.9)(z, labels, triplets, distance)
    naive = []
    for i in range(len(z)):
        for j in range(i + 1, len(z)):
            d = between(name, z[i], z[j])
            naive.append(d if labels[i] == labels[j] else (0.9 - d).clamp(min=0))
    torch.testing.assert_close(found, torch.stack(naive))
    wanted = torch.autograd.grad(torch.stack(naive).mean(), z)[0]
    torch.testing.assert_close(torch.autograd.grad(found.mean(), z)[0], wanted)


def test_any_loss_of_the_library_drops_in_with_options_and_a_miner(make):
    from pytorch_metric_learning.losses import MultiSimilarityLoss
    from pytorch_metric_learning.miners import MultiSimilarityMiner

    z, labels, triplets, distance = batch(make, "cosine", 30)
    z = z.float()
    loss = MetricLearningLoss(
        "MultiSimilarityLoss",
        {"alpha": 1.5},
        miner="MultiSimilarityMiner",
        miner_options={"epsilon": 0.2},
        classes=3,
        dimensions=4,
    )
    mined = MultiSimilarityMiner(epsilon=0.2)(z, labels)
    wanted = MultiSimilarityLoss(alpha=1.5)(z, labels, mined)
    torch.testing.assert_close(loss(z, labels, triplets, distance), wanted)
    assert loss.settings()["options"] == {"alpha": 1.5}


def test_what_a_loss_learns_itself_is_trained_too(digits, recipe, trained):
    from dataclasses import replace

    proxies = MetricLearningLoss("ProxyAnchorLoss", classes=10, dimensions=64)
    before = proxies.parameters()[0].detach().clone()
    trained(replace(recipe, loss=proxies))
    assert not torch.equal(before, proxies.parameters()[0])


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("NoSuchLoss", {}, "no such class"),
        ("annotations", {}, "no such class"),
        ("MultiSimilarityLoss", {"alfa": 1}, "alfa"),
        ("MarginLoss", {"margin": "wide", "nu": [1, 2], "num_classes": "x"}, "cannot be made"),
    ],
)
def test_bad_losses_of_the_library_are_told_in_one_line(name, options, fragment):
    with pytest.raises(RankproofError, match=fragment) as error:
        MetricLearningLoss(name, options, classes=3, dimensions=4)
    assert "\n" not in str(error.value)


def test_the_sphere_is_euclidean_at_unit_length(make):
    z = torch.randn(6, 4, generator=make.random(3), dtype=torch.float64)
    sphere, unit = distance_by_name("sphere"), functional.normalize(z)
    torch.testing.assert_close(sphere.prepare(z), unit)
    found = sphere.pairwise(unit, unit)
    expected = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


def every_loss():
    import pytorch_metric_learning.losses as library

    return sorted(name for name in vars(library) if name.endswith("Loss") and not name.startswith("Base"))


REFUSED = {
    "GenericPairLoss": "cannot be made",  # wants a function
    "ManifoldLoss": "cannot be made",  # wants l
    "RankedListLoss": "cannot be made",  # wants margin and Tn
    "SelfSupervisedLoss": "cannot be made",  # wants another loss
    "VICRegLoss": "take another loss",  # knows no classes
}


def one_step(make, name):
    z = torch.randn(24, 8, generator=make.random(0), requires_grad=True)
    loss = MetricLearningLoss(name, classes=4, dimensions=8)
    value = loss(z, torch.arange(24) % 4, torch.empty(0, 3), distance_by_name("cosine"))
    value.backward()
    return value, z.grad


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("name", sorted(set(every_loss()) - set(REFUSED)))
def test_every_loss_of_the_library_teaches(make, name):
    value, gradient = one_step(make, name)
    assert value.dim() == 0
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", REFUSED)
def test_losses_that_cannot_be_used_say_so_in_one_line(make, name):
    with pytest.raises(RankproofError, match=REFUSED[name]) as error:
        one_step(make, name)
    assert "\n" not in str(error.value)


def test_raw_euclidean_embeddings_are_compared_as_they_are(make):
    z = 3 * torch.randn(24, 8, generator=make.random(0))
    labels = torch.arange(24) % 4
    plain, scaled = (
        MetricLearningLoss("TripletMarginLoss", classes=4, dimensions=8, distance=word)
        for word in ("euclidean", "sphere")
    )
    triplets, distance = torch.empty(0, 3), distance_by_name("euclidean")
    assert plain(z, labels, triplets, distance) != plain(2 * z, labels, triplets, distance)
    assert scaled(z, labels, triplets, distance) == pytest.approx(
        float(scaled(2 * z, labels, triplets, distance))
    )
