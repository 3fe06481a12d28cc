import math

import pytest
import torch

from rankproof import RankproofError, ThompsonSampling, Threat
from rankproof.methods.black_box.base import Problem
from rankproof.methods.black_box.search import Search
from rankproof.methods.black_box.subspace import Subspace
from rankproof.types import Feedback

EPS = 8 / 255


def problem(shape=(1, 6, 6), *, k=3, visible=20, budget=200, count=2, seed=0):
    bound = torch.full((count, *shape), EPS)
    return Problem(
        low=-bound,
        high=bound,
        eps=EPS,
        rng_keys=torch.arange(count),
        seed=seed,
        budget=budget,
        visible=visible,
        k=k,
    )


def feedback_of(places, visible=20):
    places = torch.as_tensor(places)
    later = places.masked_fill(places >= visible, -1)
    i, j = torch.triu_indices(places.shape[-1], places.shape[-1], offset=1)
    score = (places[..., i] < later[..., j]).double().mean(-1) * 2 - 1
    return Feedback(places, score)


class Linear:
    # A search system whose items move linearly with smooth changes: places are counted among a crowd.

    def __init__(self, original, *, k=3, crowd=40, seed=5):
        source = torch.Generator().manual_seed(seed)
        size = original[0].numel()
        height = original.shape[-1]
        wave = torch.cos(math.pi * (torch.arange(height)[:, None] + 0.5) * torch.arange(3) / height)
        patterns = torch.einsum("hi,wj->ijhw", wave, wave).reshape(9, size)
        self.slopes = torch.randn(k + crowd, 9, generator=source) @ patterns
        self.offsets = torch.arange(k + crowd) * 0.02 * size
        self.original, self.k = original, k
        self.order = torch.arange(k).flip(0)  # wanted: the present last comes first

    def __call__(self, images, attacks):
        change = (images - self.original[attacks][:, None]).flatten(2) / EPS
        distances = self.offsets + change @ self.slopes.t()  # (b, p, items)
        places = (distances[..., None, :] < distances[..., : self.k, None]).sum(-1)
        return feedback_of(places[..., self.order].clamp(max=20))


def run(method, original, *, budget=100, eps=EPS, seed=0, query=None):
    query = query or Linear(original)
    search = Search(
        method=method,
        original=original,
        threat=Threat(eps, grid=method.grid),
        subspace=Subspace("full"),
        query=query,
        rng_keys=torch.arange(len(original)),
        seed=seed,
        budget=budget,
        visible=20,
        k=3,
    )
    state = search.begin(query(original[:, None], torch.arange(len(original))))
    while not search.done(state):
        state = search.step(state)
    return state.history


def test_a_linear_search_system_is_learned_within_a_hundred_queries():
    original = torch.full((4, 1, 8, 8), 0.5) + 0.002 * torch.arange(4)[:, None, None, None]
    original = torch.round(original * 255) / 255
    history = run(ThompsonSampling(), original)
    assert history.scores[:, 0].tolist() == [-1] * 4
    assert history.score.tolist() == [1] * 4
    assert int(history.spent.max()) < 100


def test_the_belief_is_the_ridge_regression_of_the_scaled_places():
    method, task = ThompsonSampling(noise=0.4), problem(count=1)
    places = torch.randint(20, (1, 30, 3), generator=torch.Generator().manual_seed(1))
    asked = EPS * task.uniform(0, "points", 30)
    clean = feedback_of([[[0, 1, 2]]])
    belief = method.tell(task, method.begin(task, clean), 0, asked, feedback_of(places))
    waves = method._waves(task)
    x = torch.cat([waves.features(torch.zeros_like(asked[:, :1])), waves.features(asked)], 1)[0].double()
    y = torch.cat([torch.tensor([[0.0, 1, 2]]), places[0].float()]).double().sqrt()
    precision, _ = method._precision(belief)
    prior = torch.diagonal(precision[0].double() - x.mT @ x)
    length = x[:, :-2].square().sum(1).mean()
    assert prior[:-2] == pytest.approx(torch.full((len(prior) - 2,), 0.4 * max(0.3, float(length))), rel=1e-3)
    mean = torch.cholesky_solve(belief.cross, torch.linalg.cholesky(precision))[0].double()
    assert torch.allclose(mean, torch.linalg.solve(x.mT @ x + torch.diag(prior), x.mT @ y), atol=2e-3)


