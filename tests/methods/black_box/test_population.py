from dataclasses import replace

import numpy as np
import pytest
import torch

from rankproof import PSO, Beta, Rand, RankproofError
from rankproof.methods.black_box.subspace import Subspace
from rankproof.rng import generator

METHODS = {"rand": Rand(population=9), "beta": Beta(population=9), "pso": PSO(particles=9)}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


# -- one attack, as the paper has it ---------------------------------------------------------------


def uniform(bench, purpose, key, count):
    return torch.rand(count, *bench.shape, generator=generator(bench.seed, key, purpose)).double() * 2 - 1


def naive_rand(bench, method, original, key, eps, rounds, allowed):
    return [
        torch.stack(
            [allowed(original + eps * r) for r in uniform(bench, f"rand/{number}", key, method.population)]
        )
        for number in range(rounds)
    ]


def naive_beta(bench, method, original, key, eps, rounds, allowed, rate=0.5):
    # The derivatives of the density are torch's own.
    a, b = (torch.ones(bench.shape, dtype=torch.float64) for _ in range(2))
    sent = []
    for number in range(rounds):
        seed = generator(bench.seed, key, f"beta/{number}").initial_seed()
        source = np.random.Generator(np.random.SFC64(seed))
        draws = torch.from_numpy(source.beta(a.numpy(), b.numpy(), (method.population, *bench.shape)))
        sent.append(torch.stack([allowed(original + eps * (2 * s - 1)) for s in draws]))
        steps = [torch.zeros(bench.shape, dtype=torch.float64), torch.zeros(bench.shape, dtype=torch.float64)]
        for s, image in zip(draws, sent[-1], strict=True):
            shapes = [a.clone().requires_grad_(), b.clone().requires_grad_()]
            density = torch.distributions.Beta(*shapes).log_prob(s.clamp(1e-6, 1 - 1e-6)).sum()
            for step, slope in zip(steps, torch.autograd.grad(density, shapes), strict=True):
                step += (bench.hilly(image) * slope).clamp(-5, 5) / method.population
        a, b = ((shape + rate * step).clamp(1e-7, 1e3) for shape, step in zip((a, b), steps, strict=True))
    return sent


def naive_pso(bench, method, original, key, eps, rounds, allowed):
    # One particle after the other; images in place of changes.
    count = method.particles
    places = [allowed(original + eps * r) for r in uniform(bench, "pso-place/0", key, count)]
    speeds = [2 * eps * r for r in uniform(bench, "pso-speed/0", key, count)]
    own, own_score = list(places), [-float("inf")] * count
    best, best_score = original, float(bench.hilly(original))
    sent = []
    for number in range(rounds):
        sent.append(torch.stack(places))
        for i, place in enumerate(places):
            score = float(bench.hilly(place))
            if score > own_score[i]:
                own[i], own_score[i] = place, score
            if score > best_score:
                best, best_score = place, score
        pulls = torch.rand(
            2, count, 1, 1, 1, generator=generator(bench.seed, key, f"pso-pull/{number}")
        ).double()
        for i in range(count):
            speeds[i] = (
                1.10 * speeds[i]
                + 0.57 * pulls[0, i] * (own[i] - places[i])
                + 0.44 * pulls[1, i] * (best - places[i])
            )
            places[i] = allowed(places[i] + speeds[i])
    return sent


NAIVE = {"rand": naive_rand, "beta": naive_beta, "pso": naive_pso}


@pytest.mark.parametrize(
    "method", [*METHODS.values(), Rand(), Beta(), PSO()], ids=lambda method: repr(method)[:20]
)
@pytest.mark.parametrize("key", [0, 12345])
def test_three_rounds_equal_a_naive_attack(bench, make, method, key):
    original, eps = make.images(1, seed=5), 8 / 255
    original[0, 0, 0] = torch.tensor([0.0, 1.0, 0.01, 0.99])

    def allowed(image):
        return image.clamp(original[0] - eps, original[0] + eps).clamp(0, 1)

    count = method.particles if isinstance(method, PSO) else method.population
    sent, _, _ = bench.walk(method, original, eps=eps, budget=1 + 3 * count, rng_keys=torch.tensor([key]))
    expected = NAIVE[method.name](bench, method, original[0], key, eps, 3, allowed)
    assert [images.shape[1] for images in sent] == [count] * 3
    for images, wanted in zip(sent, expected, strict=True):
        torch.testing.assert_close(images[0], wanted, rtol=0, atol=1e-8)


