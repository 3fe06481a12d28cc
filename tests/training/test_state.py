from dataclasses import replace

import pytest
import torch

from rankproof.errors import RankproofError
from rankproof.models import load_checkpoint
from rankproof.training import (
    AntiCollapse,
    Balanced,
    EmbeddingShift,
    FromSet,
    Hardness,
    InBatch,
    InnerAttack,
    MetricLearningLoss,
    Recipe,
    TrainingFailedError,
    Triplet,
    WholeBatch,
    state,
)
from rankproof.training.recipe import Augment
from rankproof.training.run import Run, train_checkpoint

INNER = InnerAttack(eps=0.05, steps=2, step=0.05, start=0.05)
RECIPES = {
    "plain": Recipe(loss=Triplet(margin=0.2), sampler=InBatch(batch=200), augment=Augment(pad=1, flip=True)),
    "est": Recipe(
        loss=Triplet(margin=0.2),
        sampler=FromSet(batch=200),
        defense=EmbeddingShift(inner=INNER),
        warm_up=2.0,
        decay="cosine",
    ),
    "hm": Recipe(
        loss=Triplet(margin=0.2),
        sampler=Balanced(batch=200, per_class=20),
        distance="sphere",
        defense=Hardness(inner=INNER),
    ),
    "act": Recipe(
        loss=Triplet(margin=0.2),
        sampler=Balanced(batch=200, per_class=20),
        distance="sphere",
        defense=AntiCollapse(inner=INNER),
    ),
    "whole-batch": Recipe(
        loss=MetricLearningLoss("SupConLoss", {"temperature": 0.5}, classes=10, dimensions=64),
        sampler=Balanced(batch=200, per_class=20),
        defense=WholeBatch(inner=INNER),
        warm_up=2.0,
        decay="cosine",
    ),
}


class KilledError(Exception):
    """Stands for a kill in the middle of an epoch."""


@pytest.fixture
def run(digits, tmp_path):
    def make(recipe, **more):
        return Run(data=digits[0], test=digits[1], arch="digits", recipe=recipe, out=tmp_path / "out", **more)

    return make


def kill_after(batches):
    def stop(done, total):
        if done == batches:
            raise KilledError

    return stop


def weights(folder):
    return torch.cat([value.flatten() for value in load_checkpoint(folder).encoder.state_dict().values()])


