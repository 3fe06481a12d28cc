from dataclasses import fields, is_dataclass, replace
from types import FunctionType, MethodType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import NES, PSO, SPSA, Beta, Gallery, Rand, Ranker, Reorder, ThompsonSampling, Threat
from rankproof.methods import BlackBoxMethod
from rankproof.methods.black_box.search import Search, SearchInterruptedError, SearchState
from rankproof.methods.black_box.subspace import Subspace
from rankproof.oracles import BudgetedOracle, LocalOracle, TrackedItems
from rankproof.types import Feedback, QueryFn

SHAPE = (1, 4, 4)
EPS = 16 / 255
METHODS = {
    "rand": Rand(population=6),
    "beta": Beta(population=6),
    "pso": PSO(particles=6),
    "nes": NES(pairs=3),
    "spsa": SPSA(pairs=3),
    "thompson": ThompsonSampling(population=6),
}
PUBLISHED = {"rand": Rand(), "beta": Beta(), "pso": PSO(), "nes": NES(), "spsa": SPSA()}
SUBSPACES = [Subspace("full"), Subspace("blocks", 2), Subspace("bilinear", 3), Subspace("cosine", 3)]
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
every_subspace = pytest.mark.parametrize("subspace", SUBSPACES, ids=lambda subspace: subspace.name)


def hilly(images):
    # A score below 1 of any images (..., c, h, w).
    weights = torch.linspace(-3, 4, 16, dtype=images.dtype).view(SHAPE)
    return (torch.sin(7 * images * weights) * weights).sum((-1, -2, -3)) / 60


class Stub:
    # A search system that is a call and nothing else; remembers what it was sent.

    def __init__(self, score=lambda images, attacks: hilly(images)):
        self.score, self.images, self.attacks = score, [], []

    def __call__(self, images, attacks):
        self.images.append(images.clone())
        self.attacks.append(attacks.tolist())
        return Feedback(torch.zeros(*images.shape[:2], 2, dtype=torch.int64), self.score(images, attacks))

    def spent(self, attack):
        return 1 + sum(i.shape[1] for i, a in zip(self.images, self.attacks, strict=True) if attack in a)


class Table(Stub):
    # Answers from a table of scores (attacks, queries), the clean query first.

    def __init__(self, table):
        super().__init__()
        self.table, self.next = torch.as_tensor(table, dtype=torch.float64), {}

    def __call__(self, images, attacks):
        rows = []
        for attack in attacks.tolist():
            start = self.next.get(attack, 1)
            rows.append(self.table[attack, start : start + images.shape[1]])
            self.next[attack] = start + images.shape[1]
        self.score = lambda *_: torch.stack(rows)
        return super().__call__(images, attacks)

    def clean(self):
        return Feedback(torch.zeros(len(self.table), 1, 2, dtype=torch.int64), self.table[:, :1])


def search(
    method, original, query, *, eps=EPS, budget=40, subspace=SUBSPACES[0], grid=False, seed=3, rng_keys=None
):
    return Search(
        method=method,
        original=original,
        threat=Threat(eps, grid=grid),
        subspace=subspace,
        query=query,
        rng_keys=torch.arange(len(original)) if rng_keys is None else torch.as_tensor(rng_keys),
        seed=seed,
        budget=budget,
        visible=9,
        k=2,
    )


def clean_of(original):
    return Feedback(torch.zeros(len(original), 1, 2, dtype=torch.int64), hilly(original[:, None]))


def finish(work, clean):
    state = work.begin(clean)
    while not work.done(state):
        state = work.step(state)
    return state


def run(method, original, query=None, clean=None, **options):
    query = Stub() if query is None else query
    return finish(search(method, original, query, **options), clean or clean_of(original)).history


def same(a, b):
    # Whether two values of tensors are equal to the bit; NaN equals NaN.
    return a.arrays().keys() == b.arrays().keys() and all(
        own.dtype == b.arrays()[name].dtype and own.numpy().tobytes() == b.arrays()[name].numpy().tobytes()
        for name, own in a.arrays().items()
    )


