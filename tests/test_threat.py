import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import RankproofError, Threat
from rankproof.errors import ThreatViolationError
from rankproof.threat import format_eps, parse_eps

TOLERANCE = 1e-6
budgets = st.one_of(st.integers(0, 255).map(lambda n: n / 255), st.floats(0, 1))
dtypes = st.sampled_from([torch.float32, torch.float64])


def pictures(make, seed, dtype, spread=1.0):
    """Random values in [0, 1], or as far outside as `spread` says, with pixels on the borders."""
    images = make.images(3, seed).to(dtype)
    images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    return (images - 0.5) * spread + 0.5


def grid_steps(images):
    """The images in units of 1/255, after a check that they lie on the grid."""
    levels = torch.round(images * 255)
    assert torch.equal(levels / 255, images)
    return levels


@given(eps=budgets, grid=st.booleans(), dtype=dtypes, seed=st.integers(0, 99))
def test_projection_lands_in_the_ball_and_in_the_unit_range_and_stays(make, eps, grid, dtype, seed):
    threat = Threat(eps, grid=grid)
    original = threat.start(pictures(make, seed, dtype))
    projected = threat.project(pictures(make, seed + 1, dtype, spread=3), original)
    assert float((projected - original).abs().max()) <= eps + TOLERANCE
    assert float(projected.min()) >= 0
    assert float(projected.max()) <= 1
    assert torch.equal(threat.project(projected, original), projected)
    threat.check(projected, original)
    if grid:
        grid_steps(projected)


@given(eps=budgets, seed=st.integers(0, 99))
def test_projection_is_the_nearest_allowed_image(make, eps, seed):
    original, wanted = pictures(make, seed, torch.float64), pictures(make, seed + 1, torch.float64, spread=3)
    low, high = (original - eps).clamp(min=0), (original + eps).clamp(max=1)
    torch.testing.assert_close(Threat(eps).project(wanted, original), wanted.clamp(low, high))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", range(0, 256, 5))
def test_on_the_grid_a_budget_of_n_allows_exactly_n_steps(n, dtype):
    levels = torch.arange(256, dtype=dtype).view(1, 1, 16, 16)
    threat, original = Threat(n / 255, grid=True), levels / 255
    up = threat.project(torch.full_like(original, 2), original)
    down = threat.project(torch.full_like(original, -1), original)
    assert torch.equal(grid_steps(up), (levels + n).clamp(max=255))
    assert torch.equal(grid_steps(down), (levels - n).clamp(min=0))


def test_on_the_grid_a_budget_between_two_steps_allows_the_smaller():
    original = torch.full((1, 1, 1, 1), 100 / 255)
    projected = Threat(7.9 / 255, grid=True).project(torch.ones(1, 1, 1, 1), original)
    assert grid_steps(projected).item() == 107


def test_on_the_grid_values_are_rounded_and_not_truncated():
    original = torch.full((1, 1, 1, 2), 100 / 255)
    wanted = torch.tensor([102.6 / 255, 97.4 / 255]).view(1, 1, 1, 2)
    projected = Threat(8 / 255, grid=True).project(wanted, original)
    assert grid_steps(projected).flatten().tolist() == [103, 97]


def test_only_a_grid_threat_moves_the_original(make):
    images = pictures(make, 0, torch.float64)
    assert torch.equal(Threat(0.1).start(images), images)
    started = Threat(0.1, grid=True).start(images)
    grid_steps(started)
    assert float((started - images).abs().max()) <= 0.5 / 255 + 1e-12


@pytest.mark.parametrize(
    "change",
    [lambda x, eps: x + eps + 3e-6, lambda x, eps: x - eps - 3e-6, lambda x, eps: x * float("nan")],
    ids=["above", "below", "nan"],
)
def test_check_refuses_what_left_the_ball(change):
    original = torch.full((2, 1, 3, 3), 0.5, dtype=torch.float64)
    images = original.clone()
    images[1, 0, 2, 2] = change(images[1, 0, 2, 2], 0.1)
    with pytest.raises(ThreatViolationError, match=r"25\.5/255"):
        Threat(0.1).check(images, original)


@pytest.mark.parametrize("value", [-3e-6, 1 + 3e-6])
def test_check_refuses_what_left_the_unit_range(value):
    original = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    with pytest.raises(ThreatViolationError):
        Threat(0.5).check(
            torch.full_like(original, value).where(original == round(value), original), original
        )


def test_check_allows_rounding_of_single_precision():
    original = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    Threat(0.03).check(original + 0.03, original)
    Threat(0.03).check(original[:0], original[:0])


@pytest.mark.parametrize("eps", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_budget_outside_the_unit_range_is_refused(eps):
    with pytest.raises(RankproofError, match="eps must be between 0 and 1"):
        Threat(eps)


@given(n=st.integers(0, 255))
def test_a_whole_number_of_steps_is_written_and_read_back_exactly(n):
    assert format_eps(n / 255) == f"{n}/255"
    assert parse_eps(format_eps(n / 255)) == n / 255


@pytest.mark.parametrize(("eps", "text"), [(0.03, "7.65/255"), (0.01, "2.55/255"), (0.3, "76.5/255")])
def test_other_budgets_are_written_with_decimals(eps, text):
    assert format_eps(eps) == text


@pytest.mark.parametrize(("text", "eps"), [("8/255", 8 / 255), ("0.03", 0.03), ("0", 0.0), ("1/2", 0.5)])
def test_a_budget_is_read_as_a_fraction_or_a_number(text, eps):
    assert parse_eps(text) == eps


@pytest.mark.parametrize("text", ["", "eight", "8/", "8/zero", "1/0", "8/255/2", "300/255", "-1/255", "nan"])
def test_what_is_no_budget_is_refused_by_name(text):
    with pytest.raises(RankproofError, match="eps"):
        parse_eps(text)


@pytest.mark.parametrize("grid", [False, True])
def test_a_shared_perturbation_is_the_same_everywhere_but_for_the_unit_range(make, grid):
    threat = Threat(20 / 255, grid=grid, shared=True)
    original = threat.start(make.images(6))
    wanted = original + (make.images(6, seed=1) - 0.5) / 2
    change = threat.perturbation(wanted - original)
    assert change.shape == (1, 1, 4, 4)
    assert float(change.abs().max()) <= 20 / 255 + 1e-12
    projected = threat.project(wanted, original)
    torch.testing.assert_close(projected, (original + change).clamp(0, 1))
    if grid:
        assert float((projected * 255 - torch.round(projected * 255)).abs().max()) < 1e-9


def test_a_shared_perturbation_is_the_mean_of_the_changes_within_the_ball():
    changes = torch.tensor([[0.1, 0.3], [0.0, 0.3]]).view(2, 1, 1, 2)
    assert Threat(0.2, shared=True).perturbation(changes).flatten().tolist() == pytest.approx([0.05, 0.2])


def test_clipping_one_image_never_narrows_what_the_others_get():
    white_and_grey = torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    projected = Threat(0.2, shared=True).project(white_and_grey + 0.2, white_and_grey)
    assert projected.flatten().tolist() == pytest.approx([1.0, 0.7])
