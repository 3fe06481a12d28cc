import pickle
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rankproof.errors import RankproofError
from rankproof.models import load_weights, new_encoder
from rankproof.models.weights import read_weights


@pytest.fixture
def state():
    """A ResNet-18 as a classifier's checkpoint has it."""
    trained = {
        name: value.contiguous() for name, value in new_encoder("resnet18-28", seed=1).state_dict().items()
    }
    return {**trained, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}


@pytest.fixture
def encoder():
    return new_encoder("resnet18-28", seed=0).train()


def assert_loaded(encoder, state):
    own = encoder.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if name in own)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {"model": state}},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    ],
    ids=[
        "plain",
        "state_dict",
        "model",
        "twice",
        "parallel",
        "compiled",
        "compiled parallel",
        "parallel compiled",
    ],
)
def test_a_saved_state_dict_loads(tmp_path, encoder, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    fitted = load_weights(encoder, tmp_path / "w.pth")
    assert_loaded(encoder, state)
    assert fitted.encoder is encoder
    assert not encoder.training
    assert (fitted.loaded, fitted.missing, fitted.unexpected) == (len(state) - 2, (), ())
    assert fitted.classifier == ("fc.weight", "fc.bias")
    assert fitted.note == "120 tensors loaded; the classifier (fc.weight, fc.bias) left out"


def test_safetensors_load(tmp_path, encoder, state):
    save_file(state, tmp_path / "w.safetensors")
    assert load_weights(encoder, str(tmp_path / "w.safetensors")).loaded == 120
    assert_loaded(encoder, state)


def test_half_precision_loads_into_single(tmp_path, encoder, state):
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "w.safetensors")
    load_weights(encoder, tmp_path / "w.safetensors")
    assert encoder.conv1.weight.dtype == torch.float32


def test_what_was_missing_or_unexpected_is_told(tmp_path, encoder, state):
    before = encoder.layer4[1].conv2.weight.clone()
    for name in [name for name in state if name.startswith("layer4.1.") or name.endswith("tracked")]:
        del state[name]
    torch.save({**state, "head.weight": torch.zeros(2)}, tmp_path / "w.pt")
    fitted = load_weights(encoder, tmp_path / "w.pt")
    assert torch.equal(encoder.layer4[1].conv2.weight, before)
    assert len(fitted.missing) == 10  # counters of batches are not worth a word
    assert fitted.unexpected == ("head.weight",)
    assert (
        "layer4.1.conv1.weight, layer4.1.bn1.weight, layer4.1.bn1.bias and 7 more missing in the file and "
        "left as initialised; head.weight in the file not used"
    ) in fitted.note


