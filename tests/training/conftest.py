from dataclasses import replace

import pytest
import torch

from rankproof.data import load
from rankproof.models import new_encoder
from rankproof.ranking import Ranker
from rankproof.training import InBatch, published, train


@pytest.fixture(scope="session")
def digits():
    """The embedded digits: train and test split."""
    return load("digits", "train"), load("digits", "test")


@pytest.fixture(scope="session")
def recipe():
    """The published recipe with batches that suit the digits, and one epoch."""
    return replace(published(), sampler=InBatch(batch=100), epochs=1, schedule="own")


@pytest.fixture
def trained(digits):
    """Trains a fresh digits encoder and returns the ranker, or the history."""

    def call(recipe, **options):
        ranker = Ranker(new_encoder("digits", recipe.seed), recipe.distance)
        return ranker, train(ranker, *digits, recipe, **options)

    return call


@pytest.fixture
def weights():
    """All weights of a ranker's encoder in one vector."""
    return lambda ranker: torch.cat([value.flatten() for value in ranker.encoder.state_dict().values()])