@pytest.mark.parametrize("name", RECIPES)
def test_killed_in_the_middle_of_an_epoch_and_resumed_equals_uninterrupted(run, tmp_path, name):
    recipe = replace(RECIPES[name], epochs=3)
    whole = replace(run(recipe), out=tmp_path / "whole")
    wanted = train_checkpoint(whole)
    per_epoch = recipe.sampler.count(whole.data.labels)
    with pytest.raises(KilledError):
        train_checkpoint(run(recipe), on_batch=kill_after(per_epoch + 2))
    said = []
    found = train_checkpoint(run(recipe, resume=True), say=said.append)
    assert any("resuming after epoch 1" in line for line in said)
    assert torch.equal(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    for epoch, other in zip(found, wanted, strict=True):
        assert epoch.loss == pytest.approx(other.loss, abs=1e-6)  # the sheet keeps six places
        assert epoch.recall_at_1 == pytest.approx(other.recall_at_1, abs=1e-6)
    log = (tmp_path / "out" / "log.csv").read_text().splitlines()
    assert log[0] == "number,loss,recall_at_1,seconds"
    assert len(log) == 4


LIBRARY = {
    "proxies": {"loss": "ProxyAnchorLoss"},
    "draws": {"loss": "TripletMarginLoss", "options": {"triplets_per_anchor": 5}},
    "miner draws": {"loss": "ContrastiveLoss", "miner": "DistanceWeightedMiner"},
}


@pytest.mark.parametrize("name", LIBRARY)
def test_losses_of_the_library_go_on_bit_for_bit_and_know_the_seed(run, tmp_path, name):
    def recipe(seed=0):
        loss = MetricLearningLoss(**LIBRARY[name], classes=10, dimensions=64, seed=seed)
        return replace(RECIPES["plain"], loss=loss, epochs=2, seed=seed)

    train_checkpoint(replace(run(recipe()), out=tmp_path / "whole"))
    torch.rand(7)  # whatever else draws from the generators everybody shares
    with pytest.raises(KilledError):
        train_checkpoint(run(recipe()), on_batch=kill_after(6))
    train_checkpoint(run(recipe(), resume=True))
    assert torch.equal(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    train_checkpoint(replace(run(recipe(seed=1)), out=tmp_path / "other"))
    assert not torch.equal(weights(tmp_path / "other"), weights(tmp_path / "whole"))


def test_running_statistics_and_low_precision_go_on_too(tmp_path, digits):
    train_split, test_split = digits
    colour = [
        # 32 pixels a side: on maps of one pixel bf16 kernels of some processors give no two equal gradients.
        replace(split.head(30), images=split.images[:30].repeat(1, 3, 4, 4))
        for split in (train_split, test_split)
    ]
    recipe = replace(
        RECIPES["plain"],
        sampler=InBatch(batch=15),
        epochs=2,
        precision="bf16",
        defense=EmbeddingShift(inner=INNER),
    )
    whole = Run(data=colour[0], test=colour[1], arch="resnet18", recipe=recipe, out=tmp_path / "whole")
    train_checkpoint(whole)
    with pytest.raises(KilledError):
        train_checkpoint(replace(whole, out=tmp_path / "out"), on_batch=kill_after(3))
    train_checkpoint(replace(whole, out=tmp_path / "out", resume=True))
    assert torch.equal(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_a_damaged_state_is_refused_and_the_one_before_it_used(run, tmp_path):
    recipe = replace(RECIPES["plain"], epochs=3)
    train_checkpoint(replace(run(recipe), out=tmp_path / "whole"))
    train_checkpoint(run(replace(recipe, epochs=2)))
    newest = tmp_path / "out" / "state" / "epoch-0002.safetensors"
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    said = []
    train_checkpoint(run(recipe, resume=True), say=said.append)
    assert "epoch-0002.safetensors: damaged" in said[0]
    assert "resuming after epoch 1" in said[1]
    assert torch.equal(weights(tmp_path / "out"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("cut", [0, 10, 1000])
def test_a_torn_state_is_refused(run, cut):
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    file = run(RECIPES["plain"]).out / "state" / "epoch-0001.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    found, refused = state.newest(run(RECIPES["plain"]).out)
    assert found is None
    assert "damaged" in refused[0]


def test_two_states_stay_and_a_new_training_forgets_them(run):
    train_checkpoint(run(replace(RECIPES["plain"], epochs=4)))
    place = run(RECIPES["plain"]).out / "state"
    assert sorted(file.stem for file in place.glob("*.json")) == ["epoch-0003", "epoch-0004"]
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    assert sorted(file.stem for file in place.glob("*.json")) == ["epoch-0001"]


def test_other_settings_cannot_go_on(run):
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    with pytest.raises(RankproofError, match="another learning_rate"):
        train_checkpoint(run(replace(RECIPES["plain"], epochs=2, learning_rate=0.1), resume=True))


def test_other_data_cannot_go_on(run, digits):
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    other = replace(run(replace(RECIPES["plain"], epochs=2), resume=True), data=digits[0].head(900))
    with pytest.raises(RankproofError, match="another train data"):
        train_checkpoint(other)


def test_more_epochs_may_be_asked_for_unless_the_rate_knew_their_number(run):
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    assert len(train_checkpoint(run(replace(RECIPES["plain"], epochs=2), resume=True))) == 2
    train_checkpoint(run(replace(RECIPES["est"], epochs=1)))
    with pytest.raises(RankproofError, match="another epochs"):
        train_checkpoint(run(replace(RECIPES["est"], epochs=2), resume=True))


def test_a_model_without_a_state_is_not_overwritten_by_going_on(run):
    place = run(RECIPES["plain"]).out
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    state.remove(place)
    with pytest.raises(RankproofError, match="no state to resume from"):
        train_checkpoint(run(replace(RECIPES["plain"], epochs=2), resume=True))
    assert load_checkpoint(place).record["epochs_done"] == 1


def test_stopped_between_the_first_checkpoint_and_its_state_it_begins_anew(run, tmp_path, monkeypatch):
    recipe = replace(RECIPES["plain"], epochs=2)
    train_checkpoint(replace(run(recipe), out=tmp_path / "whole"))

    def stop(*given):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(state, "write", stop)
        with pytest.raises(KilledError):
            train_checkpoint(run(recipe))
    assert load_checkpoint(tmp_path / "out").record["epochs_done"] == 1
    said = []
    train_checkpoint(run(recipe, resume=True), say=said.append)
    assert "was stopped while its first epoch was written" in said[0]
    assert torch.equal(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    assert not state.stopped_at_first(tmp_path / "out")


def test_a_new_training_destroys_nothing_before_it_has_something_better(run):
    place = run(RECIPES["plain"]).out
    train_checkpoint(run(replace(RECIPES["plain"], epochs=2)))
    said = []
    with pytest.raises(KilledError):
        train_checkpoint(run(RECIPES["hm"]), on_batch=kill_after(2), say=said.append)
    assert "contains a model" in said[0]
    assert len(list((place / "state").glob("*.json"))) == 2


def test_a_sheet_that_was_changed_is_refused(run):
    place = run(RECIPES["plain"]).out
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    sheet = place / "state" / "epoch-0001.json"
    sheet.write_text(sheet.read_text().replace('"before": null', '"before": 0.7'))
    assert state.newest(place)[0] is None


def test_a_failed_training_says_what_is_left(run):
    wild = replace(RECIPES["plain"], epochs=2, learning_rate=1e30)
    with pytest.raises(TrainingFailedError, match="nothing was written"):
        train_checkpoint(run(wild))


def test_nothing_to_resume_begins_anew_and_says_so(run):
    said = []
    history = train_checkpoint(run(replace(RECIPES["plain"], epochs=1), resume=True), say=said.append)
    assert len(history) == 1
    assert "nothing to resume" in said[0]


def test_going_on_keeps_the_story_of_the_first_weights(run, tmp_path):
    train_checkpoint(replace(run(replace(RECIPES["plain"], epochs=1)), out=tmp_path / "first"))
    first = tmp_path / "first" / "model.safetensors"
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1), weights=first))
    train_checkpoint(run(replace(RECIPES["plain"], epochs=2), resume=True))
    assert load_checkpoint(tmp_path / "out").record["weights"]["name"] == "model.safetensors"
    other = tmp_path / "other.safetensors"
    other.write_bytes((tmp_path / "out" / "model.safetensors").read_bytes())
    with pytest.raises(RankproofError, match="did not begin with these"):
        train_checkpoint(run(replace(RECIPES["plain"], epochs=3), resume=True, weights=other))


def test_weights_to_begin_with(run, tmp_path):
    train_checkpoint(replace(run(replace(RECIPES["plain"], epochs=1)), out=tmp_path / "first"))
    said = []
    still = replace(RECIPES["plain"], epochs=1, learning_rate=1e-12)
    train_checkpoint(run(still, weights=tmp_path / "first" / "model.safetensors"), say=said.append)
    assert "tensors loaded" in said[0]
    torch.testing.assert_close(weights(tmp_path / "out"), weights(tmp_path / "first"), atol=1e-6, rtol=0)


def test_events_for_tensorboard(run):
    train_checkpoint(run(replace(RECIPES["plain"], epochs=1)))
    assert list((run(RECIPES["plain"]).out / "events").glob("events.*"))
