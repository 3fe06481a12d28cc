from dataclasses import replace

import pytest
import torch

from rankproof import NES, SPSA, RankproofError
from rankproof.methods.black_box.subspace import Subspace
from rankproof.rng import generator

METHODS = {"spsa": SPSA(), "nes": NES(), "spsa, 7 pairs": SPSA(pairs=7, sigma=0.01, step=0.02)}
METHODS |= {"nes, 7 pairs": NES(pairs=7, sigma=0.4, step=0.02, decay=(0.5, 0.9))}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


# -- one attack, as the paper has it ---------------------------------------------------------------


def naive_probes(bench, method, key, number, eps):
    source = generator(bench.seed, key, f"{method.name}/{number}")
    if isinstance(method, SPSA):
        coins = torch.randint(2, (method.pairs, *bench.shape), generator=source, dtype=torch.int8)
        return [method.sigma * torch.where(coin > 0, 1.0, -1.0).double() for coin in coins]
    noise = torch.randn(method.pairs, *bench.shape, generator=source).double()
    return [(method.sigma * eps * one).clamp(-eps, eps) for one in noise]


def naive(bench, method, original, key, eps, rounds):
    # The images of each round, one attack, one probe at a time; Adam is torch's own.

    def allowed(image):
        return image.clamp(original - eps, original + eps).clamp(0, 1)

    point = torch.zeros(bench.shape, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([point], lr=1.0, betas=method.decay) if isinstance(method, NES) else None
    place, sent = original.clone(), []
    for number in range(rounds):
        probes = naive_probes(bench, method, key, number, eps)
        plus = [allowed(place + probe) for probe in probes]
        minus = [allowed(place - probe) for probe in probes]
        sent.append(torch.stack(plus + minus))
        gradient = sum(
            (bench.hilly(up) - bench.hilly(down)) * probe
            for up, down, probe in zip(plus, minus, probes, strict=True)
        )
        if adam is not None:
            before = point.detach().clone()
            point.grad = -gradient / (2 * len(probes) * (method.sigma * eps) ** 2)
            adam.step()
            gradient = point.detach() - before
        place = allowed(place + method.step * gradient.sign())
    return sent


@every_method
@pytest.mark.parametrize("key", [0, 12345])
def test_three_rounds_equal_a_naive_attack(bench, make, method, key):
    original, eps = make.images(1, seed=5), 8 / 255
    original[0, 0, 0] = torch.tensor([0.0, 1.0, 0.01, 0.99])
    count = 2 * method.pairs
    sent, _, _ = bench.walk(method, original, eps=eps, budget=1 + 3 * count, rng_keys=torch.tensor([key]))
    expected = naive(bench, method, original[0], key, eps, 3)
    assert [len(images[0]) for images in sent] == [count] * 3
    for images, wanted in zip(sent, expected, strict=True):
        torch.testing.assert_close(images[0], wanted, rtol=0, atol=1e-9)


def test_the_published_settings():
    spsa, nes = SPSA(), NES()
    assert (spsa.pairs, spsa.sigma, spsa.step) == (25, 2 / 255, 2 / 255)
    assert (nes.pairs, nes.sigma, nes.step, nes.decay) == (25, 2.0, 2 / 255, (0.9, 0.999))


# -- what the steps are ----------------------------------------------------------------------------


@every_method
def test_probes_are_antithetic_around_the_point(bench, method):
    problem = bench.problem(2, eps=0.1)
    state = method.begin(problem, bench.feedback(torch.zeros(2, 1, dtype=torch.float64)))
    assert (state.latents == 0).all()
    plus, minus = method.ask(problem, state, 4).chunk(2, dim=1)
    assert plus.shape == (2, method.pairs, *bench.shape)
    assert torch.equal(plus, -minus)
    assert not torch.equal(plus[0], plus[1])
    assert not torch.equal(plus[:, 0], plus[:, 1])
    assert not torch.equal(plus, method.ask(problem, state, 5)[:, : method.pairs])


def test_spsa_probes_are_signs_of_one_length(bench):
    problem = bench.problem(eps=0.1)
    probes = SPSA(sigma=0.03).ask(problem, SPSA().begin(problem, bench.feedback(torch.zeros(1, 1))), 0)
    torch.testing.assert_close(probes.abs(), torch.full_like(probes, 0.03))
    assert 0.4 < float((probes[:, :25] > 0).double().mean()) < 0.6


def test_nes_probes_are_normal_and_clamped_to_the_ball(bench):
    problem = bench.problem(eps=0.1)
    start = NES().begin(problem, bench.feedback(torch.zeros(1, 1)))
    probes = NES(pairs=400).ask(problem, start, 0)
    share = float((probes.abs() >= 0.1 - 1e-12).double().mean())
    assert share == pytest.approx(0.617, abs=0.02)  # P(|N(0, 1)| > 1/2)
    assert float(probes.abs().max()) <= 0.1
    narrow = NES(pairs=400, sigma=0.1).ask(problem, start, 0)
    assert float(narrow.std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("method", [NES(step=0.01), SPSA(step=0.01)], ids=["nes", "spsa"])
def test_the_first_step_is_the_sign_of_the_gradient(bench, make, method):
    # A bias correction that forgets the first update would not move at all.
    problem = bench.problem(3, eps=0.1)
    state = method.begin(problem, bench.feedback(torch.zeros(3, 1, dtype=torch.float64)))
    asked = method.ask(problem, state, 0)
    score = 2 * torch.rand(3, 50, generator=make.random(0), dtype=torch.float64) - 1
    after = method.tell(problem, state, 0, asked, bench.feedback(score))
    probes = asked[:, :25]
    gradient = ((score[:, :25] - score[:, 25:])[:, :, None, None, None] * probes).sum(1)
    torch.testing.assert_close(after.latents, 0.01 * gradient.sign())
    assert (after.latents != 0).all()


def test_nes_remembers_where_it_was_going(bench, make):
    # After three rounds one way a single weaker round the other way does not turn it round.
    method, problem = NES(step=0.001), bench.problem(eps=0.1)
    uphill = torch.ones(bench.shape, dtype=torch.float64)
    state, places = method.begin(problem, bench.feedback(torch.zeros(1, 1))), []
    for number, slope in enumerate([1, 1, 1, -0.5]):
        asked = method.ask(problem, state, number)
        state = method.tell(
            problem, state, number, asked, bench.feedback(slope * (asked * uphill).sum((2, 3, 4)) / 9)
        )
        places.append(float(state.latents.mean()))
    assert places == sorted(places)


@every_method
def test_equal_scores_give_no_direction(bench, method):
    problem = bench.problem()
    state = method.begin(problem, bench.feedback(torch.zeros(1, 1)))
    asked = method.ask(problem, state, 0)
    after = method.tell(problem, state, 0, asked, bench.feedback(torch.full(asked.shape[:2], -1.0)))
    assert (after.latents == 0).all()


@pytest.mark.parametrize("method", [SPSA(pairs=200), NES(pairs=200, sigma=0.5)], ids=["spsa", "nes"])
def test_finds_the_corner_where_a_linear_score_is_largest(bench, make, method):
    sign = torch.where(torch.rand(bench.shape, generator=make.random(1)) > 0.5, 1.0, -1.0).double()
    original, eps = torch.full((2, *bench.shape), 0.5, dtype=torch.float64), 8 / 255

    def linear(images):
        return ((images - 0.5) * sign).sum((-1, -2, -3)) / 16

    _, states, _ = bench.walk(method, original, linear, eps=eps, budget=1 + 6 * 400)
    for end in states[4:6]:  # 4 steps of 2/255 lead there, and there it stays
        torch.testing.assert_close(end.latents, (eps * sign).expand(2, *bench.shape))


@pytest.mark.parametrize("kind", ["blocks", "bilinear", "cosine"])
def test_with_fewer_latents_the_probes_are_drawn_there(bench, kind):
    original = torch.full((1, *bench.shape), 0.5, dtype=torch.float64)
    subspace = Subspace(kind, 2)
    (sent, *_), _, _ = bench.walk(SPSA(), original, subspace=subspace, budget=120)
    source = generator(bench.seed, 0, "spsa/0")
    coins = torch.randint(2, (25, 1, 2, 2), generator=source, dtype=torch.int8).double() * 2 - 1
    changes = subspace.expand(2 / 255 * torch.cat([coins, -coins]), bench.shape).clamp(-8 / 255, 8 / 255)
    torch.testing.assert_close(sent[0], 0.5 + changes)


# -- bad settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SPSA(), NES()], ids=["spsa", "nes"])
@pytest.mark.parametrize(
    ("name", "value"), [("pairs", 0), ("pairs", -1), ("sigma", 0.0), ("sigma", -0.1), ("step", 0.0)]
)
def test_numbers_must_be_positive(method, name, value):
    with pytest.raises(RankproofError, match=rf"{name} must be (above|at least|in) .*, got {value}"):
        replace(method, **{name: value})


@pytest.mark.parametrize("decay", [(1.0, 0.5), (0.9, -0.1), (0.9, 1.5)])
def test_decays_must_be_below_one(decay):
    with pytest.raises(RankproofError, match=r"decay: both must be in \[0, 1\)"):
        NES(decay=decay)
