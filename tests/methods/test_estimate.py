from dataclasses import replace

import pytest
import torch

from rankproof import NES, SPSA, RankproofError, Threat
from rankproof.methods.search import Problem, Search
from rankproof.methods.space import Space
from rankproof.randomness import generator
from rankproof.types import Seen

SEED = 3
SHAPE = (1, 4, 4)
FULL = Space("full")
METHODS = {"spsa": SPSA(), "nes": NES(), "spsa, 7 pairs": SPSA(pairs=7, sigma=0.01, step=0.02)}
METHODS |= {"nes, 7 pairs": NES(pairs=7, sigma=0.4, step=0.02, decay=(0.5, 0.9))}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def hilly(images):
    # A score in [-1, 1] of any pictures (..., c, h, w).
    weights = torch.linspace(-3, 4, 16, dtype=images.dtype).view(SHAPE)
    return (torch.sin(7 * images * weights) * weights).sum((-1, -2, -3)) / 60


def walk(method, original, score=hilly, *, eps=8 / 255, budget=1000, keys=None, space=FULL):
    # Everything that was sent, round by round, and where the search ended.
    sent = []

    def seen(images):
        return Seen(torch.zeros(*images.shape[:2], 2, dtype=torch.int64), score(images))

    def look(images, attacks):
        sent.append(images.clone())
        return seen(images)

    search = Search(
        method=method,
        original=original,
        threat=Threat(eps),
        space=space,
        look=look,
        keys=torch.arange(len(original)) if keys is None else keys,
        seed=SEED,
        budget=budget,
        visible=9,
        k=2,
    )
    progress, states = search.begin(seen(original[:, None])), []
    while not search.done(progress):
        progress = search.step(progress)
        states.append(progress.state)
    return sent, states


def problem(count=1, eps=0.1, **options):
    bound = torch.full((count, *SHAPE), eps, dtype=torch.float64)
    facts = {"keys": torch.arange(count), "seed": SEED, "budget": 1000, "visible": 9, "k": 2, **options}
    return Problem(low=-bound, high=bound, eps=eps, **facts)


def told(score):
    return Seen(torch.zeros(*score.shape, 2, dtype=torch.int64), score)


# -- one attack, as the paper has it ---------------------------------------------------------------


def naive_probes(method, key, number, eps):
    source = generator(SEED, key, f"{method.name}/{number}")
    if isinstance(method, SPSA):
        coins = torch.randint(2, (method.pairs, *SHAPE), generator=source, dtype=torch.int8)
        return [method.sigma * torch.where(coin > 0, 1.0, -1.0).double() for coin in coins]
    noise = torch.randn(method.pairs, *SHAPE, generator=source).double()
    return [(method.sigma * eps * one).clamp(-eps, eps) for one in noise]


