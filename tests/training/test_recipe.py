from dataclasses import replace

import pytest
import torch

from rankproof.errors import RankproofError
from rankproof.models import new_encoder
from rankproof.ranking import Ranker
from rankproof.training import Balanced, EmbeddingShift, FromSet, InBatch, Triplet, WholeBatch, published
from rankproof.training.inner_attack import act_hm_inner_attack, eccv_inner_attack
from rankproof.training.loop import LowPrecision
from rankproof.training.options import Options, recipe_of
from rankproof.training.recipe import Augment, is_published


@pytest.fixture
def asked(digits):
    """The recipe of some options, as if the digits were 28x28 images."""
    images = torch.zeros(len(digits[0]), 1, 28, 28, dtype=torch.uint8)
    data = replace(digits[0], images=images)
    return lambda **options: recipe_of(Options(**options), data, "c2f1")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, published()),
        ({"loss": "contrastive"}, published(loss="contrastive")),
        ({"distance": "euclidean"}, published("euclidean")),
        ({"distance": "euclidean", "loss": "contrastive"}, published("euclidean", "contrastive")),
        ({"defense": "est"}, published(defended=True)),
        ({"seed": 3}, published(seed=3)),
    ],
)
def test_what_is_left_out_is_as_published(asked, options, wanted):
    recipe = asked(**options)
    assert recipe.settings() == wanted.settings()
    assert recipe.schedule == "published"


def test_the_papers_choices():
    ct, et = published(), published("euclidean")
    assert (ct.sampler, et.sampler) == (InBatch(batch=1000), InBatch(batch=500))
    assert (ct.loss, et.loss) == (Triplet(margin=0.2), Triplet(margin=1.0))
    assert (ct.epochs, ct.learning_rate, ct.weight_decay, ct.decay) == (30, 1e-3, 1e-7, "constant")
    assert published(defended=True).defense == EmbeddingShift(inner=eccv_inner_attack(28))


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 29},
        {"batch": 999},
        {"margin": 0.3},
        {"defense": "est", "inner_steps": 29},
        {"defense": "est", "eps": "0.2"},
        {"defense": "est", "warm_up": 1.0},
        {"sampler": "from-set"},
        {"distance": "sphere"},
        {"flip": True},
        {"defense": "suppress"},
        {"defense": "hm", "sampler": "in-batch"},
    ],
)
def test_anything_else_is_a_schedule_of_its_own(asked, options):
    recipe = asked(**options)
    assert recipe.schedule == "own"
    assert not is_published(recipe, 28)


def test_precision_and_seed_do_not_change_the_schedule(asked):
    assert asked(precision="bf16", seed=9).schedule == "published"


def test_the_fast_schedule_says_so_and_any_part_of_it_can_be_set(asked):
    recipe = asked(defense="est", fast=True)
    assert (recipe.schedule, recipe.decay, recipe.epochs) == ("fast", "cosine", 12)
    inner = recipe.defense.inner
    assert (inner.eps, inner.steps, inner.start) == (0.3, 3, 0.3)
    assert inner.steps * inner.step == pytest.approx(2 * inner.eps)
    other = asked(defense="est", fast=True, epochs=5, inner_steps=7, warm_up=1.0, decay="constant")
    assert (other.epochs, other.defense.inner.steps, other.warm_up, other.decay) == (5, 7, 1.0, "constant")
    assert other.schedule == "fast"
    assert asked(fast=True).warm_up == 0  # nothing grows where nothing attacks


@pytest.mark.parametrize("defense", ["act", "hm"])
def test_the_later_defences_live_on_the_sphere_with_pairs_of_each_class(asked, defense):
    recipe = asked(defense=defense)
    assert (recipe.distance, recipe.loss) == ("sphere", Triplet(margin=0.2))
    assert isinstance(recipe.sampler, Balanced)
    assert recipe.sampler.per_class % 2 == 0
    assert recipe.defense.inner == act_hm_inner_attack(28)


def test_our_defence_compares_all_of_a_batch_unless_told_else(asked):
    recipe = asked(defense="whole-batch", fast=True)
    assert (recipe.loss.name, recipe.loss.options) == ("pml:SupConLoss", {"temperature": 0.3})
    assert recipe.sampler == Balanced(batch=200, per_class=20)
    assert (recipe.distance, recipe.schedule) == ("cosine", "fast")
    assert recipe.defense == WholeBatch(inner=asked(defense="est", fast=True).defense.inner)
    assert asked(defense="whole-batch", loss_options=["temperature=1.0"]).loss.options == {"temperature": 1.0}
    assert asked(defense="whole-batch", loss="triplet").loss == Triplet(margin=0.2)
    assert asked(defense="whole-batch", loss="pml:SupConLoss").loss.options == {}
    with pytest.raises(RankproofError, match="options of its own"):
        asked(defense="whole-batch", margin=0.3)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("from-set", FromSet(batch=1000)),
        ("from-any", FromSet(batch=1000, negatives="any")),
        ("balanced", Balanced(batch=1000, per_class=100)),
    ],
)
def test_samplers_by_name(asked, word, wanted):
    assert asked(sampler=word).sampler == wanted


def test_options_of_a_loss_are_values_of_python(asked):
    loss = asked(loss="pml:MultiSimilarityLoss", loss_options=["alpha=1.5", "base=0"]).loss
    assert loss.options == {"alpha": 1.5, "base": 0}


def test_bf16_passes_give_single_embeddings_near_the_exact_ones():
    encoder = new_encoder("digits").eval()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact, found = (Ranker(each, "cosine").embed(images) for each in (encoder, LowPrecision(encoder)))
    assert found.dtype == torch.float32
    assert not torch.equal(exact, found)
    torch.testing.assert_close(exact, found, atol=0.02, rtol=0)


def test_images_are_shifted_as_a_whole_and_mirrored_each_for_itself():
    images = torch.arange(2 * 64.0).view(1, 2, 8, 8).repeat(40, 1, 1, 1)
    source = torch.Generator().manual_seed(0)
    found = Augment(pad=1)(images, source)
    assert found.shape == images.shape
    # The middle of each image is a piece of the original, moved by the same step in both channels.
    steps = {int(part[0, 4, 4] - images[0, 0, 4, 4]) for part in found}
    assert steps == {down * 8 + right for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert torch.equal(found[:, 1] - found[:, 0], torch.full((40, 8, 8), 64.0))
    mirrored = Augment(flip=True)(images, source)
    same = [torch.equal(part, images[0]) for part in mirrored]
    turned = [torch.equal(part, images[0].flip(2)) for part in mirrored]
    assert all(a != b for a, b in zip(same, turned, strict=True))
    assert 5 < sum(turned) < 35