def test_the_published_settings():
    assert Rand().population == Beta().population == 50
    beta, pso = Beta(), PSO()
    assert (beta.rate, beta.bound, beta.lowest, beta.highest) == (None, 5.0, 1e-7, 1e3)
    assert (pso.particles, pso.inertia, pso.pull_own, pso.pull_best) == (40, 1.10, 0.57, 0.44)


@every_method
def test_what_is_not_clipped_by_an_image_fills_the_ball_evenly(bench, method):
    original, eps = torch.full((2, *bench.shape), 0.5, dtype=torch.float64), 0.1
    (first, *_), _, _ = bench.walk(method, original, eps=eps, budget=60)
    changes = ((first - 0.5) / eps).flatten()
    assert float(changes.abs().max()) <= 1 + 1e-9
    assert float(changes.mean()) == pytest.approx(0, abs=0.15)
    assert float(changes.square().mean()) == pytest.approx(1 / 3, abs=0.07)
    assert not torch.equal(first[0], first[1])


# -- beta ------------------------------------------------------------------------------------------


def test_beta_moves_its_mass_to_the_better_side(bench, make):
    sign = torch.where(torch.rand(bench.shape, generator=make.random(1)) > 0.5, 1.0, -1.0).double()
    original, eps = torch.full((2, *bench.shape), 0.5, dtype=torch.float64), 0.1

    def linear(images):
        return ((images - 0.5) * sign).sum((-1, -2, -3)) / (16 * eps)

    sent, states, _ = bench.walk(Beta(population=200), original, linear, eps=eps, budget=200 * 12)
    a, b = states[-1].a, states[-1].b
    assert ((a - b) * sign > 0).all()
    means = [float(((images - 0.5) * sign).mean()) / eps for images in sent]
    assert means[-1] > 0.15 > abs(means[0])


@pytest.mark.parametrize(
    ("method", "shape", "rate"),
    [
        (Beta(), (1, 25, 40), 0.5),
        (Beta(), (1, 7, 143), 3.0),
        (Beta(), (3, 32, 32), 3.0),
        (Beta(rate=0.25), (3, 32, 32), 0.25),
    ],
    ids=["1,000 values", "1,001 values", "published blocks", "given"],
)
def test_beta_steps_by_the_rate_of_its_number_of_latents(bench, method, shape, rate):
    problem = bench.problem(shape=shape)
    state = method.begin(problem, bench.feedback(torch.zeros(1, 1)))
    asked = torch.full((1, 50, *shape), 0.05, dtype=torch.float64)  # s = 3/4
    after = method.tell(
        problem, state, 0, asked, bench.feedback(torch.full((1, 50), 0.4, dtype=torch.float64))
    )
    # From a = b = 1: d log p / da = log s + 1, since digamma(2) - digamma(1) = 1.
    torch.testing.assert_close(after.a, torch.full_like(after.a, 1 + rate * 0.4 * (np.log(0.75) + 1)))
    torch.testing.assert_close(after.b, torch.full_like(after.b, 1 + rate * 0.4 * (np.log(0.25) + 1)))


def test_beta_clamps_the_gradient_of_each_draw_before_the_mean(bench):
    problem = bench.problem()
    asked = torch.full((1, 50, *bench.shape), -0.1, dtype=torch.float64)  # s = 0: log s is about -14
    asked[:, 25:] = 0.0
    state = Beta().begin(problem, bench.feedback(torch.zeros(1, 1)))
    after = Beta(rate=0.1).tell(
        problem, state, 0, asked, bench.feedback(torch.ones(1, 50, dtype=torch.float64))
    )
    expected = 1 + 0.1 * (-5 + np.log(0.5) + 1) / 2
    torch.testing.assert_close(after.a, torch.full_like(after.a, expected))


