from dataclasses import fields

import pytest
import torch

from rankproof import LocalOracle, QueryRaise, RankproofError, Reorder, Threat, attack
from rankproof.attacks import SearchOptions, attack_batch
from rankproof.attacks.batch import AttackBatch, make_batch

IDS = torch.tensor([40, 2, 17, 59, 8])


@pytest.fixture
def batch(gallery, pictures):
    """Five attacks of which everything is given."""
    return make_batch(
        gallery,
        pictures[IDS],
        gallery_ids=IDS,
        targets=torch.arange(10).view(5, 2),
        preserved=torch.arange(20, 35).view(5, 3),
        queries=gallery.embeddings[:4],
        exclude_self=True,
    )


@pytest.mark.parametrize("rows", [[3], [4, 0, 2], [0, 1, 2, 3, 4], []])
def test_a_part_of_a_batch_has_the_rows_of_each_tensor(batch, rows):
    part = batch.take(torch.tensor(rows, dtype=torch.int64))
    assert len(part) == len(rows)
    for name in ("images", "rng_keys", "gallery_ids", "targets", "preserved"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[rows])
    assert part.queries is batch.queries  # they belong to all attacks
    assert part.exclude_self
    assert torch.equal(part.excluded, IDS[rows])


def test_a_part_of_a_batch_leaves_out_what_the_batch_leaves_out(gallery, pictures):
    part = make_batch(gallery, pictures[:4]).take(torch.tensor([2, 1]))
    assert part.rng_keys.tolist() == [2, 1]  # as in the whole: numbers do not depend on the part
    absent = {field.name for field in fields(AttackBatch) if getattr(part, field.name) is None}
    assert absent == {"gallery_ids", "targets", "preserved", "queries"}
    assert part.excluded is None


def test_the_own_copies_are_excluded_only_where_that_is_wanted(gallery, pictures):
    batch = make_batch(gallery, pictures[:3], gallery_ids=torch.arange(3))
    assert batch.excluded is None
    assert torch.equal(batch.rng_keys, torch.arange(3))


def test_parts_of_a_batch_are_attacked_as_in_the_whole(gallery, pictures):
    batch, rows = make_batch(gallery, pictures[IDS], gallery_ids=IDS), torch.tensor([4, 1])
    goal, threat = QueryRaise(), Threat(0.05)
    whole = attack(gallery, pictures[IDS], goal, threat, gallery_ids=IDS, seed=6)
    part = attack_batch(gallery, batch.take(rows), goal, threat, seed=6)
    assert torch.equal(part.targets, whole.targets[rows])
    torch.testing.assert_close(part.adversarial, whole.adversarial[rows])
    oracle, order, search = LocalOracle(gallery, 9), Reorder(k=3), SearchOptions(budget=20)
    found = attack(oracle, pictures[IDS], order, threat, gallery_ids=IDS, seed=6, budget=20)
    other = attack_batch(oracle, batch.take(rows), order, threat, search=search, seed=6)
    assert torch.equal(other.targets, found.targets[rows])
    torch.testing.assert_close(other.adversarial, found.adversarial[rows])


def test_queries_need_a_known_gallery(pictures):
    with pytest.raises(RankproofError, match="queries: only CandidateRaise and CandidateLower on a gallery"):
        make_batch(None, pictures[:2], queries=torch.zeros(1, 5))