# -- every method ----------------------------------------------------------------------------------


@every_method
@every_subspace
@pytest.mark.parametrize("grid", [False, True], ids=["floats", "8 bits"])
def test_stays_in_the_threat_set_with_every_image_it_sends(make, method, subspace, grid):
    images = make.images(2, seed=1)
    images[0, 0, 0] = torch.tensor([0.0, 1.0, 0.001, 0.999])
    original = Threat(EPS, grid=grid).start(images)
    stub = Stub()
    history = run(method, original, stub, subspace=subspace, grid=grid, eps=EPS)
    assert len(stub.images) > 4
    for sent in [*stub.images, history.images[:, None]]:
        flat = sent.flatten(0, 1)
        Threat(EPS).check(flat, original[:, None].expand_as(sent).flatten(0, 1))
        assert float(flat.min()) >= 0
        assert float(flat.max()) <= 1
        if grid:
            assert torch.equal(torch.round(flat * 255) / 255, flat)


@given(
    name=st.sampled_from(sorted(METHODS)), eps=st.floats(1e-4, 1), grid=st.booleans(), seed=st.integers(0, 9)
)
def test_stays_in_the_threat_set_at_any_size(make, name, eps, grid, seed):
    original = Threat(eps, grid=grid).start(make.images(1, seed))
    stub = Stub()
    run(METHODS[name], original, stub, eps=eps, grid=grid, seed=seed, budget=20)
    for sent in stub.images:
        Threat(eps).check(sent.flatten(0, 1), original.expand_as(sent[0]))


@every_method
@pytest.mark.parametrize("budget", [1, 2, 5, 6, 7, 8, 12, 13, 40])
def test_spends_exactly_its_budget_whatever_the_population_is(make, method, budget):
    original, stub = make.images(2), Stub()
    history = run(method, original, stub, budget=budget)
    assert history.spent.tolist() == [budget] * 2
    assert [stub.spent(attack) for attack in range(2)] == [budget] * 2
    assert history.scores.shape == (2, budget)
    assert not history.scores.isnan().any()
    assert all(images.shape[1] <= 6 for images in stub.images)


