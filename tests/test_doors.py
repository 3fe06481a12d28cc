"""Every door of the public interface makes the same checks; what it takes gives the same figures."""

import inspect
import math
from dataclasses import fields, is_dataclass, replace

import jaxtyping
import numpy as np
import pytest
import torch

import rankproof
from rankproof import (
    PGD,
    AuditOptions,
    BudgetedOracle,
    CandidateLower,
    CandidateRaise,
    Gallery,
    HttpOracle,
    ListOracle,
    LocalOracle,
    MaxShift,
    Preserve,
    QueryLower,
    QueryRaise,
    RankproofError,
    Reorder,
    Threat,
    Universal,
    accuracy,
    attack,
    audit,
    choose,
    on_unseen,
    robustness_score,
    smallest_budget,
    training,
    transfer,
)
from rankproof.attacks import AttackBatch, SearchOptions, attack_batch
from rankproof.audit import plan
from rankproof.data.dataset import Dataset
from rankproof.goals import registry
from rankproof.goals.base import Goal
from rankproof.methods import Subspace
from rankproof.methods.white_box.base import MethodOutput
from rankproof.methods.white_box.shrinking_budget import ShrinkingBudget
from rankproof.oracles import TrackedItems
from rankproof.ranking.metrics import recall_at, recalls_at
from rankproof.training.inner_attack import InnerAttack
from rankproof.wire.rate_limit import RateLimit

THREAT, ONE_STEP = Threat(4 / 255), PGD(steps=1)
COUNT = 12


