"""Controls: whether the search behind a figure can be trusted, tried on a few of its attacks.

An attack that fails silently looks like a robust model. Each control asks one question that a search which
works answers with yes, whatever the model is. They cost about as much as ten attacks and their doubles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rankproof.attacks import attack_batch
from rankproof.attacks.batch import AttackBatch
from rankproof.attacks.result import AttackResult
from rankproof.attacks.transfer import transfer
from rankproof.attacks.white_box import beginning
from rankproof.attacks.worst_case import figures_of, strength, worst_case
from rankproof.audit.control_methods import BestSeen, RandomStart, doubled
from rankproof.goals.base import BoundGoal, Goal
from rankproof.goals.wish import FIRST
from rankproof.io import decode_pixels, encode_jpeg, encode_png
from rankproof.methods.registry import published_titles
from rankproof.methods.white_box.base import Method
from rankproof.methods.white_box.pgd import ascend
from rankproof.modes import ordinary_modes
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import mean_interval
from rankproof.report.findings import Control
from rankproof.report.page import Flag
from rankproof.rng import integers, uniforms
from rankproof.threat import LEVELS, TOLERANCE, Threat, format_eps
from rankproof.types import Evaluation, Images

TRIALS = 10  # attacks of a control
TOLERATED = {"rank": 0.5, "tau": 0.02, "hit": 0.05, "kept": 0.05}  # points, tau or share: less is nothing
RELATIVE = 0.02  # the same of other figures, as a share of the figure
FAR = 4  # times as much left undone in the mean needs no significance
NOISE_DRAWS = 8  # noise images of each attack, of which the best counts
NOISE_SHARE = 0.8  # of what the attack gained: noise that gains so much does about as well
EXISTING = 16  # gallery items that are tried for each attack
LEAST_REACHED = 0.9  # share of attacks that must reach their wish where every pixel may change at will
DIRECTIONS = 8  # random steps with which one along the gradient is compared
STEP = 1 / 8  # of eps, the size of these steps
LEAST_FALLING = 0.5  # share of attacks whose loss must fall along the gradient, and further than by chance
BEHIND = {"rank": 5e-4, "tau": 0.01}  # fitness by which a returned image may be behind the best one seen,
BEHIND_ITEMS = 1.5  # or so many items of the gallery, which rounding may move,
BEHIND_SHARE = 1e-3  # or, of other figures, such a share of the fitness
PNG_LEAST = 2 / LEVELS  # from this eps on the rounding to 8 bits is a small part of the change
PNG_SHARE = 0.5  # of what the attack gained that a PNG then must keep
QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class ControlledAttack:
    """What controls are made on: an attack of an audit with its outcome.

    Args:
        gallery: what was attacked.
        goal, threat, method: how.
        result: the outcome, the own copies left out of the rankings; the first ten attacks are looked at.
        first: K, how many results count as the first ones.
    """

    gallery: Gallery
    goal: Goal
    threat: Threat
    method: Method
    result: AttackResult
    first: int = FIRST

    @cached_property
    def few(self) -> AttackResult:
        """The attacks that are looked at, their figures taken anew."""
        few = self.result[:TRIALS]
        return self.ranked(few.adversarial, few)

    @property
    def exclude_self(self) -> bool:
        """Whether the own copies are left out: wherever they are known."""
        return self.result.gallery_ids is not None

    @cached_property
    def batch(self) -> AttackBatch:
        """The attacks that are looked at, with their items."""
        few, device = self.result[:TRIALS], self.gallery.embeddings.device
        ids = None if few.gallery_ids is None else few.gallery_ids.to(device)
        return AttackBatch(
            images=few.original,
            rng_keys=torch.arange(len(few)) if ids is None else ids,
            gallery_ids=ids,
            targets=few.targets.to(device) if few.targets.shape[1] else None,
            preserved=few.preserved.to(device) if few.preserved.shape[1] else None,
            exclude_self=self.exclude_self,
        )

    @property
    def keys(self) -> list[int]:
        """What names the random numbers of each attack."""
        return self.batch.rng_keys.tolist()

    def ranked(self, images: Images, like: AttackResult | None = None) -> AttackResult:
        """Other images in the place of the adversarial ones, with their figures."""
        made = replace(like or self.few, adversarial=images, log=None)
        return transfer(made, self.gallery, self.goal, exclude_self=self.exclude_self)

    def again(self, method: Method, *, eps: float | None = None, rows: Tensor | None = None) -> AttackResult:
        """The same attacks, or some of them, by another search or at another eps."""
        batch = self.batch if rows is None else self.batch.take(rows)
        threat = self.threat if eps is None else replace(self.threat, eps=eps)
        return attack_batch(self.gallery, batch, self.goal, threat, method=method, seed=self.result.seed)

    def bound(self, batch: AttackBatch | None = None) -> BoundGoal:
        """The goal of the attacks that are looked at, their items given."""
        batch, ranker = batch or self.batch, self.gallery.ranker
        with torch.no_grad():
            return batch.bind(self.goal, self.gallery, ranker.embed_all(batch.images), self.result.seed)

    def strengths(self, result: AttackResult) -> Tensor:
        """(b,) how strong each attack is, by the measure of the worst case; larger is stronger."""
        spec, letters = self.goal.spec, self.goal.parameters
        keys = [strength(spec, letters, figure)[0] for figure in figures_of(result)]
        return torch.tensor(keys, dtype=torch.float64)

    @cached_property
    def gained(self) -> float:
        """By how much the attacks are stronger than the untouched images, in the mean."""
        before = replace(self.few, after=self.few.before)
        return float((self.strengths(self.few) - self.strengths(before)).mean())

    @property
    def tolerated(self) -> float:
        """A difference of the figures that is none."""
        share = RELATIVE * float(self.few.headline().abs().mean())
        return TOLERATED.get(self.goal.metric, share)

    def control(
        self, name: str, result: AttackResult | float, text: str, *, passed: bool | None, against: float
    ) -> Control:
        """A control of these attacks."""
        value = result if isinstance(result, float) else float(result.headline().double().mean())
        return Control(
            name=name,
            goal=self.goal.spec.name,
            eps=self.threat.eps,
            trials=len(self.few),
            value=value,
            compared_with=against,
            passed=passed,
            text=text,
        )

    @property
    def mean(self) -> float:
        """The mean figure of the attacks that are looked at."""
        return float(self.few.headline().double().mean())


Check = Callable[[ControlledAttack], Control | None]


def noise(made: ControlledAttack) -> Control:
    """Random signs of the same eps, the best of eight: they must gain clearly less than the attack.

    An attack that has reached all that its goal asks for passes whatever noise does.
    """
    few, threat = made.few, made.threat
    draws = []
    for number in range(NOISE_DRAWS):
        signs = uniforms(few.seed, made.keys, f"noise {number}", few.original.shape[1:]).sign()
        changed = few.original + threat.eps * signs.to(few.original)
        draws.append(made.ranked(threat.project(changed, few.original)))
    names = [f"draw {number}" for number in range(NOISE_DRAWS)]
    best = worst_case(draws, names).result
    ahead = float((made.strengths(few) - made.strengths(best)).mean())
    target = made.goal.spec.target_value
    perfect = target is not None and abs(made.mean - target) <= made.tolerated
    passed = perfect or ahead > max((1 - NOISE_SHARE) * made.gained, 0.0)
    text = (
        f"random noise of the same size, the best of {NOISE_DRAWS} draws for each attack, gives "
        f"{_mean(best):.2f} where the attack gives {made.mean:.2f}"
    )
    return made.control("noise", best, text, passed=passed, against=made.mean)


def doubled_search(made: ControlledAttack) -> Control:
    """Twice the evaluations, from the same start and from a random one: they must not go further."""
    search = doubled(made.method, made.threat.eps)
    results = [made.again(search), made.again(RandomStart(method=search))]
    best = worst_case(results).result
    gains = made.strengths(best) - made.strengths(made.few)
    gain, undone = mean_interval(gains), float(gains.clamp(min=0).mean())
    further = gain.mean > made.tolerated and gain.low > 0
    text = (
        f"twice the evaluations, and as many again from a random start, give {_mean(best):.2f} where the "
        f"attack gives {made.mean:.2f}"
    )
    passed = not (further or undone > FAR * made.tolerated)
    return made.control("doubled", best, text, passed=passed, against=made.mean)


def unlimited(made: ControlledAttack) -> Control | None:
    """Where an existing image fulfils the wish, a search that may change every pixel at will must find one.

    Looked for among the attack's own items and some of the gallery. None for goals without a wish, and where
    no such image was found.
    """
    bound, gallery = made.bound(), made.gallery
    wish = made.goal.wish(bound, made.first)
    if wish is None:
        return None
    with torch.no_grad():
        free = wish.reached(gallery.ranker.embed_all(made.batch.images))
        exists = torch.zeros_like(free)
        drawn = integers(made.result.seed, made.keys, "existing", len(gallery), EXISTING).to(free.device)
        for ids in torch.cat([bound.targets, drawn], dim=1).unbind(1):
            exists |= wish.reached(gallery.embeddings[ids])
        rows = (exists & ~free).nonzero()[:, 0]
        if not len(rows):
            return None
        result = made.again(made.method, eps=1.0, rows=rows)
        part = made.goal.wish(made.bound(made.batch.take(rows)), made.first)
        assert part is not None
        share = float(part.reached(gallery.ranker.embed_all(result.adversarial)).double().mean())
    text = (
        f"where every pixel may change at will the search reaches the wish in {share:.0%} of {len(rows)} "
        f"attacks; for each of them an image of the gallery, as it is, fulfils it"
    )
    control = made.control("eps-1", share, text, passed=share >= LEAST_REACHED, against=1.0)
    return replace(control, eps=1.0, trials=len(rows))


def best_iterate(made: ControlledAttack) -> Control:
    """The returned image must be as fit as the best one that the search evaluated.

    Published descents return their last image by definition: there it is a figure to read.
    """
    watched = BestSeen(method=made.method)
    best = made.again(watched)
    highest, returned = (torch.cat(each) for each in zip(*watched.fitness.values(), strict=True))
    slack = BEHIND_SHARE * highest.abs()
    if made.goal.metric in BEHIND:
        slack = torch.full_like(highest, max(BEHIND[made.goal.metric], BEHIND_ITEMS / len(made.gallery)))
    worse = highest - returned > slack
    exempt = made.method.name in published_titles() or made.gallery.ranker.random
    text = (
        f"the best image that the search evaluated gives {_mean(best):.2f} where the returned one gives "
        f"{made.mean:.2f}; {int(worse.sum())} of {len(worse)} attacks return a worse one"
    )
    passed = None if exempt else not bool(worse.any())
    return made.control("best-iterate", best, text, passed=passed, against=made.mean)


def gradient(made: ControlledAttack) -> Control | None:
    """A small step along the gradient must lower the loss, and further than as many random steps.

    The step is an eighth of eps, from where the search begins. Attacks whose goal holds there are left out;
    None where none is left.
    """
    ranker, original = made.gallery.ranker, made.few.original
    bound, embed = made.bound(), ranker.for_search().embed

    def objective(images: Images, penalty_weight: Tensor | None = None) -> Evaluation:
        return bound.evaluate(embed(images), penalty_weight)

    seed = made.result.seed
    start = beginning(bound, original, made.threat, seed, made.keys)
    ball, size = Threat(made.threat.eps), STEP * made.threat.eps
    with ranker.frozen():
        slope, here = ascend(objective, start)
        with torch.no_grad():

            def loss_at(direction: Tensor) -> Tensor:
                return objective(ball.project(start - size * direction, original)).loss.double()

            along, least = loss_at(slope.sign()), torch.full_like(here.loss, torch.inf).double()
            for number in range(DIRECTIONS):
                signs = uniforms(seed, made.keys, f"direction {number}", original.shape[1:]).sign()
                least = torch.minimum(least, loss_at(signs.to(original)))
    zero = (slope == 0).flatten(1).all(1)
    wanting = (here.loss != 0) | bound.stationary
    if not bool(wanting.any()):
        return None
    falls = (~zero & (along < here.loss.double()) & (along < least))[wanting]
    share = float(falls.double().mean())
    text = (
        f"a step of {format_eps(size)} along the gradient lowers the loss, and further than each of "
        f"{DIRECTIONS} random steps, in {share:.0%} of {len(falls)} attacks; the gradient is zero or not "
        f"finite in {int(zero[wanting].sum())}"
    )
    control = made.control("gradient", share, text, passed=share >= LEAST_FALLING, against=1.0)
    return replace(control, trials=len(falls))


def png(made: ControlledAttack) -> Control | None:
    """The images saved as 8-bit PNG files and read again: a figure to read.

    It fails where a pixel moved by more than rounding can, or where eps is two grey levels or more and half
    of what the attack gained is lost. None where images have neither one channel nor three.
    """
    if not _storable(made):
        return None
    read = _saved(made, encode_png)
    result = made.ranked(read)
    moved = float((read - made.few.adversarial).abs().max())
    kept = made.gained - float((made.strengths(made.few) - made.strengths(result)).mean())
    lost = made.threat.eps >= PNG_LEAST - TOLERANCE and kept < PNG_SHARE * made.gained
    broken = moved > 0.5 / LEVELS + TOLERANCE or (made.gained > made.tolerated and lost)
    text = (
        f"saved as 8-bit PNG files and read again the images give {_mean(result):.2f} where they give "
        f"{made.mean:.2f} as they are"
    )
    return made.control("png", result, text, passed=False if broken else None, against=made.mean)


def jpeg(made: ControlledAttack) -> Control | None:
    """The images saved as JPEG files of quality 90, colours at full resolution (4:4:4), and read again."""
    if not _storable(made):
        return None
    result = made.ranked(_saved(made, lambda pixels: encode_jpeg(pixels, QUALITY)))
    text = (
        f"saved as JPEG files of quality {QUALITY} with 4:4:4 colours and read again the images give "
        f"{_mean(result):.2f} where they give {made.mean:.2f} as they are"
    )
    return made.control(f"jpeg-{QUALITY}", result, text, passed=None, against=made.mean)


CONTROLS: dict[str, Check] = {
    "gradient": gradient,
    "noise": noise,
    "best-iterate": best_iterate,
    "png": png,
    f"jpeg-{QUALITY}": jpeg,
    "eps-1": unlimited,
    "doubled": doubled_search,
}
"""Every control by its name, the cheapest first."""


@ordinary_modes()
def controls(made: ControlledAttack, names: Sequence[str] = tuple(CONTROLS)) -> tuple[Control, ...]:
    """The controls of an attack; those that its goal or its images do not allow are left out.

    Args:
        made: the attack with its outcome.
        names: which of them.
    """
    if made.threat.eps == 0 or not len(made.result):
        return ()
    found = (CONTROLS[name](made) for name in names)
    return tuple(control for control in found if control is not None)


FAILED = {
    "gradient": (
        "a small step along the gradient hardly ever lowers the loss (the gradient is zero, not finite or "
        "points nowhere): a search by gradients finds little here, and its figures may be false"
    ),
    "noise": (
        "random noise of the same size does about as well as the attack: so small a change moves nothing, or "
        "the search finds nothing; its figure is no evidence that the model is strong"
    ),
    "best-iterate": (
        "the search returns worse images than it has seen on the way: its figure understates the danger"
    ),
    "png": (
        "saved as 8-bit PNG files the images lose more than rounding explains: the figure is of images that "
        "no file holds"
    ),
    "eps-1": (
        "images that fulfil the wish exist, and where every pixel may change at will the search does not "
        "find them: it is the search that fails, which says nothing of the model"
    ),
    "doubled": (
        "twice the evaluations and a restart go clearly further on the same attacks: the search has not "
        "converged, and its figure understates the danger"
    ),
}


def control_flags(found: Sequence[Control]) -> list[Flag]:
    """A reason to doubt for each control that failed."""
    return [
        Flag(
            kind=f"control-{each.name}", cell=f"{each.goal} at {format_eps(each.eps)}", text=FAILED[each.name]
        )
        for each in found
        if each.passed is False
    ]


def _mean(result: AttackResult) -> float:
    return float(result.headline().double().mean())


def _storable(made: ControlledAttack) -> bool:
    return made.few.original.shape[1] in (1, 3)


def _saved(made: ControlledAttack, encode: Callable[[Tensor], bytes]) -> Images:
    """The adversarial images as they come back from files."""
    images = made.few.adversarial
    pixels = torch.round(images * LEVELS).to(torch.uint8).cpu()
    read = torch.stack([decode_pixels(encode(image)) for image in pixels])
    return read.to(images) / LEVELS
