"""The training loop: batches, lessons, Adam, and R@1 at the end of each epoch."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice
from shutil import which
from typing import Any

import torch
from torch import Tensor, nn

from rankproof.data.dataset import Dataset
from rankproof.errors import NotFiniteError, RankproofError
from rankproof.rng import generator
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import recall_at
from rankproof.ranking.ranker import Ranker
from rankproof.training.borrowed import global_numbers
from rankproof.training.defenses import Step
from rankproof.training.group import ALONE, Group
from rankproof.training.health import Health, spread
from rankproof.training.losses import MetricLearningLoss
from rankproof.training.recipe import Recipe
from rankproof.training.samplers import Batch, check_classes
from rankproof.training.state import State, collected, restore

Tell = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What is known at the end of one epoch.

    Args:
        number: from 1.
        loss: mean over its steps.
        recall_at_1: (%) on the test split, leave-one-out.
        seconds: since the beginning of the training, earlier sittings included.
    """

    number: int
    loss: float
    recall_at_1: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


class Training:
    """An encoder in training; between two epochs its state can be taken out and put back.

    Args:
        ranker: with the encoder, which is trained in place.
        data: what it learns from.
        test: R@1 is measured on it; it never influences the weights.
        recipe: how to train.
        group: the processes that train together.
    """

    def __init__(
        self, ranker: Ranker, data: Dataset, test: Dataset, recipe: Recipe, *, group: Group = ALONE
    ) -> None:
        self.sampler = recipe.sampler.shared(group.size)
        check_classes(data.labels, data.classes, self.sampler)
        self.ranker, self.data, self.test, self.recipe, self.group = ranker, data, test, recipe, group
        self.parameters = [*ranker.encoder.parameters(), *recipe.loss.parameters()]
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.history: list[Epoch] = []
        self.before: float | None = None  # what a defence carries from step to step
        self.health = Health(recipe.words, _advice(recipe))
        self.batches = self.sampler.count(data.labels) // group.size
        group.agree(*ranker.encoder.state_dict().values(), *recipe.loss.state().values())

    @property
    def encoder(self) -> nn.Module:
        """What is trained, without what only computes faster."""
        wrapped = self.ranker.encoder
        return wrapped.encoder if isinstance(wrapped, LowPrecision) else wrapped

    def state(self) -> State:
        """Everything needed to go on."""
        sheet = {
            "epochs_done": len(self.history),
            "settings": self.recipe.settings(),
            "before": self.before,
            "history": [epoch.as_dict() for epoch in self.history],
        }
        return State(collected(self.encoder, self.recipe.loss, self.optimizer), sheet)

    def restore(self, state: State) -> None:
        """Go on from there."""
        restore(state, self.encoder, self.recipe.loss, self.optimizer)
        self.history = [Epoch(**epoch) for epoch in state.sheet["history"]]
        self.before = state.sheet["before"]

    def epoch(self, tell: Tell = lambda done, total: None) -> Epoch:
        """One more epoch.

        Args:
            tell: called with batches done and batches in all epochs.
        Raises:
            TrainingFailedError: the training diverged or collapsed.
        """
        begin, number = time.perf_counter(), len(self.history) + 1
        self.ranker.encoder.train()
        noise = generator(self.recipe.seed, number, f"steps/{self.group.rank}")
        losses, done = list[float](), (number - 1) * self.batches
        for batch in self._batches(number):
            if self.group.all(self._teaches(batch)):
                losses.append(self._step(batch, done, noise))
            done += 1
            tell(done, self.recipe.epochs * self.batches)
        if not losses:
            raise RankproofError("no batch held two pictures of a class and another class; take larger ones")
        self.group.agree(*self.encoder.buffers())
        recall = self._measured(number)
        before = self.history[-1].seconds if self.history else 0.0
        seconds = before + time.perf_counter() - begin
        self.history.append(
            Epoch(number=number, loss=sum(losses) / len(losses), recall_at_1=recall, seconds=seconds)
        )
        return self.history[-1]

    def run(
        self,
        *,
        on_batch: Tell = lambda done, total: None,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        time_limit: float | None = None,
    ) -> list[Epoch]:
        """All epochs that are left.

        Args:
            on_batch: called with batches done and batches in all.
            on_epoch: called with each finished epoch.
            time_limit: seconds after which no further epoch is started.
        Returns:
            what each epoch came to, earlier sittings included.
        Raises:
            TrainingFailedError: it diverged or collapsed.
        """
        while len(self.history) < self.recipe.epochs and not self._late(time_limit):
            on_epoch(self.epoch(on_batch))
        self.ranker.encoder.eval()
        return self.history

    def _late(self, time_limit: float | None) -> bool:
        """Whether one more epoch would end after the limit."""
        if time_limit is None or not self.history:
            return False
        last = self.history[-1]
        ahead = torch.tensor(last.seconds * (last.number + 1) / last.number)
        return float(self.group.mean(ahead)) > time_limit

    def _teaches(self, batch: Batch) -> bool:
        """Whether the loss has anything to say about a batch."""
        return len(batch.triplets) > 0 if self.recipe.loss.of_triplets else len(batch.rows) > 1

    def _measured(self, number: int) -> float:
        """R@1 (%) after an epoch, taken by the first process and known to all, or the alarm."""
        told = torch.zeros(2)
        if self.group.leads:
            try:
                told = torch.tensor(measure(self.ranker, self.test))
            except NotFiniteError as error:
                raise self.health.failed("diverged", number, str(error)) from None
        self.group.agree(told)
        recall, wide = told.tolist()
        self.health.judge(recall, wide, self.test.labels, number)
        return float(recall)

    def _batches(self, number: int) -> Iterator[Batch]:
        """This process's share of the batches of an epoch; all processes have equally many."""
        every = self.sampler.batches(self.data.labels, generator(self.recipe.seed, number, "epoch"))
        return islice(every, self.group.rank, self.batches * self.group.size, self.group.size)

    def _step(self, batch: Batch, done: int, noise: torch.Generator) -> float:
        """One step of the optimiser; returns the loss."""
        ranker, recipe, number = self.ranker, self.recipe, len(self.history) + 1
        images = self.recipe.augment(ranker.as_input(self.data.pictures[batch.rows]), noise)
        step = Step(
            ranker=ranker,
            loss=recipe.loss,
            images=images,
            labels=self.data.labels[batch.rows].to(ranker.device),
            triplets=batch.triplets.to(ranker.device),
            source=noise,
            strength=min(1.0, (done + 1) / (recipe.warm_up * self.batches)) if recipe.warm_up else 1.0,
            before=self.before,
        )
        try:
            # Losses of the library may draw numbers of their own.
            with global_numbers(noise) if isinstance(recipe.loss, MetricLearningLoss) else nullcontext():
                lesson = recipe.defense(step)
        except NotFiniteError as error:
            raise self.health.failed("diverged", number, str(error)) from None
        told = torch.tensor([float(lesson.loss.detach()), spread(lesson.z)])
        loss, wide = self.group.mean(told).tolist()
        self.health.watch(loss, wide, number)
        self.optimizer.zero_grad(set_to_none=True)
        lesson.loss.backward()
        self.group.average(self.parameters)
        self._set_rate(done)
        self.optimizer.step()
        if lesson.adversarial is not None:
            self.before = float(self.group.mean(lesson.adversarial))
        return float(loss)

    def _set_rate(self, done: int) -> None:
        """The learning rate of a step."""
        if self.recipe.decay == "cosine":
            share = done / (self.recipe.epochs * self.batches)
            for part in self.optimizer.param_groups:
                part["lr"] = self.recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2


