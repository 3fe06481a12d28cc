"""The training loop: batches, a defence, Adam, and R@1 at the end of each epoch."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice
from shutil import which

import torch
from torch import Tensor, nn

from rankproof.checks import check_images, check_labels
from rankproof.data.dataset import Dataset
from rankproof.errors import NotFiniteError, RankproofError
from rankproof.parameters import Range, check_number
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import recall_at
from rankproof.ranking.ranker import Ranker
from rankproof.rng import generator
from rankproof.training.defenses import StepInput
from rankproof.training.divergence import DivergenceMonitor, spread
from rankproof.training.global_rng import global_rng
from rankproof.training.group import ALONE, Group
from rankproof.training.losses import MetricLearningLoss
from rankproof.training.recipe import Recipe
from rankproof.training.samplers import Batch, check_classes
from rankproof.training.state import State, collect, restore
from rankproof.types import ProgressCallback, no_progress


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The outcome of one epoch.

    Args:
        number: from 1.
        loss: mean over its steps.
        recall_at_1: (%) on the test split, leave-one-out.
        seconds: since the beginning of the training, runs before a resume included.
    """

    number: int
    loss: float
    recall_at_1: float
    seconds: float

    def as_dict(self) -> dict[str, int | float]:
        """For the record, to six decimal places."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


class Training:
    """An encoder in training, whose state can be saved and restored between two epochs.

    Args:
        ranker: holds the encoder, which is trained in place.
        data: the training split.
        test: R@1 is measured on it; it never influences the weights.
        recipe: how to train.
        group: the processes that train together.
    """

    def __init__(
        self, ranker: Ranker, data: Dataset, test: Dataset, recipe: Recipe, *, group: Group = ALONE
    ) -> None:
        _check_split("data", data)
        _check_split("test", test)
        self.sampler = recipe.sampler.shared(group.size)
        test.require_labels()
        check_classes(data.require_labels(), data.classes, self.sampler)
        self.ranker, self.data, self.test, self.recipe, self.group = ranker, data, test, recipe, group
        self.parameters = [*ranker.encoder.parameters(), *recipe.loss.parameters()]
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.history: list[Epoch] = []
        self.previous_loss: float | None = None  # what a defence carries from step to step
        self.monitor = DivergenceMonitor(recipe.description, _advice(recipe))
        self.batches = self.sampler.count(data.require_labels()) // group.size
        group.broadcast(*ranker.encoder.state_dict().values(), *recipe.loss.state().values())

    @property
    def encoder(self) -> nn.Module:
        """The encoder itself, without a `LowPrecision` wrapper."""
        wrapped = self.ranker.encoder
        return wrapped.encoder if isinstance(wrapped, LowPrecision) else wrapped

    def state(self) -> State:
        """Everything that is needed to resume."""
        metadata = {
            "epochs_done": len(self.history),
            "settings": self.recipe.settings(),
            "before": self.previous_loss,
            "history": [epoch.as_dict() for epoch in self.history],
        }
        return State(collect(self.encoder, self.recipe.loss, self.optimizer), metadata)

    def restore(self, state: State) -> None:
        """Resume from a state."""
        restore(state, self.encoder, self.recipe.loss, self.optimizer)
        self.history = [Epoch(**epoch) for epoch in state.metadata["history"]]
        self.previous_loss = state.metadata["before"]

    def epoch(self, on_batch: ProgressCallback = no_progress) -> Epoch:
        """Train for one more epoch.

        Args:
            on_batch: called with the number of batches done and of batches in all epochs.
        Raises:
            TrainingFailedError: the training diverged or collapsed.
        """
        begin, number = time.perf_counter(), len(self.history) + 1
        self.ranker.encoder.train()
        rng = generator(self.recipe.seed, number, f"steps/{self.group.rank}")
        losses, done = list[float](), (number - 1) * self.batches
        for batch in self._batches(number):
            if self.group.all(self._has_loss(batch)):
                losses.append(self._step(batch, done, rng))
            done += 1
            on_batch(done, self.recipe.epochs * self.batches)
        if not losses:
            raise RankproofError(
                "no batch had two images of one class and an image of another; take larger batches"
            )
        self.group.broadcast(*self.encoder.buffers())
        recall = self._recall(number)
        earlier = self.history[-1].seconds if self.history else 0.0
        seconds = earlier + time.perf_counter() - begin
        self.history.append(
            Epoch(number=number, loss=sum(losses) / len(losses), recall_at_1=recall, seconds=seconds)
        )
        return self.history[-1]

    def run(
        self,
        *,
        on_batch: ProgressCallback = no_progress,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        time_limit: float | None = None,
    ) -> list[Epoch]:
        """Train for all remaining epochs.

        Args:
            on_batch: called with the number of batches done and of batches in all epochs.
            on_epoch: called after each epoch.
            time_limit: seconds; no epoch is started that would end later.
        Returns:
            all epochs, those before a resume included.
        Raises:
            TrainingFailedError: the training diverged or collapsed.
        """
        if time_limit is not None:
            check_number("time_limit", time_limit, Range(low=0.0))
        while len(self.history) < self.recipe.epochs and not self._exceeds(time_limit):
            on_epoch(self.epoch(on_batch))
        self.ranker.encoder.eval()
        return self.history

    def _exceeds(self, time_limit: float | None) -> bool:
        """Whether one more epoch would end after the limit."""
        if time_limit is None or not self.history:
            return False
        last = self.history[-1]
        expected = torch.tensor(last.seconds * (last.number + 1) / last.number)
        return float(self.group.mean(expected)) > time_limit

    def _has_loss(self, batch: Batch) -> bool:
        """Whether the loss is defined on a batch."""
        return len(batch.triplets) > 0 if self.recipe.loss.of_triplets else len(batch.rows) > 1

    def _recall(self, number: int) -> float:
        """R@1 (%) after an epoch, measured by the first process for all; raises after a collapse."""
        measured = torch.zeros(2)
        if self.group.leads:
            try:
                measured = torch.tensor(measure(self.ranker, self.test))
            except NotFiniteError as error:
                raise self.monitor.failed("diverged", number, str(error)) from None
        self.group.broadcast(measured)
        recall, embedding_spread = measured.tolist()
        self.monitor.check_epoch(recall, embedding_spread, self.test.require_labels(), number)
        return float(recall)

    def _batches(self, number: int) -> Iterator[Batch]:
        """This process's share of the batches of an epoch; all processes have equally many."""
        batches = self.sampler.batches(
            self.data.require_labels(), generator(self.recipe.seed, number, "epoch")
        )
        return islice(batches, self.group.rank, self.batches * self.group.size, self.group.size)

    def _step(self, batch: Batch, done: int, rng: torch.Generator) -> float:
        """One step of the optimiser; returns the loss."""
        ranker, recipe, number = self.ranker, self.recipe, len(self.history) + 1
        images = recipe.augment(ranker.as_input(self.data.images[batch.rows]), rng)
        step = StepInput(
            ranker=ranker,
            loss=recipe.loss,
            images=images,
            labels=self.data.require_labels()[batch.rows].to(ranker.device),
            triplets=batch.triplets.to(ranker.device),
            rng=rng,
            eps_scale=min(1.0, (done + 1) / (recipe.warm_up * self.batches)) if recipe.warm_up else 1.0,
            previous_loss=self.previous_loss,
        )
        try:
            # Losses of the library may draw random numbers.
            with global_rng(rng) if isinstance(recipe.loss, MetricLearningLoss) else nullcontext():
                output = recipe.defense(step)
        except NotFiniteError as error:
            raise self.monitor.failed("diverged", number, str(error)) from None
        measured = torch.tensor([float(output.loss.detach()), spread(output.z)])
        loss, embedding_spread = self.group.mean(measured).tolist()
        self.monitor.check_step(loss, embedding_spread, number)
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        self.group.average_gradients(self.parameters)
        self._set_learning_rate(done)
        self.optimizer.step()
        if output.adversarial_loss is not None:
            self.previous_loss = float(self.group.mean(output.adversarial_loss))
        return float(loss)

    def _set_learning_rate(self, done: int) -> None:
        if self.recipe.decay == "cosine":
            share = done / (self.recipe.epochs * self.batches)
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2


