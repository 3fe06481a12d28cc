import pytest
import torch

from rankproof import SPSA, LocalOracle, Preserve, QueryRaise, Reorder, Threat, attack
from rankproof.attacks.smallest_budget import smallest_budget
from rankproof.audit.journal import FinishedUnits, Unit, spans
from rankproof.audit.records import Attacks, image_of, image_text
from rankproof.report.findings import Control

IDS = torch.arange(3)
CONTROL = Control(
    name="noise", goal="qa+", eps=0.1, trials=3, value=1.5, compared_with=2.5, passed=None, text="It did."
)


@pytest.fixture(scope="module")
def attacks(shop):
    """Attacks of each kind: a white box, a black box, and smallest budgets of which some are not reached."""
    images, more = shop.images[:3], {"gallery_ids": IDS, "exclude_self": True}
    white = attack(shop, images, QueryRaise() + 1.0 * Preserve(g=2), Threat(0.1), **more)
    black = attack(LocalOracle(shop, 9), images, Reorder(k=3), Threat(0.1), method=SPSA(), budget=400, **more)
    found = smallest_budget(shop, images, QueryRaise(), gallery_ids=IDS)
    size = torch.tensor([0.1, 0.2, torch.nan], dtype=torch.float64)
    reached = torch.tensor([True, False, True])
    return [
        Attacks(result=white.without_images(), size=size, reached=reached, images=(None,) * 3),
        Attacks(
            result=black.without_images(),
            size=size,
            reached=None,
            images=tuple(map(image_text, black.adversarial)),
            exact=white.without_images(),
        ),
        Attacks(
            result=white.without_images(), size=size, reached=reached, images=(None,) * 3, smallest=found
        ),
    ]


def same(one, other):
    """Whether two values hold exactly the same, in every tensor."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
    if hasattr(one, "__dataclass_fields__"):
        names = set(one.__dataclass_fields__) - {"examination"}
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_a_unit_comes_back_exactly_as_it_was(attacks, tmp_path):
    unit = Unit(rows=(0, 3), seconds=1.25, parts=tuple(attacks), controls=(CONTROL,))
    journal = FinishedUnits.open(tmp_path / "j", "mine")
    kept = journal.add("qa+", unit)
    read = FinishedUnits.open(tmp_path / "j", "mine").units["qa+", (0, 3)]
    assert same(kept, read)
    assert same(unit, read)
    assert read.parts[1].result.log.scores.shape == (3, 400)
    for before, after in zip(attacks, read.parts, strict=True):
        assert after.result.summary.after == before.result.summary.after


def test_units_are_joined_in_their_order(attacks):
    for part in attacks:
        joined = Attacks.concat([part, part])
        assert len(joined) == 6
        assert same(joined.result[:3].after, part.result.after)
        assert same(joined.result[3:].targets, part.result.targets)
        if part.smallest is not None:
            assert torch.equal(joined.smallest.targets, part.smallest.targets.repeat(2, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grid", [True, False])
def test_an_image_comes_back_to_the_last_bit(dtype, grid):
    image = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    image = torch.round(image * 255) / 255 if grid else image
    text = image_text(image)
    assert text.startswith("uint8:") == grid
    assert torch.equal(image_of(text, image), image)


@pytest.mark.parametrize(
    "tail", [b'{"audit": "mine", "of": "qa', b"\xff\xfe\0", b"[1]\n", b'{"audit": "mine"}\n']
)
def test_a_torn_line_is_lost_and_nothing_else(tail, tmp_path):
    journal = FinishedUnits.open(tmp_path / "j", "mine")
    for number in range(2):
        journal.add("qa+", Unit(rows=(number, number + 1), seconds=1.0))
    (tmp_path / "j").write_bytes((tmp_path / "j").read_bytes() + tail)
    again = FinishedUnits.open(tmp_path / "j", "mine")
    assert list(again.units) == [("qa+", (0, 1)), ("qa+", (1, 2))]
    again.add("qa+", Unit(rows=(2, 3), seconds=1.0))
    assert len(FinishedUnits.open(tmp_path / "j", "mine").units) == 3


def test_the_lines_of_other_audits_stay_and_do_not_count(tmp_path):
    FinishedUnits.open(tmp_path / "j", "mine").add("qa+", Unit(rows=(0, 1), seconds=1.0))
    other = FinishedUnits.open(tmp_path / "j", "other")
    assert not other.units
    other.add("qa+", Unit(rows=(0, 2), seconds=1.0))
    assert list(FinishedUnits.open(tmp_path / "j", "mine").units) == [("qa+", (0, 1))]
    assert (other.rows, other.seconds) == (2, 1.0)


def test_units_count_up_to_the_first_gap():
    journal = FinishedUnits(None, "mine")
    for rows in ((0, 2), (2, 4), (6, 8), (4, 5)):
        journal.add("qa+", Unit(rows=rows, seconds=1.0))
    assert [unit.rows for unit in journal.of("qa+", 2, 9)] == [(0, 2), (2, 4)]
    assert [unit.rows for unit in journal.of("qa+", 2, 9, most=5)] == [(0, 2), (2, 4), (4, 5)]
    assert journal.of("qa+", 3, 9) == []
    assert spans(5, 2) == [(0, 2), (2, 4), (4, 5)]
    assert spans(0, 2) == []