def in_precision(encoder: nn.Module, precision: str) -> nn.Module:
    """The encoder with passes in "single" precision or in "bf16"."""
    return LowPrecision(encoder) if precision == "bf16" else encoder


class LowPrecision(nn.Module):
    """An encoder whose passes run in bfloat16 where that is safe; weights and embeddings stay in single.

    A defence on a GPU spends nearly all its time in the passes of its attack. Where Triton and a C compiler
    are at hand these are compiled, which saves a third of each.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        on_gpu = any(parameter.is_cuda for parameter in encoder.parameters())
        compiled = torch.compile(encoder, dynamic=False) if on_gpu and _can_compile() else encoder
        self._quick: tuple[Callable[[Tensor], Tensor]] = (compiled,)  # no second module with the same weights

    def forward(self, images: Tensor) -> Tensor:
        """As the encoder."""
        attacked = torch.is_grad_enabled() and not self.encoder.training
        passes = self._quick[0] if attacked else self.encoder
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
    on_batch: Tell = lambda done, total: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    time_limit: float | None = None,
) -> list[Epoch]:
    """Train an encoder in place and return what each epoch came to; the last epoch is the result.

    Args:
        ranker: with the encoder; mean and std are applied inside.
        data: what it learns from.
        test: R@1 is measured on it, leave-one-out; it never influences the weights.
        recipe: how to train; `rankproof.training.published` has the papers'.
        on_batch, on_epoch, time_limit: as for `Training.run`.
    Raises:
        TrainingFailedError: it diverged or collapsed.
    """
    training = Training(ranker, data, test, recipe)
    return training.run(on_batch=on_batch, on_epoch=on_epoch, time_limit=time_limit)


def measure(ranker: Ranker, test: Dataset) -> tuple[float, float]:
    """R@1 (%) over a data set, leave-one-out, and the spread of its embeddings."""
    gallery = Gallery.build(ranker, test.pictures, test.labels)
    return 100 * float(recall_at(gallery, 1).mean()), spread(gallery.embeddings)


def _advice(recipe: Recipe) -> str:
    """What to try when this recipe fails."""
    parts = ["a smaller learning rate"]
    if recipe.defense.name != "none":
        parts += ["a smaller eps or a longer warm-up of it (--warm-up)"]
    if recipe.defense.name in ("est", "madry"):
        parts += ["another defense (act, hm, whole-batch)"]
    return ", ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]} or {parts[2]}"
