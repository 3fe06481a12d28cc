"""Two processes on one machine, as torch's launcher starts them, against one process that does the same."""

import os
import subprocess
import sys
from dataclasses import replace

import torch

from rankproof.models import load_checkpoint, new_encoder
from rankproof.ranking import Ranker
from rankproof.rng import generator
from rankproof.training import InBatch
from rankproof.training.defenses import StepInput
from rankproof.training.samplers import Batch


def weights(encoder):
    return torch.cat([value.flatten() for value in encoder.state_dict().values()])


def test_two_processes_average_the_gradients_of_their_halves(tmp_path, digits, recipe):
    words = ["--epochs", "1", "--batch", "200", "--device", "cpu", "--out", str(tmp_path / "out")]
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "--standalone", "-m", "rankproof", "train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for line in ("after 1 epochs", "epoch 1/"):
        assert done.stdout.count(line) == 1  # one of them tells
    record = load_checkpoint(tmp_path / "out").record
    assert record["processes"] == 2

    train_split, _ = digits
    ranker = Ranker(new_encoder("digits", 0), "cosine")
    ranker.encoder.train()
    parameters = list(ranker.encoder.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-7, fused=True)
    loss = replace(recipe, sampler=InBatch(batch=200)).loss
    batches = list(InBatch(batch=100).batches(train_split.labels, generator(0, 1, "epoch")))

    def value(batch: Batch):
        return StepInput(
            ranker=ranker,
            loss=loss,
            images=ranker.as_input(train_split.images[batch.rows]),
            labels=train_split.labels[batch.rows],
            triplets=batch.triplets,
            rng=torch.Generator(),
        )

    for first, second in zip(batches[0::2], batches[1::2], strict=False):
        optimizer.zero_grad()
        both = [
            step.mean_loss(step.ranker.embed_prepared(step.images)) for step in map(value, (first, second))
        ]
        (sum(both) / 2).backward()
        optimizer.step()
    found = weights(load_checkpoint(tmp_path / "out").encoder)
    torch.testing.assert_close(found, weights(ranker.encoder), atol=2e-4, rtol=0)
