"""The attacks of golden.py do what they did: bit for bit where bits can be equal, closely elsewhere."""

import json

import golden
import pytest
import torch

GOLDEN = json.loads(golden.FILE.read_text())
SAME = golden.machine() == GOLDEN["machine"]
CLOSE = {"rank": 0.5, "sp_rank": 0.5, "tau": 0.02}  # points; of tau


@pytest.fixture(scope="module")
def found():
    """Every attack, run again with the threads of the file."""
    before = torch.get_num_threads()
    torch.set_num_threads(golden.THREADS)
    yield {name: json.loads(json.dumps(golden.told(golden.run(case)))) for name, case in golden.CASES.items()}
    torch.set_num_threads(before)


def test_every_case_is_in_the_file():
    assert list(GOLDEN["attacks"]) == list(golden.CASES)
    assert len(golden.CASES) >= 24


@pytest.mark.skipif(not SAME, reason="another processor or torch than golden.json was written with")
@pytest.mark.parametrize("name", golden.CASES)
def test_the_same_bytes_on_the_same_machine(found, name):
    assert found[name] == GOLDEN["attacks"][name]


def test_nearly_all_attacks_are_equal_anywhere(found):
    pairs = [
        (ours, theirs)
        for name in golden.CASES
        for ours, theirs in zip(rows(found[name]), rows(GOLDEN["attacks"][name]), strict=True)
    ]
    equal = sum(all(abs(a - b) < 1e-4 for a, b in zip(one, two, strict=True)) for one, two in pairs)
    assert equal >= 0.95 * len(pairs)


@pytest.mark.parametrize("name", golden.CASES)
def test_every_mean_is_close_anywhere(found, name):
    ours, theirs = found[name]["summary"], GOLDEN["attacks"][name]["summary"]
    for figure in ("before", "after"):
        assert ours[figure] == pytest.approx(theirs[figure], abs=CLOSE.get(ours["metric"], 0.02))
    settled = {key for key in theirs if not isinstance(theirs[key], float | list)}
    assert {key: ours[key] for key in settled} == {key: theirs[key] for key in settled}


def rows(told):
    """All figures of each attack, and its targets."""
    values = [torch.tensor(part).flatten(1) if isinstance(part[0], list) else torch.tensor(part)[:, None]
              for part in (*told["figures"].values(), told["targets"])]  # fmt: skip
    return torch.cat([part.double() for part in values], dim=1).tolist()
