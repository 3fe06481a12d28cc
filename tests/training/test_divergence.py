from dataclasses import dataclass, replace

import pytest
import torch

from rankproof.models import new_encoder
from rankproof.ranking import Ranker
from rankproof.training import Contrastive, InBatch, TrainingFailedError, Triplet, train
from rankproof.training.defenses import Undefended
from rankproof.training.divergence import DivergenceMonitor, chance_recall, spread


@dataclass(frozen=True)
class Poisoned(Undefended):
    """Ordinary training until the loss of one step becomes NaN."""

    at: int

    def __call__(self, step):
        output = super().__call__(step)
        count.append(1)
        return replace(output, loss=output.loss * float("nan")) if len(count) == self.at else output


count = []


def test_an_injected_nan_is_noticed_at_once_and_named(recipe, trained):
    count.clear()
    with pytest.raises(
        TrainingFailedError, match="triplet loss with cosine distance diverged in epoch 1"
    ) as error:
        trained(replace(recipe, defense=Poisoned(at=3)))
    assert len(count) == 3
    assert "learning rate" in str(error.value)
    assert "\n" not in str(error.value)


def test_nan_weights_are_noticed_too(digits, recipe):
    ranker = Ranker(new_encoder("digits"), "cosine")
    with torch.no_grad():
        ranker.encoder.embedding.weight[0, 0] = float("nan")
    with pytest.raises(TrainingFailedError, match="diverged in epoch 1"):
        train(ranker, *digits, recipe)


@dataclass(frozen=True, kw_only=True)
class Attraction(Triplet):
    """Everything is drawn together: the encoder must collapse."""

    def __call__(self, z, labels, triplets, distance):
        return distance.between(z[:, None], z[None]).flatten()


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
def test_a_collapsing_run_is_stopped_within_an_epoch(digits, recipe, distance):
    ranker = Ranker(new_encoder("digits"), distance)
    failing = replace(
        recipe, distance=distance, loss=Attraction(margin=0.1), sampler=InBatch(batch=10), learning_rate=0.01
    )
    with pytest.raises(TrainingFailedError, match="collapsed in epoch 1"):
        train(ranker, *digits, failing)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
@pytest.mark.parametrize("loss", [Triplet(margin=0.2), Contrastive(margin=0.2)])
def test_healthy_runs_raise_no_alarm(recipe, trained, distance, loss):
    _, history = trained(replace(recipe, distance=distance, loss=loss, epochs=2))
    assert history[-1].recall_at_1 > 90


def test_spread_is_the_share_of_the_squared_length_that_is_not_common():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert spread(z) == pytest.approx(0.5)
    assert spread(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.zeros(5, 3)) == 0


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
def test_an_encoder_that_died_is_noticed(digits, recipe, distance):
    ranker = Ranker(new_encoder("digits"), distance)
    with torch.no_grad():
        for parameter in ranker.encoder.embedding.parameters():
            parameter.zero_()
    still = replace(recipe, distance=distance, learning_rate=1e-30, sampler=InBatch(batch=500))
    with pytest.raises(TrainingFailedError, match="collapsed in epoch 1"):
        train(ranker, *digits, still)


@pytest.mark.parametrize(
    ("counts", "recall", "lost"),
    [
        ((70, 4), 100.0, False),  # chance is nearly all already
        ((70, 4), 89.6, True),
        ((1000,) * 10, 10.4, True),
        ((1000,) * 10, 12.0, False),
        ((40,) * 98, 2.0, False),  # after one epoch from nothing
        ((5, 5), 60.0, False),
    ],
)
def test_chance_is_told_from_a_small_gain(counts, recall, lost):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    monitor = DivergenceMonitor("loss", "advice")
    if lost:
        with pytest.raises(TrainingFailedError):
            monitor.check_epoch(recall, 0.5, labels, 1)
    else:
        monitor.check_epoch(recall, 0.5, labels, 1)


def test_nan_from_the_last_step_of_an_epoch_is_the_alarm_too(recipe, trained):
    with pytest.raises(TrainingFailedError, match="diverged in epoch 1"):
        trained(replace(recipe, sampler=InBatch(batch=1000), learning_rate=1e30))


def test_chance_is_the_share_of_the_own_class_among_the_others():
    labels = torch.tensor([0, 0, 0, 1])
    naive = [sum(labels[j] == labels[i] for j in range(4) if j != i) / 3 for i in range(4)]
    assert chance_recall(labels) == pytest.approx(100 * float(sum(naive)) / 4)