@pytest.mark.parametrize("method", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_a_budget_below_the_published_population_sends_the_first_of_it(make, method):
    original, few, many = make.images(1), Stub(), Stub()
    history = run(method, original, few, budget=8)
    run(method, original, many, budget=60)
    assert history.spent.tolist() == [8]
    assert torch.equal(few.images[0], many.images[0][:, :7])


@every_method
def test_the_scores_stand_in_the_order_of_the_queries_and_the_best_image_is_kept(make, method):
    original, stub = make.images(3), Stub()
    history = run(method, original, stub, budget=33)
    sent = torch.cat([original[:, None], *stub.images], dim=1)
    scores = hilly(sent)
    torch.testing.assert_close(history.scores, scores.to(history.scores))
    best, place = scores.max(1)
    assert torch.equal(history.score, best)
    assert torch.equal(history.images, sent[torch.arange(3), place])


@every_method
def test_nothing_happens_without_room_or_without_a_second_query(make, method):
    original = make.images(2)
    for options in ({"eps": 0.0}, {"budget": 1}):
        stub = Stub()
        history = run(method, original, stub, **options)
        assert stub.images == []
        assert torch.equal(history.images, original)
        assert history.spent.tolist() == [1, 1]
        assert torch.equal(history.score, hilly(original))


@every_method
@every_subspace
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(make, method, subspace):
    original, stubs = make.images(2), [Stub(), Stub(), Stub()]
    histories = [
        run(method, original, stub, seed=seed, subspace=subspace, budget=21)
        for stub, seed in zip(stubs, (3, 3, 4), strict=True)
    ]
    assert same(histories[0], histories[1])
    assert torch.equal(torch.cat(stubs[0].images, 1), torch.cat(stubs[1].images, 1))
    assert not torch.equal(stubs[0].images[0], stubs[2].images[0])


@every_method
@every_subspace
def test_the_make_up_of_the_batch_does_not_change_an_attack(make, method, subspace):
    original, keys = make.images(5, dtype=torch.float32), torch.tensor([70, 3, 12, 5, 9])
    together = run(method, original, rng_keys=keys, subspace=subspace)
    for rows in ([2], [4, 0], [3, 2, 1]):
        apart = run(method, original[rows], rng_keys=keys[rows], subspace=subspace)
        assert same(apart, together.take(torch.tensor(rows)))


@every_method
def test_the_global_generators_are_neither_used_nor_touched(make, method):
    original = make.images(1)
    torch.manual_seed(1)
    first, state = run(method, original), torch.get_rng_state()
    torch.manual_seed(2)
    assert same(run(method, original), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@every_method
def test_a_search_stopped_after_any_round_goes_on_as_if_it_had_not(make, method):
    original = make.images(3)
    table = 0.9 * torch.rand(3, 45, generator=make.random(1), dtype=torch.float64)
    table[1, 15] = 1.0
    work = search(method, original, Table(table), budget=45)
    steps = [work.begin(Table(table).clean())]
    while not work.done(steps[-1]):
        steps.append(work.step(steps[-1]))
    assert len(steps) == 9
    for start in steps:  # what was kept is a value: later rounds did not change it
        query = Table(table)
        query.next = {attack: int(spent) for attack, spent in enumerate(start.history.spent)}
        again = search(method, original, query, budget=45)
        state = SearchState(
            replace(start.history),
            start.method_state.take(torch.arange(len(start.running))),
            start.running,
            start.number,
        )
        while not again.done(state):
            state = again.step(state)
        assert same(state.history, steps[-1].history)


# -- perfect attacks are finished ------------------------------------------------------------------


@every_method
def test_perfect_attacks_leave_the_batch_and_spend_nothing_more(make, method):
    table = torch.full((4, 40), -1.0)
    table[0, 0] = 1.0  # the clean image
    table[2, 9] = 1.0  # in the second round, queries 7 to 12
    table[3, 20] = 1 - 1e-5  # as good as tau can be short of perfect: it goes on
    stub = Table(table)
    history = run(method, make.images(4), stub, stub.clean())
    assert stub.attacks == [[1, 2, 3]] * 2 + [[1, 3]] * 5
    assert history.spent.tolist() == [1, 40, 13, 40]
    assert history.score.tolist() == pytest.approx([1, -1, 1, 1 - 1e-5])
    assert torch.equal(history.images[0], make.images(4)[0])
    assert torch.equal(history.images[2], stub.images[1][1, 2])
    assert history.scores.isnan().sum(1).tolist() == [39, 0, 27, 0]
    assert torch.equal(history.scores.nan_to_num(0)[2, :13], table[2, :13])


@every_method
def test_those_that_stay_do_not_notice_that_others_left(make, method):
    original = make.images(3)

    def but_one(images, attacks):
        return torch.where(attacks[:, None] == 1, torch.ones(()).to(images), hilly(images))

    together = run(method, original, Stub(but_one))
    assert together.spent.tolist() == [40, 7, 40]
    apart = run(method, original[[0, 2]], rng_keys=[0, 2])
    assert same(apart, together.take(torch.tensor([0, 2])))


@every_method
def test_a_batch_of_perfect_attacks_sends_nothing(make, method):
    stub = Table([[1.0] * 40] * 2)
    history = run(method, make.images(2), stub, stub.clean())
    assert stub.images == []
    assert history.spent.tolist() == [1, 1]


# -- failures --------------------------------------------------------------------------------------


class Failing(Stub):
    # Fails at one round.

    def __init__(self, at, error):
        super().__init__()
        self.at, self.error = at, error

    def __call__(self, images, attacks):
        if len(self.images) == self.at:
            raise self.error
        return super().__call__(images, attacks)


@every_method
def test_a_failure_carries_what_was_found_before_and_the_search_goes_on_from_there(make, method):
    original = make.images(2)
    work = search(method, original, Failing(2, ConnectionError("gone away")))
    with pytest.raises(SearchInterruptedError, match="failed after 13 of 40 queries: gone away") as caught:
        finish(work, clean_of(original))
    state = caught.value.state
    assert state.history.spent.tolist() == [13, 13]
    stub = Stub()
    again = search(method, original, stub)
    while not again.done(state):
        state = again.step(state)
    assert same(state.history, run(method, original))
    assert stub.spent(0) == 40 - 13 + 1


def test_an_interrupt_is_not_swallowed(make):
    original = make.images(1)
    with pytest.raises(KeyboardInterrupt):
        finish(search(METHODS["rand"], original, Failing(1, KeyboardInterrupt())), clean_of(original))


# -- information barrier ---------------------------------------------------------------------------


@every_method
def test_a_table_of_scores_is_all_a_method_needs(make, method):
    table = 2 * torch.rand(2, 40, generator=make.random(0), dtype=torch.float64) - 1
    stub = Table(table)
    assert isinstance(stub, QueryFn)
    assert isinstance(method, BlackBoxMethod)
    history = run(method, make.images(2), stub, stub.clean())
    torch.testing.assert_close(history.score, table.max(1).values)


def reachable(*roots):
    # Everything that can be reached through attributes, containers and closures.
    found, stack = {}, list(roots)
    while stack:
        thing = stack.pop()
        if id(thing) in found or isinstance(thing, type):
            continue
        found[id(thing)] = thing
        if isinstance(thing, dict):
            stack += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            stack += thing
        elif isinstance(thing, MethodType):
            stack += [thing.__self__, thing.__func__]
        elif isinstance(thing, FunctionType):
            stack += [cell.cell_contents for cell in thing.__closure__ or ()] + list(thing.__defaults__ or ())
        stack += getattr(thing, "__dict__", {}).values()
        stack += [getattr(thing, field.name) for field in fields(thing)] if is_dataclass(thing) else []
    return list(found.values())


class Spy:
    # A method that remembers all it was ever given.

    def __init__(self, method):
        self.method, self.given = method, []
        self.name, self.grid = method.name, method.grid

    def subspace(self, image_shape):
        return self.method.subspace(image_shape)

    def begin(self, *given):
        self.given.append(given)
        return self.method.begin(*given)

    def ask(self, *given):
        self.given.append(given)
        return self.method.ask(*given)

    def tell(self, *given):
        self.given.append(given)
        return self.method.tell(*given)


@every_method
def test_neither_a_gallery_nor_a_ranker_can_be_reached_from_what_a_method_is_given(gallery, pictures, method):
    oracle, goal = BudgetedOracle(LocalOracle(gallery, 9), 40), Reorder(k=2)
    ids = gallery.search(gallery.embeddings[:2], 60)[:, [50, 40]]  # out of sight: no attack is done early

    def query(images, attacks):
        places = oracle(images, TrackedItems(attacks, ids[attacks]))
        return Feedback(places, goal.score(places, 9))

    spy = Spy(method)
    work = search(spy, pictures[:2], query)
    finish(work, query(pictures[:2, None], torch.arange(2)))
    assert len(spy.given) > 5
    hidden = Gallery | Ranker | LocalOracle | BudgetedOracle | torch.nn.Module
    assert any(isinstance(thing, Gallery) for thing in reachable(work))  # the walk does find what is there
    assert not any(isinstance(thing, hidden) for thing in reachable(spy))
    secret = {gallery.embeddings.data_ptr(), gallery.images.data_ptr()}
    tensors = [thing for thing in reachable(spy) if isinstance(thing, torch.Tensor)]
    assert len(tensors) > 10
    assert not secret & {tensor.untyped_storage().data_ptr() for tensor in tensors}