@pytest.mark.parametrize(("score", "low", "high"), [(1.0, 1e-7, 1e3), (-1.0, 1e-7, 1e3)])
def test_beta_keeps_its_shapes_in_their_range_and_can_still_draw(bench, score, low, high):
    problem, method = bench.problem(), Beta(rate=1e6)
    state = method.begin(problem, bench.feedback(torch.zeros(1, 1)))
    for number in range(4):
        asked = method.ask(problem, state, number)
        assert torch.isfinite(asked).all()
        assert float(asked.abs().max()) <= 0.1 + 1e-12
        state = method.tell(
            problem, state, number, asked, bench.feedback(torch.full((1, 50), score).double())
        )
        for shapes in (state.a, state.b):
            assert low * (1 - 1e-6) <= float(shapes.min())
            assert float(shapes.max()) <= high
    assert {float(shapes.min()) for shapes in (state.a, state.b)} & {low, high}


# -- particle swarm --------------------------------------------------------------------------------


def test_pso_returns_the_clean_image_where_nothing_beats_it(bench, make):
    original = make.images(2)

    def worse(images):
        return -(images - original[:, None]).abs().sum((-1, -2, -3)) / 16

    _, states, history = bench.walk(PSO(particles=5), original, worse, budget=40)
    assert torch.equal(history.images, original)
    assert torch.equal(history.score, torch.zeros(2, dtype=torch.float64))
    assert (states[-1].best == 0).all()
    assert (states[-1].best_score == 0).all()


def test_an_equal_score_does_not_replace_the_clean_image(bench, make):
    original = make.images(2)
    for method in METHODS.values():
        _, _, history = bench.walk(method, original, lambda x: torch.zeros(x.shape[:2]).double(), budget=30)
        assert torch.equal(history.images, original)


def test_pso_scores_its_start_and_each_of_24_moves_within_the_published_budget(bench, make):
    sent, _, history = bench.walk(PSO(), make.images(1), lambda x: bench.hilly(x) - 0.5, budget=1001)
    assert [images.shape[1] for images in sent] == [40] * 25
    assert history.spent.tolist() == [1001]


def test_pso_remembers_the_best_of_each_particle_and_of_all(bench, make):
    original = make.images(2, seed=8)
    sent, states, _ = bench.walk(PSO(particles=6), original, budget=1 + 6 * 6, eps=0.2)
    scores = torch.stack([bench.hilly(images) for images in sent[:-1]], dim=2)  # (b, p, rounds)
    end = states[-1]
    torch.testing.assert_close(end.own_score, scores.amax(2))
    best = torch.maximum(scores.amax((1, 2)), bench.hilly(original))
    torch.testing.assert_close(end.best_score, best)
    torch.testing.assert_close(bench.hilly(original + end.best), best)
    torch.testing.assert_close(bench.hilly(original[:, None] + end.own), end.own_score)


def test_speeds_start_with_up_to_the_width_of_the_ball_and_are_not_clipped(bench):
    problem = bench.problem(2)
    speeds = PSO(particles=200).begin(problem, bench.feedback(torch.zeros(2, 1))).speeds
    assert 0.19 < float(speeds.abs().max()) <= 0.2
    assert float(speeds.square().mean()) == pytest.approx(0.04 / 3, rel=0.05)


@every_method
def test_with_fewer_latents_everything_is_drawn_there(bench, method):
    original = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    sent, states, _ = bench.walk(method, original, budget=40, subspace=Subspace("blocks", 2))
    assert len(sent) > 3
    for images in sent:
        corners = images[..., ::4, ::4]
        assert torch.equal(images, corners.repeat_interleave(4, -1).repeat_interleave(4, -2))
        assert not torch.equal(corners[0, 0], corners[0, 1])
    for value in states[0].arrays().values():
        assert value.dim() < 4 or tuple(value.shape[-3:]) == (1, 2, 2)


# -- bad settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        (Rand(), "population", 0),
        (Beta(), "population", -2),
        (Beta(), "bound", 0.0),
        (Beta(), "lowest", -1e-7),
        (PSO(), "particles", 0),
        (PSO(), "inertia", -1.1),
    ],
)
def test_numbers_must_be_positive(method, name, value):
    with pytest.raises(RankproofError, match=rf"{name} must be (above|at least|in) .*, got {value}"):
        replace(method, **{name: value})