@pytest.fixture(autouse=True)
def as_users_run_it():
    """Without the type checks of the tests, which would refuse most of this at the door."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class World:
    """A gallery of 12 images in 3 classes, and results of attacks on it."""

    def __init__(self, make):
        self.ranker, self.images = make.ranker(), make.images(COUNT)
        self.labels = torch.arange(COUNT) % 3
        self.gallery = Gallery.build(self.ranker, self.images, self.labels)
        self.oracle = LocalOracle(self.gallery, 6)
        self.result = attack(self.gallery, self.images[:2], MaxShift(), THREAT, method=ONE_STEP)
        shared, same = Threat(0.1, shared=True), torch.zeros(2, 1, dtype=torch.int64)
        method = Universal(steps=1)
        self.universal = attack(
            self.gallery, self.images[:2], CandidateRaise(), shared, method=method, targets=same
        )

    def attack(self, goal=MaxShift(), images=None, **options):  # noqa: B008
        images = self.images[:3] if images is None else images
        return attack(self.gallery, images, goal, THREAT, method=ONE_STEP, **options)

    def smallest(self, **options):
        return smallest_budget(
            self.gallery, self.images[:3], QueryRaise(), search=ShrinkingBudget(evaluations=1), **options
        )

    def attack_batch(self, images, target=None, goal=MaxShift(), ids=None):  # noqa: B008
        batch = AttackBatch(images=images, rng_keys=torch.arange(len(images)), gallery_ids=ids)
        return attack_batch(target or self.gallery, batch, goal, THREAT)

    def search(self, oracle=None, images=None, **options):
        images = self.images[:2] if images is None else images
        return attack(oracle or self.oracle, images, Reorder(k=3), THREAT, **{"budget": 3, **options})

    def service(self, visible=5):
        return ListOracle(lambda images: [["a", "b", "c", "d", "e"]] * len(images), visible)

    def unseen(self, images=None, **options):
        images = self.images[2:5] if images is None else images
        return on_unseen(self.universal, self.gallery, CandidateRaise(), images, **options)


@pytest.fixture(scope="module")
def world(make):
    return World(make)


class Cache:
    """Where an oracle over HTTP numbers its ids."""

    numbers: dict = {}  # noqa: RUF012


IMAGES = {
    "Gallery.build(images)": lambda w, v: Gallery.build(w.ranker, v),
    "Gallery(images)": lambda w, v: Gallery(w.ranker, w.gallery.embeddings, None, v),
    "attack(images)": lambda w, v: w.attack(images=v),
    "attack(images), black box": lambda w, v: w.search(images=v),
    "attack(images), service": lambda w, v: w.search(w.service(), v),
    "attack_batch(images)": lambda w, v: w.attack_batch(v),
    "attack_batch(images), black box": lambda w, v: w.attack_batch(v, LocalOracle(w.gallery), Reorder(k=3)),
    "audit(queries)": lambda w, v: audit(w.gallery, v, THREAT, trials=1),
    "plan(images)": lambda w, v: plan(w.gallery, v, THREAT, trials=1),
    "choose(images)": lambda w, v: choose(w.gallery, v, QueryRaise()),
    "on_unseen(images)": lambda w, v: w.unseen(v),
    "robustness_score(images)": lambda w, v: robustness_score(w.gallery, v),
    "smallest_budget(images)": lambda w, v: smallest_budget(w.gallery, v, QueryRaise()),
}
NO_IMAGES = {
    "0 .. 255": lambda x: x * 255,
    "normalised": lambda x: (x - 0.5) / 0.25,
    "int64": lambda x: (x * 255).long(),
    "bool": lambda x: x > 0.5,
    "NaN": lambda x: x * math.nan,
    "a column of NaN": lambda x: torch.cat([x[..., :-1], x[..., -1:] * math.nan], dim=-1),
    "infinite": lambda x: x / 0,
    "one image": lambda x: x[0],
    "no channel": lambda x: x[:, 0],
    "flat": lambda x: x.flatten(1),
    "none at all": lambda x: x[:0],
    "channels last": lambda x: x[:, :, :1, :1].expand(-1, 8, 8, 1),
    "a list": lambda x: list(x),
    "NumPy 0 .. 255": lambda x: x.numpy() * 255,
    "a name": lambda x: "photo.png",
}
IDS = {
    "attack(gallery_ids)": lambda w, v: w.attack(gallery_ids=v),
    "attack(gallery_ids), black box": lambda w, v: w.search(images=w.images[:3], gallery_ids=v),
    "attack(gallery_ids), service": lambda w, v: w.search(w.service(), w.images[:3], gallery_ids=v),
    "attack_batch(gallery_ids)": lambda w, v: w.attack_batch(w.images[:3], ids=v),
    "audit(gallery_ids)": lambda w, v: audit(w.gallery, w.images[:3], THREAT, trials=1, gallery_ids=v),
    "smallest_budget(gallery_ids)": lambda w, v: w.smallest(gallery_ids=v),
    "choose(gallery_ids)": lambda w, v: choose(w.gallery, w.images[:3], QueryRaise(), gallery_ids=v),
    "on_unseen(gallery_ids)": lambda w, v: w.unseen(gallery_ids=v),
}
NO_IDS = {
    "floats": [0.9, 1.0, 2.0],
    "a mask": torch.tensor([True, False, True]),
    "a mask of the gallery": torch.arange(COUNT) < 3,
    "one-hot": torch.eye(3).long(),
    "too few": [0, 1],
    "a column": [[0], [1], [2]],
    "text": ["0", "1", "2"],
}
OUT_OF_RANGE = {"too large": [0, 1, COUNT], "negative": np.array([0, -1, 2])}
CHOSEN = {
    "attack(targets)": lambda w, v: w.attack(QueryRaise(m=1), targets=v),
    "smallest_budget(targets)": lambda w, v: w.smallest(targets=v),
    "attack(targets), CA": lambda w, v: w.attack(CandidateLower(w=1), targets=v),
    "attack(preserved)": lambda w, v: w.attack(QueryRaise() + 1.0 * Preserve(g=1), preserved=v),
    "attack(targets), black box": lambda w, v: w.search(images=w.images[:3], targets=np.repeat(v, 3, 1)),
}
NOT_CHOSEN = {
    "fraction": [[3.7], [1.0], [2.0]],
    "mask": [[True], [False], [True]],
    "too large": [[0], [1], [COUNT]],
    "negative": [[0], [-1], [2]],
    "too few": [[0], [1]],
}
LABELS = {
    "Gallery.build(labels)": lambda w, v: Gallery.build(w.ranker, w.images, v),
    "Gallery(labels)": lambda w, v: Gallery(w.ranker, w.gallery.embeddings, v),
}
NO_LABELS = {
    "one-hot": lambda y: torch.nn.functional.one_hot(y),
    "scores": lambda y: torch.nn.functional.one_hot(y).float(),
    "floats": lambda y: y.float(),
    "bool": lambda y: y > 1,
    "too few": lambda y: y[:-1],
    "a column": lambda y: y[:, None],
    "names": lambda y: [f"class {label}" for label in y],
    "gaps": lambda y: [None, *y.tolist()[1:]],
}
EMBEDDINGS = {
    "Gallery(embeddings)": lambda w, v: Gallery(w.ranker, v),
    "attack(queries)": lambda w, v: w.attack(CandidateRaise(w=COUNT), queries=v),
}
NO_EMBEDDINGS = {
    "integers": lambda z: z.long(),
    "bool": lambda z: z > 0,
    "complex": lambda z: z + 0j,
    "NaN": lambda z: z * math.nan,
    "one": lambda z: z[0],
    "none at all": lambda z: z[:0],
}
INTEGERS = {
    "attack(seed)": lambda w, v: w.attack(seed=v),
    "smallest_budget(seed)": lambda w, v: w.smallest(seed=v),
    "attack(seed), black box": lambda w, v: w.search(seed=v),
    "audit(seed)": lambda w, v: audit(w.gallery, w.images, THREAT, trials=1, seed=v),
    "choose(seed)": lambda w, v: choose(w.gallery, w.images, QueryRaise(), seed=v),
    "robustness_score(seed)": lambda w, v: robustness_score(w.gallery, w.images, seed=v),
    "accuracy(seed)": lambda w, v: accuracy(w.gallery, v),
}
COUNTED = "budget trials first visible k queries"  # what they are called in messages
COUNTS = {
    "attack(budget)": lambda w, v: w.search(budget=v),
    "AuditOptions(first)": lambda w, v: AuditOptions(first=v),
    "robustness_score(trials)": lambda w, v: robustness_score(w.gallery, w.images, trials=v),
    "LocalOracle(visible)": lambda w, v: LocalOracle(w.gallery, v),
    "ListOracle(visible)": lambda w, v: w.service(v),
    "HttpOracle(visible)": lambda w, v: HttpOracle(None, Cache(), v),
    "BudgetedOracle(budget)": lambda w, v: BudgetedOracle(w.oracle, v),
    "recall_at(k)": lambda w, v: recall_at(w.gallery, v),
    "recalls_at(ks)": lambda w, v: recalls_at(w.gallery, [1, v]),
}
NUMBERS = {
    "Threat(eps)": lambda w, v: Threat(v),
    "robustness_score(eps)": lambda w, v: robustness_score(w.gallery, w.images, eps=v),
    "plan(time_limit)": lambda w, v: plan(w.gallery, w.images, THREAT, time_limit=v),
    "AuditOptions(time_limit)": lambda w, v: AuditOptions(time_limit=v),
    "xi": lambda w, v: v * Preserve(),
}
FLAGS = {
    "attack(exclude_self)": lambda w, v: w.attack(gallery_ids=[0, 1, 2], exclude_self=v),
    "choose(exclude_self)": lambda w, v: choose(w.gallery, w.images, QueryRaise(), exclude_self=v),
    "transfer(exclude_self)": lambda w, v: transfer(w.result, w.gallery, MaxShift(), exclude_self=v),
    "on_unseen(exclude_self)": lambda w, v: w.unseen(exclude_self=v),
}
THINGS = {
    "attack(target)": lambda w, v: attack(v, w.images, MaxShift(), THREAT),
    "attack(goal)": lambda w, v: attack(w.gallery, w.images, v, THREAT),
    "attack(threat)": lambda w, v: attack(w.gallery, w.images, MaxShift(), v),
    "attack(method)": lambda w, v: attack(w.gallery, w.images, MaxShift(), THREAT, method=v),
    "audit(gallery)": lambda w, v: audit(v, w.images, THREAT),
    "audit(threat)": lambda w, v: audit(w.gallery, w.images, v),
    "smallest_budget(gallery)": lambda w, v: smallest_budget(v, w.images, QueryRaise()),
    "smallest_budget(goal)": lambda w, v: smallest_budget(w.gallery, w.images, v),
    "choose(gallery)": lambda w, v: choose(v, w.images, QueryRaise()),
    "choose(goal)": lambda w, v: choose(w.gallery, w.images, v),
    "transfer(gallery)": lambda w, v: transfer(w.result, v, MaxShift()),
    "transfer(goal)": lambda w, v: transfer(w.result, w.gallery, v),
    "on_unseen(gallery)": lambda w, v: on_unseen(w.universal, v, CandidateRaise(), w.images),
    "on_unseen(goal)": lambda w, v: on_unseen(w.universal, w.gallery, v, w.images),
    "robustness_score(gallery)": lambda w, v: robustness_score(v, w.images),
    "accuracy(gallery)": lambda w, v: accuracy(v),
    "LocalOracle(gallery)": lambda w, v: LocalOracle(v, 3),
}


def each(doors, values):
    """All doors with all values, by their names."""
    return pytest.mark.parametrize(
        ("door", "value"),
        [
            pytest.param(doors[door], values[value], id=f"{door}: {value}")
            for door in doors
            for value in values
        ],
    )


def refused(name, door, *given):
    """The message of the door, which is one line and names the argument."""
    with pytest.raises(RankproofError) as caught:
        door(*given)
    message = str(caught.value)
    assert "\n" not in message
    assert message.split(":")[0].split(" must")[0] in name
    return message


@each(IMAGES, NO_IMAGES)
def test_every_door_refuses_what_is_no_image(world, door, value):
    refused(("images", "queries"), door, world, value(world.images))


@each(IDS, NO_IDS)
def test_every_door_refuses_what_is_no_position(world, door, value):
    refused(("gallery_ids",), door, world, value)


@each({door: run for door, run in IDS.items() if "service" not in door}, OUT_OF_RANGE)
def test_every_door_refuses_positions_outside_the_gallery(world, door, value):
    message = refused(("gallery_ids",), door, world, value)
    assert "expected 3 gallery positions in 0 .. 11, got " in message


@each(CHOSEN, NOT_CHOSEN)
def test_every_door_refuses_chosen_items_that_are_no_positions(world, door, value):
    refused(("targets", "preserved"), door, world, value)


@each(LABELS, NO_LABELS)
def test_every_door_refuses_what_is_no_label(world, door, value):
    refused(("labels",), door, world, value(world.labels))


@each(EMBEDDINGS, NO_EMBEDDINGS)
def test_every_door_refuses_what_is_no_embedding(world, door, value):
    refused(("embeddings", "queries"), door, world, value(world.gallery.embeddings))


@each(INTEGERS | COUNTS, {repr(value): value for value in (1.0, True, math.nan, "1", 2.5)})
def test_every_door_refuses_what_is_no_integer(world, door, value):
    words = "seed budget trials first visible k queries"
    assert " must be an integer, got " in refused(words, door, world, value)


@each(COUNTS, {"0": 0, "-1": -1})
def test_every_door_refuses_counts_below_one(world, door, value):
    assert f"got {value}" in refused(COUNTED, door, world, value)


@each(NUMBERS, {repr(value): value for value in (math.nan, math.inf, -0.5, True, "1")})
def test_every_door_refuses_what_is_no_finite_number(world, door, value):
    refused("eps time_limit xi", door, world, value)


@each(FLAGS, {repr(value): value for value in (1, "no", None)})
def test_every_door_refuses_what_is_neither_true_nor_false(world, door, value):
    assert "must be True or False" in refused("exclude_self", door, world, value)


@each(THINGS, {"a name": "pgd", "a number": 0.03, "a class": PGD})
def test_every_door_refuses_a_name_or_a_number_in_place_of_the_thing(world, door, value):
    assert ": expected a " in refused("target goal threat method gallery", door, world, value)


# -- that no door is forgotten -------------------------------------------------------------------------------

CHECKED = {
    *("images", "queries", "gallery_ids", "targets", "preserved", "labels", "embeddings", "seed", "budget"),
    *("trials", "visible", "eps", "exclude_self", "gallery", "goal", "threat", "target", "method"),
}
RESULTS = (
    "AttackResult",
    "AttackSummary",
    "AuditResult",
    "BudgetSummary",
    "Epoch",
    "SmallestBudgets",
)  # made by what is checked
ELSEWHERE = {  # a parameter of that name that something else looks at
    "robustness_score(method)",  # as attack does
    "audit(trials)",  # a number, or a text of its own: tests/audit/test_counts.py
    "accuracy(queries)",  # a SeparateQueries, which looks at what it is made of
}


def public_parameters():
    """Every parameter of the public functions, and of the classes with which a user begins."""
    for name in rankproof.__all__:
        value = getattr(rankproof, name)
        if isinstance(value, type) and (issubclass(value, Goal | Exception) or name in RESULTS):
            continue
        for parameter in inspect.signature(value).parameters:
            yield f"{name}({parameter})", parameter
    for parameter in inspect.signature(Gallery.build).parameters:
        yield f"Gallery.build({parameter})", parameter


def test_every_parameter_of_the_public_interface_is_looked_at_here():
    doors = (IMAGES, IDS, CHOSEN, LABELS, EMBEDDINGS, INTEGERS, COUNTS, NUMBERS, FLAGS, THINGS)
    known = {name for table in doors for name in table} | ELSEWHERE
    missing = {name for name, parameter in public_parameters() if parameter in CHECKED} - known
    assert not missing


def public_values():
    """One of each class of parameters: goals, methods, threats, options, the parts of a recipe."""
    inner = InnerAttack(eps=0.1, steps=2, step=0.05)
    known = {"Threat": THREAT, "RateLimit": RateLimit(), "Subspace": Subspace("full"), "InnerAttack": inner}
    known |= {"Triplet": training.Triplet(margin=0.2), "Contrastive": training.Contrastive(margin=0.2)}
    known |= {name: getattr(training, name)(batch=4) for name in ("Balanced", "FromSet", "InBatch")}
    known |= {"SingleStep": training.SingleStep(eps=0.1), "SearchOptions": SearchOptions()}
    known |= {
        name: getattr(training, name)(inner=inner)
        for name in ("AntiCollapse", "EmbeddingShift", "Hardness", "MinMax", "Suppress", "WholeBatch")
    }
    known["Recipe"] = training.Recipe(loss=known["Triplet"], sampler=known["InBatch"])
    others = (*RESULTS, "Gallery", "BudgetedOracle", "Cached", "ListOracle", "LocalOracle")
    for package in (rankproof, training):
        for name in package.__all__:
            if is_dataclass(getattr(package, name)) and name not in (*others, *known):
                known[name] = getattr(package, name)()
    return known


def numbers_of(value):
    """The fields of a value that hold a number; a pair has a test of its own."""
    for field in fields(value):
        kind = str(field.type)
        if any(word in kind for word in ("int", "float", "Annotated")) and not kind.startswith(
            ("tuple", "coll")
        ):
            yield field.name


VALUES = public_values()


@pytest.mark.parametrize("name", VALUES)
def test_every_number_of_every_goal_method_and_recipe_is_checked(name):
    for field in numbers_of(VALUES[name]):
        for wrong in (math.nan, math.inf, -math.inf, True, "1", -1.5):
            with pytest.raises(RankproofError, match=rf"^{field} must be .*, got "):
                replace(VALUES[name], **{field: wrong})


def test_all_of_them_were_looked_at():
    names = {f"{name}.{field}" for name, value in VALUES.items() for field in numbers_of(value)}
    assert len(names) > 60
    assert {"PGD.step", "Reorder.xi", "Threat.eps", "QueryRaise.m", "Recipe.seed", "Augment.pad"} < names


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QueryRaise(form="distances"), "form must be inequality or distance, got 'distances'"),
        (lambda: PGD(rule="eccv"), "rule must be eccv20 or iccv21, got 'eccv'"),
        (lambda: Threat(0.1, grid="no"), "grid must be True or False, got 'no'"),
        (lambda: Subspace("wavelet", 3), "kind must be full or blocks"),
        (lambda: Reorder(k=3, order=(2.0, 1.0, 0.0)), "order must be an integer"),
        (lambda: Reorder(k=2, order=(True, False)), "order must be an integer"),
        (lambda: rankproof.Beta(lowest=2.0, highest=1.0), "lowest must not be above highest"),
        (lambda: rankproof.NES(decay=(0.9,)), "decay: both must be"),
        (lambda: rankproof.NES(decay=(0.9, math.nan)), "decay must be a finite number|decay: both must be"),
        (lambda: registry.parse("sp-qa+", xi=math.nan), "xi must be at least 0, got nan"),
        (lambda: registry.parse("oa", xi=math.inf), "xi must be a finite number, got inf"),
    ],
)
def test_choices_flags_and_pairs_are_checked_too(build, message):
    with pytest.raises(RankproofError, match=message):
        build()


def test_an_order_may_be_a_list():
    assert Reorder(k=3, order=[2, 0, 1]) == Reorder(k=3, order=(2, 0, 1))


@pytest.mark.parametrize("split", ["data", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(8, 1, 4, 4)}, r"images: a data set holds 8-bit integers, got torch\.float32"),
        ({"images": torch.rand(8, 1, 4, 4) * 255}, r"images: values must be floats in \[0, 1\]"),
        ({"images": torch.zeros(8, 4, 4, dtype=torch.uint8)}, "images: expected a batch"),
        ({"labels": torch.eye(4)[torch.arange(8) % 4]}, "labels: .* one-hot"),
        ({"labels": torch.arange(7)}, "labels: expected one integer for each of 8 items"),
    ],
)
def test_a_training_refuses_a_data_set_of_something_else(world, split, change, message):
    recipe = training.Recipe(loss=training.Triplet(margin=0.2), sampler=training.InBatch(batch=4))
    images, labels = torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.arange(8) % 4
    fine = Dataset(images=images, labels=labels, classes=tuple("abcd"), name="d", split=split, note="")
    splits = {"data": fine, "test": fine} | {split: replace(fine, **change)}
    with pytest.raises(RankproofError, match=rf"^{split}\.{message}"):
        training.train(world.ranker, **splits, recipe=recipe)


# -- a user's own ------------------------------------------------------------------------------------------


class OwnMethod:
    """A method that is no dataclass and has no checks."""

    name = "own"

    def passes(self, eps):
        return 1

    def run(self, original, initial, objective, threat, *, seed, rng_keys):
        return MethodOutput(original, 1, torch.zeros(len(original), dtype=torch.bool))


def test_a_method_without_parameters_is_taken(world):
    assert attack(world.gallery, world.images[:2], MaxShift(), THREAT, method=OwnMethod()).method == "own"


def test_parameters_are_checked_where_a_class_does_not_do_it_itself(world):
    broken = PGD(steps=3)
    object.__setattr__(broken, "step", math.nan)  # as a class with a __post_init__ of its own could be
    with pytest.raises(RankproofError, match=r"step must be in \[0, 1\], got nan"):
        attack(world.gallery, world.images[:2], MaxShift(), THREAT, method=broken)


# -- what is taken gives the right figures -----------------------------------------------------------


def as_lists(values):
    return values.tolist()


def as_numpy(values):
    return values.numpy()


@pytest.mark.parametrize("form", [as_lists, as_numpy, lambda y: y.to(torch.int16), lambda y: y.byte(), tuple])
def test_labels_of_any_integer_kind_give_the_same_recall(world, form):
    known = float(recall_at(world.gallery, 1).mean())
    gallery = Gallery.build(world.ranker, world.images, form(world.labels))
    assert float(recall_at(gallery, 1).mean()) == known
    named = Gallery.build(world.ranker, world.images, form(world.labels * 40 + 2))
    assert float(recall_at(named, 1).mean()) == known


@pytest.mark.parametrize("form", [as_lists, as_numpy, lambda ids: ids.to(torch.int32)])
def test_positions_of_any_integer_kind_give_the_same_attack(world, form):
    ids, targets, preserved = (
        torch.tensor([4, 0, 9]),
        torch.tensor([[1], [2], [3]]),
        torch.tensor([[5], [6], [7]]),
    )
    goal = QueryLower(m=1) + 100.0 * Preserve(g=1)

    def run(change):
        chosen = {"targets": change(targets), "preserved": change(preserved)}
        return attack(
            world.gallery, world.images[ids], goal, THREAT, method=ONE_STEP, gallery_ids=change(ids), **chosen
        )

    wanted, found = run(lambda values: values), run(form)
    assert torch.equal(found.gallery_ids, wanted.gallery_ids)
    assert torch.equal(found.targets, wanted.targets)
    assert torch.equal(found.adversarial, wanted.adversarial)
    assert torch.equal(found.rank_after, wanted.rank_after)


def test_floats_eight_bit_values_and_arrays_of_an_image_give_the_same_embeddings(world):
    whole = (world.images * 255).round().byte()
    galleries = [Gallery.build(world.ranker, form) for form in (whole, whole.double() / 255, whole.numpy())]
    for gallery in galleries[1:]:
        torch.testing.assert_close(gallery.embeddings, galleries[0].embeddings, rtol=0, atol=1e-12)


def test_a_numpy_seed_is_the_seed_it_says(world, tmp_path):
    result = world.attack(seed=np.int64(5))
    assert torch.equal(result.adversarial, world.attack(seed=5).adversarial)
    assert rankproof.AttackResult.load(result.save(tmp_path)).seed == 5


def test_a_black_gallery_is_refused(world):
    for images in ((world.images * 1.9).byte(), world.images / 255):
        with pytest.raises(RankproofError, match="images: all of them are black"):
            Gallery.build(world.ranker, images)


def test_a_score_of_images_in_another_order_is_refused(world):
    for images in (world.images.flip(0), (world.images * 255).round().byte().flip(0), world.images[:, :, :3]):
        with pytest.raises(RankproofError, match="images: they are not the gallery's own"):
            robustness_score(world.gallery, images, method=ONE_STEP)
    whole = (world.images * 255).round().byte()
    gallery = Gallery.build(world.ranker, whole, world.labels)
    assert robustness_score(gallery, whole.double() / 255, method=ONE_STEP).trials == COUNT


def test_classes_without_a_name_are_refused(world):
    with pytest.raises(RankproofError, match=r"classes: 2 names, but the gallery's labels are 0 \.\. 2"):
        audit(world.gallery, world.images, THREAT, trials=1, options=AuditOptions(classes=("a", "b")))


@pytest.mark.parametrize("row", [1, torch.tensor(1), [1], torch.tensor([False, True])], ids=str)
def test_one_row_of_a_result_is_a_result(world, row):
    part = world.result[row]
    assert len(part) == 1
    assert torch.equal(part.adversarial, world.result.adversarial[1:2])
    assert torch.equal(part.shift, world.result.shift[1:2])


def test_rows_that_are_no_positions_are_refused(world):
    with pytest.raises(RankproofError, match="rows of a result are positions"):
        world.result[[0.5]]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (lambda images: ["abcde"] * len(images), "a str, not a list of ids"),
        (lambda images: [{1, 2, 3, 4, 5}] * len(images), "a set, not a list of ids"),
        (lambda images: torch.rand(len(images), 5), "floats such as"),
        (lambda images: np.random.default_rng(0).random((len(images), 5)), "floats such as"),
        (lambda images: [list(np.ones(5, np.float32))] * len(images), "floats such as 1 as ids"),
        (lambda images: [[(i, 0.5) for i in range(5)]] * len(images), r"\(0, 0.5\) as an id"),
        (lambda images: [[{"id": i} for i in range(5)]] * len(images), "{'id': 0} as an id"),
        (lambda images: [[object() for _ in range(5)]] * len(images), "object at .* as an id"),
    ],
    ids=[
        "text",
        "set",
        "distances",
        "distances of NumPy",
        "list of distances",
        "pairs",
        "records",
        "objects",
    ],
)
def test_a_service_that_answers_with_something_else_is_an_error(world, answers, message):
    with pytest.raises(RankproofError, match=message):
        world.search(ListOracle(answers, 5))


@pytest.mark.parametrize(
    "kind", [list, lambda row: list(row.numpy()), lambda row: [(int(i), "a") for i in row]]
)
def test_equal_ids_of_any_kind_are_one_item(world, kind):
    rows = torch.tensor([[7, 3, 9, 1], [1, 9, 3, 7]])
    oracle = ListOracle(lambda images: [kind(row) for row in rows], 4)
    nothing = TrackedItems(torch.arange(2), torch.empty(2, 0, dtype=torch.int64))
    assert oracle.top(world.images[:2], 4, nothing).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_folders_and_files_may_be_text(world, tmp_path):
    first = world.search(search_folder=str(tmp_path / "search"))
    assert list((tmp_path / "search").iterdir())
    assert torch.equal(world.search(search_folder=tmp_path / "search").adversarial, first.adversarial)
    assert AuditOptions(journal=str(tmp_path / "audit.jsonl")).journal


def test_a_batch_of_8_bit_values_is_for_make_batch(world):
    with pytest.raises(RankproofError, match="images: a batch holds floats"):
        world.attack_batch((world.images * 255).byte())


def test_a_list_that_faiss_filled_up_is_shorter(world):
    filled = ListOracle(lambda images: np.array([[7, 3, 9, 1, -1, -1]] * len(images)), 6)
    short = ListOracle(lambda images: [[7, 3, 9, 1]] * len(images), 6)
    images, nothing = world.images[:2], TrackedItems(torch.arange(2), torch.empty(2, 0, dtype=torch.int64))
    assert torch.equal(filled.top(images, 4, nothing), short.top(images, 4, nothing))
    with pytest.raises(RankproofError, match="4 different ids, 5 are needed"):
        filled.top(images, 5, nothing)


def test_what_is_weighed_with_nothing_cannot_be_sought(world):
    with pytest.raises(RankproofError, match="must be above 0"):
        world.attack(0.0 * QueryRaise() + Preserve())