def in_precision(encoder: nn.Module, precision: str) -> nn.Module:
    """The encoder with its passes in "single" precision or in "bf16"."""
    return LowPrecision(encoder) if precision == "bf16" else encoder


class LowPrecision(nn.Module):
    """An encoder whose passes run in bfloat16 by autocast; weights and embeddings stay in single precision.

    A defence on a GPU spends nearly all its time in the passes of its attack. Where Triton and a C compiler
    are installed these are compiled, which saves a third of each.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        on_gpu = any(parameter.is_cuda for parameter in encoder.parameters())
        compiled = torch.compile(encoder, dynamic=False) if on_gpu and _can_compile() else encoder
        # In a tuple, since as a submodule its weights would be registered twice.
        self._compiled: tuple[Callable[[Tensor], Tensor]] = (compiled,)

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, d)."""
        attacked = torch.is_grad_enabled() and not self.encoder.training
        passes = self._compiled[0] if attacked else self.encoder
        with torch.autocast(images.device.type, torch.bfloat16):
            z: Tensor = passes(images)
        return z.float()


def _can_compile() -> bool:
    return find_spec("triton") is not None and which("cc") is not None


def train(
    ranker: Ranker,
    data: Dataset,
    test: Dataset,
    recipe: Recipe,
    *,
    on_batch: ProgressCallback = no_progress,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    time_limit: float | None = None,
) -> list[Epoch]:
    """Train an encoder in place; the weights after the last epoch are the result.

    Args:
        ranker: holds the encoder; its mean and std are applied as usual.
        data: the training split.
        test: R@1 is measured on it, leave-one-out; it never influences the weights.
        recipe: how to train; `rankproof.training.published` returns the papers'.
        on_batch, on_epoch, time_limit: as for `Training.run`.
    Returns:
        all epochs.
    Raises:
        TrainingFailedError: the training diverged or collapsed.
    """
    training = Training(ranker, data, test, recipe)
    return training.run(on_batch=on_batch, on_epoch=on_epoch, time_limit=time_limit)


def measure(ranker: Ranker, test: Dataset) -> tuple[float, float]:
    """R@1 (%) on a data set, leave-one-out, and the spread of its embeddings."""
    gallery = Gallery.build(ranker, test.images, test.labels)
    prepared = ranker.distance.prepare(gallery.embeddings)
    return 100 * float(recall_at(gallery, 1).mean()), spread(prepared)


def _check_split(what: str, split: Dataset) -> None:
    """Raise unless a split is as a data set is: 8-bit values, divided by 255 later, and a class for each."""
    images = check_images(f"{what}.images", split.images)
    check_labels(f"{what}.labels", split.require_labels(), len(images))
    if images.dtype != torch.uint8:
        raise RankproofError(f"{what}.images: a data set holds 8-bit integers, got {images.dtype}")


def _advice(recipe: Recipe) -> str:
    """What to try when this recipe fails."""
    parts = ["a smaller learning rate"]
    if recipe.defense.name != "none":
        parts += ["a smaller eps or a longer warm-up of it (--warm-up)"]
    if recipe.defense.name in ("est", "madry"):
        parts += ["another defense (act, hm, whole-batch)"]
    return ", ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]} or {parts[2]}"