def test_the_slope_is_that_of_the_smoothed_goal():
    for visible in (20, None):
        method, task = ThompsonSampling(temperature=0.7), problem((2, 5, 4), visible=visible, count=1)
        waves = method._waves(task)
        source = torch.Generator().manual_seed(2)
        point = (torch.rand(1, 2, 2, 5, 4, generator=source) - 0.5).double() * EPS
        double = type(waves)(
            *(part.double() for part in (waves.rows, waves.columns, waves.weights)), waves.eps
        )
        features = double.features(point).shape[-1]
        draws = 3 * torch.randn(1, 2, features, 3, generator=source).double()

        def goal(at, double=double, draws=draws, visible=visible):
            y = torch.einsum("bpf,bpfk->bpk", double.features(at), draws)
            total = torch.zeros(())
            for i in range(3):
                for j in range(i + 1, 3):
                    pair = torch.sigmoid((y[..., j] - y[..., i]) / 0.7)
                    if visible is not None:
                        pair = pair * torch.sigmoid((math.sqrt(visible - 0.5) - y[..., j]) / 0.7)
                    total = total + pair.sum()
            return total

        at = point.clone().requires_grad_(True)
        (expected,) = torch.autograd.grad(goal(at), at)
        y = (double.features(point)[:, :, None] @ draws)[:, :, 0]
        back = torch.einsum("bpk,bpfk->bpf", method._goal_slope(y, visible), draws)
        assert torch.allclose(double.slope(back, point), expected, rtol=1e-5, atol=1e-7)


def test_the_first_round_tries_every_amplitude_and_half_of_each_round_the_whole_ball():
    method, task = ThompsonSampling(), problem(budget=1000)
    belief = method.begin(task, feedback_of([[[2, 1, 0]]] * 2))
    first = method.ask(task, belief, 0).abs().amax((2, 3, 4)) / EPS
    assert first.shape == (2, 10)
    assert float(first.min()) == pytest.approx(0.1)
    assert (first[:, 5:] == 1).all()
    later = method._shares(task, belief, 7)
    assert later.shape == (2, 50)
    assert (later[:, 25:] == 1).all()


def test_amplitudes_follow_the_best_answer():
    method, task = ThompsonSampling(), problem(count=1)
    belief = method.begin(task, feedback_of([[[2, 1, 0]]]))
    small = torch.full((1, 1, 1, 6, 6), 0.2 * EPS)
    belief = method.tell(task, belief, 0, small, feedback_of([[[0, 1, 2]]]))
    assert float(belief.share) == pytest.approx(0.2)
    large = torch.full((1, 1, 1, 6, 6), EPS)
    belief = method.tell(task, belief, 1, large, feedback_of([[[0, 2, 1]]]))  # worse: the smaller one stays
    assert float(belief.share) == pytest.approx(0.2)
    assert float(method._shares(task, belief, 5).min()) < 0.2


@pytest.mark.parametrize(("budget", "rounds"), [(1000, [10, 20, 30, 40, 50, 50]), (100, [10] * 6)])
def test_small_budgets_get_small_rounds(budget, rounds):
    method, task = ThompsonSampling(), problem(budget=budget)
    assert [method._round(task, number) for number in range(6)] == rounds


def test_small_budgets_explore_less():
    # The same belief, random numbers and size of a round under every budget.
    method, belief = ThompsonSampling(population=10), None

    def draws(budget):
        task = problem(budget=budget)
        return method._draws(task, belief, 3).forward

    task = problem()
    belief = method.begin(task, feedback_of([[[2, 1, 0]]] * 2))
    belief = method.tell(
        task, belief, 0, EPS * task.uniform(0, "points", 9), feedback_of([[[0, 2, 1]] * 9] * 2)
    )
    mean = torch.cholesky_solve(belief.cross, torch.linalg.cholesky(method._precision(belief)[0]))[:, None]
    for budget, share in ((250, 0.5), (90, 0.3), (10, 0.1)):
        assert torch.allclose(draws(budget) - mean, share * (draws(1000) - mean), atol=1e-5)
    assert torch.equal(draws(5000), draws(1000))


def test_a_service_that_shows_nothing_leaves_the_clean_image_as_the_best():
    original = torch.full((2, 1, 8, 8), 128 / 255)

    def blind(images, attacks):
        return feedback_of(torch.full((*images.shape[:2], 3), 20))

    history = run(ThompsonSampling(), original, query=blind, budget=60)
    assert torch.equal(history.images, original)
    assert history.spent.tolist() == [60, 60]


@pytest.mark.parametrize("shape", [(3, 12, 9), (1, 2, 2), (3, 40, 40)])
def test_any_form_of_image_is_searched(shape):
    original = torch.full((1, *shape), 100 / 255)
    history = run(
        ThompsonSampling(),
        original,
        budget=30,
        query=lambda images, _: feedback_of(torch.ones(1, images.shape[1], 3).long()),
    )
    assert history.spent.tolist() == [30]


@pytest.mark.parametrize(
    "parameters",
    [{"noise": 0.0}, {"population": 0}, {"side": 0}, {"momentum": 1.0}, {"steps": 0}, {"temperature": -1.0}],
)
def test_impossible_parameters_are_refused(parameters):
    with pytest.raises(RankproofError, match=next(iter(parameters))):
        ThompsonSampling(**parameters)
