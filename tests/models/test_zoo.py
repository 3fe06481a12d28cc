"""The encoders that ship with the package are what their records say."""

import os
from importlib.resources import files
from pathlib import Path

import pytest

from rankproof.data import load
from rankproof.models import load_checkpoint, zoo_names
from rankproof.ranking import Gallery, Ranker
from rankproof.ranking.metrics import recall_at

MOST = 7_000_000  # bytes of one model


@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_model_is_small_and_says_how_it_was_made(name):
    weights = Path(str(files("rankproof") / "zoo")) / name / "model.safetensors"
    assert weights.stat().st_size <= MOST
    record = load_checkpoint(f"zoo:{name}").record
    assert (record["precision"], record["arch"]) == ("half", "c2f1")
    assert record["data"] == name.split("/")[0]
    defense = record["settings"].get("defense", {"name": "none"})["name"]
    assert (defense != "none") == name.endswith("d")
    if defense != "none":
        assert record["settings"]["schedule"] in ("published", "fast")


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo_names())
def test_the_recall_of_a_shipped_model_can_be_measured_again(name):
    root = os.environ.get("RANKPROOF_DATA")
    if not root or not (Path(root) / name.split("/")[0]).is_dir():
        pytest.skip(f"{name.split('/')[0]} is not there: set RANKPROOF_DATA to the folder that holds it")
    checkpoint = load_checkpoint(f"zoo:{name}")
    test = load(name.split("/")[0], "test", root=Path(root))
    gallery = Gallery.build(
        Ranker(checkpoint.encoder, checkpoint.record["distance"]), test.images, test.labels
    )
    found = 100 * float(recall_at(gallery, 1).mean())
    # The record of a training is of single precision, halving the weights moves a few neighbours.
    assert found == pytest.approx(checkpoint.record["recall_at_1"], abs=0.1)
