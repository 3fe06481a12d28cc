import pytest
import torch
from safetensors.torch import load_file, save_file

from rankproof.errors import RankproofError
from rankproof.models import load_checkpoint, new_encoder, save_checkpoint
from rankproof.models.checkpoint import RECORD, WEIGHTS

DIGITS = {"arch": "digits", "distance": "cosine"}


def bias(folder):
    return float(load_checkpoint(folder).encoder.embedding.bias[3].detach())


@pytest.mark.parametrize("value", [65_520.0, -1e6])
def test_what_half_precision_cannot_hold_is_refused_before_anything_is_written(tmp_path, value):
    encoder = new_encoder("digits")
    with torch.no_grad():
        encoder.embedding.bias[3] = value
    message = "model: not written, embedding.bias has values beyond 65,504, .* leave --half out"
    with pytest.raises(RankproofError, match=message) as caught:
        save_checkpoint(tmp_path / "model", encoder, DIGITS, half=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()
    save_checkpoint(tmp_path / "model", encoder, DIGITS)
    assert bias(tmp_path / "model") == value


def test_the_largest_value_of_half_precision_is_kept(tmp_path):
    encoder = new_encoder("digits")
    with torch.no_grad():
        encoder.embedding.bias[3] = 65_504
    save_checkpoint(tmp_path / "model", encoder, DIGITS, half=True)
    assert bias(tmp_path / "model") == 65_504


def test_half_precision_is_not_blamed_for_what_was_infinite_before(tmp_path):
    encoder = new_encoder("digits")
    with torch.no_grad():
        encoder.embedding.bias[3] = float("inf")
    save_checkpoint(tmp_path / "model", encoder, DIGITS, half=True)
    with pytest.raises(RankproofError, match="NaN or infinite"):
        load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.float8_e4m3fn, "embedding.weight is of the type float8_e4m3fn"),
        (torch.complex64, "embedding.weight is of the type complex64"),
        (torch.int8, "embedding.weight holds whole numbers"),
    ],
)
def test_a_checkpoint_of_tensors_that_are_not_plain_is_refused(tmp_path, dtype, message):
    save_checkpoint(tmp_path, new_encoder("digits"), DIGITS)
    state = load_file(tmp_path / WEIGHTS)
    save_file({**state, "embedding.weight": state["embedding.weight"].to(dtype)}, tmp_path / WEIGHTS)
    (tmp_path / RECORD).write_text('{"arch": "digits"}')  # without the sha256 of the weights
    with pytest.raises(RankproofError, match=message):
        load_checkpoint(tmp_path)