def test_an_encoder_with_a_classifier_of_its_own_gets_it(tmp_path):
    encoder = nn.Sequential()
    encoder.add_module("fc", nn.Linear(2, 2))
    torch.save({"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}, tmp_path / "w.pt")
    fitted = load_weights(encoder, tmp_path / "w.pt")
    assert (fitted.loaded, fitted.classifier) == (2, ())


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def refused(tmp_path, encoder, saved, message):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(RankproofError, match=message):
        load_weights(encoder, tmp_path / "w.pt")
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_weights_that_do_not_fit_are_refused(tmp_path, encoder, state):
    other = {"a": torch.ones(1), "b": torch.ones(1)}
    refused(tmp_path, encoder, other, "nothing in it fits .* it has a, b, the encoder wants conv1.weight")
    refused(tmp_path, encoder, {}, "nothing in it fits the encoder; it has no weights")
    refused(tmp_path, encoder, [1, 2], "holds a list, not weights by name")
    refused(tmp_path, encoder, {"state_dict": 3}, "it has no weights")
    colour = {**state, "conv1.weight": torch.zeros(64, 3, 7, 7)}
    refused(tmp_path, encoder, colour, "conv1.weight is 64x3x7x7 in the file and 64x1x7x7 in the encoder")
    state["bn1.bias"][0] = float("nan")
    refused(tmp_path, encoder, state, "NaN or infinite")


def test_a_state_dict_below_itself_has_an_end(tmp_path, encoder, state):
    endless = {"conv1.weight": state["conv1.weight"]}
    endless["model"] = endless
    refused(tmp_path, encoder, endless, "more than 4 levels deep below state_dict and model; save the state")
    turns = {"state_dict": {}}
    turns["state_dict"]["model"] = turns
    refused(tmp_path, encoder, turns, "more than 4 levels deep")
    deep = state
    for nest in ("model", "state_dict", "model", "state_dict"):
        deep = {nest: deep}
    torch.save(deep, tmp_path / "w.pt")
    assert load_weights(encoder, tmp_path / "w.pt").loaded == 120
    refused(tmp_path, encoder, {"model": deep}, "more than 4 levels deep")


def quantised(value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop this kind; files of it stay
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def compressed_rows(value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a kind in beta
        return value.flatten(1).to_sparse_csr()


@pytest.mark.filterwarnings("ignore:.*")  # of torch, while it writes and reads kinds it is unsure of
@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (lambda value: value.to(torch.float8_e4m3fn), "conv1.weight is of the type float8_e4m3fn; save the"),
        (lambda value: value.to(torch.float8_e5m2), "conv1.weight is of the type float8_e5m2"),
        (lambda value: value.to(torch.complex64), "conv1.weight is of the type complex64"),
        (quantised, "conv1.weight is of the type qint8"),
        (lambda value: value.to_sparse(), "conv1.weight is not dense .sparse_coo.; save .* dense tensors"),
        (compressed_rows, "conv1.weight is not dense .sparse_csr."),
        (lambda value: value.to("meta"), "conv1.weight is on the meta device, without values"),
        (lambda value: torch.nested.nested_tensor(list(value)), "conv1.weight is a nested tensor"),
        (lambda value: value.to(torch.int8), r"conv1.weight holds whole numbers \(int8\) where the encoder"),
    ],
    ids=[
        "float8",
        "float8 with infinity",
        "complex",
        "quantised",
        "sparse",
        "rows",
        "meta",
        "nested",
        "int8",
    ],
)
def test_tensors_that_would_be_bent_are_refused(tmp_path, encoder, state, bend, message):
    refused(tmp_path, encoder, {**state, "conv1.weight": bend(state["conv1.weight"])}, message)


def test_tensors_that_are_not_plain_are_refused_in_safetensors(tmp_path):
    for dtype in (torch.float8_e4m3fn, torch.complex64):
        save_file({"a": torch.ones(2).to(dtype)}, tmp_path / "w.safetensors")
        with pytest.raises(RankproofError, match=r"w\.safetensors: a is of the type"):
            read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_usual_precision_load(tmp_path, encoder, state, dtype):
    saved = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(saved, tmp_path / "w.pt")
    assert load_weights(encoder, tmp_path / "w.pt").loaded == 120
    assert_loaded(encoder, {name: value.to(state[name].dtype) for name, value in saved.items()})


def test_buffers_may_be_whole_numbers(tmp_path):
    network = nn.Linear(2, 2)
    network.register_buffer("mask", torch.tensor([True, False]))
    network.register_buffer("steps", torch.tensor(3, dtype=torch.int32))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    network.mask.fill_(False)
    network.steps.zero_()
    load_weights(network, tmp_path / "w.pt")
    assert network.mask.tolist() == [True, False]
    assert int(network.steps) == 3


def test_nothing_is_ever_unpickled(tmp_path, encoder):
    refused(tmp_path, encoder, {"conv1.weight": Evil()}, "not a file of plain tensors")
    refused(tmp_path, encoder, encoder, "not a file of plain tensors")
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RankproofError, match="not a file of plain tensors"):
        load_weights(encoder, tmp_path / "w.pt")


def test_files_that_are_something_else(tmp_path, encoder):
    with pytest.raises(RankproofError, match="no such file of weights"):
        load_weights(encoder, tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_text("no")
    with pytest.raises(RankproofError, match="not a safetensors file"):
        load_weights(encoder, tmp_path / "w.safetensors")
    (tmp_path / "w.pt").write_text("no")
    with pytest.raises(RankproofError, match="not a file of plain tensors"):
        load_weights(encoder, tmp_path / "w.pt")