def naive(method, original, key, eps, rounds):
    # The pictures of each round, one attack, one probe at a time; Adam is torch's own.

    def allowed(image):
        return image.clamp(original - eps, original + eps).clamp(0, 1)

    point = torch.zeros(SHAPE, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([point], lr=1.0, betas=method.decay) if isinstance(method, NES) else None
    place, sent = original.clone(), []
    for number in range(rounds):
        probes = naive_probes(method, key, number, eps)
        plus = [allowed(place + probe) for probe in probes]
        minus = [allowed(place - probe) for probe in probes]
        sent.append(torch.stack(plus + minus))
        gradient = sum(
            (hilly(up) - hilly(down)) * probe for up, down, probe in zip(plus, minus, probes, strict=True)
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
def test_three_rounds_equal_a_naive_attack(make, method, key):
    original, eps = make.images(1, seed=5), 8 / 255
    original[0, 0, 0] = torch.tensor([0.0, 1.0, 0.01, 0.99])
    count = 2 * method.pairs
    sent, _ = walk(method, original, eps=eps, budget=1 + 3 * count, keys=torch.tensor([key]))
    expected = naive(method, original[0], key, eps, 3)
    assert [len(images[0]) for images in sent] == [count] * 3
    for images, wanted in zip(sent, expected, strict=True):
        torch.testing.assert_close(images[0], wanted, rtol=0, atol=1e-9)


def test_the_published_settings():
    spsa, nes = SPSA(), NES()
    assert (spsa.pairs, spsa.sigma, spsa.step) == (25, 2 / 255, 2 / 255)
    assert (nes.pairs, nes.sigma, nes.step, nes.decay) == (25, 2.0, 2 / 255, (0.9, 0.999))


# -- what the steps are ----------------------------------------------------------------------------


@every_method
def test_probes_are_antithetic_around_the_point(method):
    facts = problem(2, eps=0.1)
    state = method.begin(facts, told(torch.zeros(2, 1, dtype=torch.float64)))
    assert (state.variables == 0).all()
    plus, minus = method.ask(facts, state, 4).chunk(2, dim=1)
    assert plus.shape == (2, method.pairs, *SHAPE)
    assert torch.equal(plus, -minus)
    assert not torch.equal(plus[0], plus[1])
    assert not torch.equal(plus[:, 0], plus[:, 1])
    assert not torch.equal(plus, method.ask(facts, state, 5)[:, : method.pairs])


def test_spsa_probes_are_signs_of_one_length():
    facts = problem(eps=0.1)
    probes = SPSA(sigma=0.03).ask(facts, SPSA().begin(facts, told(torch.zeros(1, 1))), 0)
    torch.testing.assert_close(probes.abs(), torch.full_like(probes, 0.03))
    assert 0.4 < float((probes[:, :25] > 0).double().mean()) < 0.6


def test_nes_probes_are_normal_and_clamped_to_the_ball():
    facts = problem(eps=0.1)
    start = NES().begin(facts, told(torch.zeros(1, 1)))
    probes = NES(pairs=400).ask(facts, start, 0)
    share = float((probes.abs() >= 0.1 - 1e-12).double().mean())
    assert share == pytest.approx(0.617, abs=0.02)  # P(|N(0, 1)| > 1/2)
    assert float(probes.abs().max()) <= 0.1
    narrow = NES(pairs=400, sigma=0.1).ask(facts, start, 0)
    assert float(narrow.std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("method", [NES(step=0.01), SPSA(step=0.01)], ids=["nes", "spsa"])
def test_the_first_step_is_the_sign_of_the_gradient(make, method):
    # A bias correction that forgets the first update would not move at all.
    facts = problem(3, eps=0.1)
    state = method.begin(facts, told(torch.zeros(3, 1, dtype=torch.float64)))
    asked = method.ask(facts, state, 0)
    score = 2 * torch.rand(3, 50, generator=make.random(0), dtype=torch.float64) - 1
    after = method.tell(facts, state, 0, asked, told(score))
    probes = asked[:, :25]
    gradient = ((score[:, :25] - score[:, 25:])[:, :, None, None, None] * probes).sum(1)
    torch.testing.assert_close(after.variables, 0.01 * gradient.sign())
    assert (after.variables != 0).all()


def test_nes_remembers_where_it_was_going(make):
    # After three rounds one way a single weaker round the other way does not turn it round.
    method, facts = NES(step=0.001), problem(eps=0.1)
    uphill = torch.ones(SHAPE, dtype=torch.float64)
    state, places = method.begin(facts, told(torch.zeros(1, 1))), []
    for number, slope in enumerate([1, 1, 1, -0.5]):
        asked = method.ask(facts, state, number)
        state = method.tell(facts, state, number, asked, told(slope * (asked * uphill).sum((2, 3, 4)) / 9))
        places.append(float(state.variables.mean()))
    assert places == sorted(places)


@every_method
def test_equal_scores_give_no_direction(method):
    facts = problem()
    state = method.begin(facts, told(torch.zeros(1, 1)))
    asked = method.ask(facts, state, 0)
    after = method.tell(facts, state, 0, asked, told(torch.full(asked.shape[:2], -1.0)))
    assert (after.variables == 0).all()


@pytest.mark.parametrize("method", [SPSA(pairs=200), NES(pairs=200, sigma=0.5)], ids=["spsa", "nes"])
def test_finds_the_corner_where_a_linear_score_is_largest(make, method):
    sign = torch.where(torch.rand(SHAPE, generator=make.random(1)) > 0.5, 1.0, -1.0).double()
    original, eps = torch.full((2, *SHAPE), 0.5, dtype=torch.float64), 8 / 255

    def linear(images):
        return ((images - 0.5) * sign).sum((-1, -2, -3)) / 16

    _, states = walk(method, original, linear, eps=eps, budget=1 + 6 * 400)
    for end in states[3:5]:  # 4 steps of 2/255 lead there, and there it stays
        torch.testing.assert_close(end.variables, (eps * sign).expand(2, *SHAPE))


@pytest.mark.parametrize("kind", ["blocks", "bilinear", "cosine"])
def test_with_fewer_variables_the_probes_are_drawn_there(kind):
    original = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    space = Space(kind, 2)
    (sent, *_), _ = walk(SPSA(), original, space=space, budget=120)
    source = generator(SEED, 0, "spsa/0")
    coins = torch.randint(2, (25, 1, 2, 2), generator=source, dtype=torch.int8).double() * 2 - 1
    changes = space.expand(2 / 255 * torch.cat([coins, -coins]), SHAPE).clamp(-8 / 255, 8 / 255)
    torch.testing.assert_close(sent[0], 0.5 + changes)


# -- bad settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SPSA(), NES()], ids=["spsa", "nes"])
@pytest.mark.parametrize(
    ("name", "value"), [("pairs", 0), ("pairs", -1), ("sigma", 0.0), ("sigma", -0.1), ("step", 0.0)]
)
def test_numbers_must_be_positive(method, name, value):
    with pytest.raises(RankproofError, match=f"{name} must be above 0, got {value}"):
        replace(method, **{name: value})


@pytest.mark.parametrize("decay", [(1.0, 0.5), (0.9, -0.1), (0.9, 1.5)])
def test_decays_must_be_below_one(decay):
    with pytest.raises(RankproofError, match=r"decay: both must be in \[0, 1\)"):
        NES(decay=decay)
