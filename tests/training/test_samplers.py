import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof.errors import RankproofError
from rankproof.training import Balanced, FromSet, InBatch
from rankproof.training.samplers import check_classes

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0, 1, 1, 0, 2, 2, 2, 1, 0] * 3)
SAMPLERS = [
    InBatch(batch=10),
    FromSet(batch=8),
    FromSet(batch=8, negatives="any"),
    Balanced(batch=12, per_class=4),
]


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(seed=st.integers(0, 99))
def test_triplets_are_anchor_same_class_and_other_class(sampler, seed):
    for batch in sampler.batches(LABELS, random(seed)):
        a, p, n = LABELS[batch.rows][batch.triplets].unbind(1)
        assert torch.equal(a, p)
        if getattr(sampler, "negatives", "other") == "other":
            assert not (a == n).any()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equal_generators_give_equal_epochs_and_others_do_not(sampler):
    def epoch(seed):
        return torch.cat(
            [torch.cat([b.rows, b.triplets.flatten()]) for b in sampler.batches(LABELS, random(seed))]
        )

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_count_of_batches_is_true(sampler):
    assert len(list(sampler.batches(LABELS, random()))) == sampler.count(LABELS)


@pytest.mark.parametrize("sampler", SAMPLERS[:3])
def test_every_image_is_seen_once(sampler):
    firsts = [
        batch.rows[: sampler.batch] if isinstance(sampler, InBatch) else batch.rows[: len(batch.triplets)]
        for batch in sampler.batches(LABELS, random())
    ]
    assert torch.equal(torch.cat(firsts).sort().values, torch.arange(len(LABELS)))


def test_from_set_draws_every_other_image_of_the_class_and_every_one_of_the_others():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    positives, negatives = set(), set()
    for seed in range(300):
        (batch,) = FromSet(batch=7).batches(labels, random(seed))
        rows = batch.rows.view(3, -1)
        anchor = rows[0].tolist().index(1)
        positives.add(int(rows[1, anchor]))
        negatives.add(int(rows[2, anchor]))
    assert positives == {0, 2}
    assert negatives == {3, 4, 5, 6}


def test_negatives_from_anywhere_may_be_of_the_own_class():
    own = 0
    for batch in FromSet(batch=8, negatives="any").batches(LABELS, random()):
        a, _, n = LABELS[batch.rows][batch.triplets].unbind(1)
        own += int((a == n).sum())
    assert own > 0


def test_balanced_batches_hold_the_same_number_of_each_class_and_disturb_nobody():
    import numpy as np

    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    for batch in Balanced(batch=12, per_class=4).batches(LABELS, random()):
        assert LABELS[batch.rows].bincount().tolist() == [4, 4, 4]
    assert (np.random.get_state()[1] == before).all()


def test_processes_share_a_batch():
    assert InBatch(batch=10).shared(2) == InBatch(batch=5)
    with pytest.raises(RankproofError, match="evenly"):
        InBatch(batch=10).shared(3)


@pytest.mark.parametrize(
    ("labels", "batch", "fragment"),
    [
        ([0, 0, 0], 10, "at least two classes"),
        ([0, 0, 1], 10, "one image only .*dog"),
        ([0, 0, 1, 1], 3, "cannot hold two images of two classes"),
    ],
)
def test_what_cannot_be_trained_on_is_named(labels, batch, fragment):
    with pytest.raises(RankproofError, match=fragment):
        check_classes(torch.tensor(labels), ("cat", "dog"), InBatch(batch=batch))


def test_a_balanced_batch_must_be_filled():
    with pytest.raises(RankproofError, match="do not fill a batch"):
        check_classes(LABELS, ("a", "b", "c"), Balanced(batch=12, per_class=2))
    with pytest.raises(RankproofError, match="multiple"):
        Balanced(batch=11, per_class=2)
