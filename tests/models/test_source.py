"""Encoders by name. timm and torchvision are stood in for by modules that answer as theirs document."""

import json
import os
import sys
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from rankproof import CandidateRaise, Gallery, Ranker, RankproofError, Threat, attack, open_encoder
from rankproof.models import new_encoder, save_checkpoint

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


class Net(nn.Module):
    """Batch norm and dropout, so that the mode shows."""

    def __init__(self):
        super().__init__()
        self.features, self.norm, self.drop = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(self.norm(self.features(images))).mean((2, 3))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images(make):
    return torch.rand(5, 3, 16, 16, generator=make.random(0))


def assert_same(source, encoder, images):
    """The source embeds as the encoder does, in eval mode, with a gradient to the images."""
    ranker = Ranker(source.encoder, source.distance, mean=source.mean, std=source.std)
    expected = Ranker(encoder, source.distance, mean=source.mean, std=source.std).embed_all(images)
    torch.testing.assert_close(ranker.embed_all(images), expected)
    watched = images.clone().requires_grad_(True)
    with ranker.frozen():
        (gradient,) = torch.autograd.grad(ranker.embed(watched)[:, 0].sum(), watched)
    assert bool((gradient != 0).any())


def refused(name, message, **options):
    with pytest.raises(RankproofError, match=message) as caught:
        open_encoder(str(name), **options)
    assert "\n" not in str(caught.value)


# -- checkpoints


def test_a_zoo_name_and_a_folder(tmp_path):
    source = open_encoder("zoo:fashion-mnist/c2f1-ct")
    assert (source.distance, source.mean, source.std, source.input) == ("cosine", None, None, (1, 28, 28))
    assert source.record["arch"] == "c2f1"
    record = {"arch": "digits", "distance": "sphere", "input": [1, 8, 8], "mean": [0.5], "std": [0.25]}
    save_checkpoint(tmp_path / "model", new_encoder("digits"), record)
    source = open_encoder(str(tmp_path / "model"))
    assert (source.distance, source.mean, source.std, source.channels) == ("sphere", (0.5,), (0.25,), 1)
    assert not source.encoder.training


def test_what_a_record_leaves_out_is_the_architectures(tmp_path):
    save_checkpoint(tmp_path / "a", new_encoder("resnet18"), {"arch": "resnet18", "distance": "cosine"})
    source = open_encoder(str(tmp_path / "a"))
    assert source.mean == (0.485, 0.456, 0.406)
    assert source.channels == 3
    save_checkpoint(tmp_path / "b", new_encoder("resnet18"), {"arch": "resnet18", "mean": None, "std": None})
    source = open_encoder(str(tmp_path / "b"))
    assert (source.mean, source.channels, source.distance) == (None, None, "cosine")


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"mean": "grey"}, "mean must be a list of numbers or nothing, not 'grey'"),
        ({"std": [None]}, "std must be a list of numbers"),
        ({"input": [8, 8]}, "input must be channels, height and width"),
        ({"mean": [0.5, 0.5, 0.5], "input": [1, 8, 8]}, "must agree on the number of channels"),
        ({"mean": [0.5], "std": [0.5, 0.5]}, "must agree on the number of channels"),
        ({"mean": [0.5, 0.5]}, "must agree on the number of channels; the encoder takes 1"),
        ({"std": [0.5, 0.5, 0.5]}, "must agree on the number of channels; the encoder takes 1"),
        ({"input": [3, 8, 8]}, "must agree on the number of channels; the encoder takes 1"),
        ({"input": [1, float("inf"), 8]}, r"input must be finite numbers, not \[1, inf, 8\]"),
        ({"input": [1, 10**400, 8]}, "input must be finite numbers"),
        ({"input": [1, float("nan"), 8]}, "input must be finite numbers"),
        ({"input": [1, 8.5, 8]}, "input must be .* whole numbers of at least 1, not .1, 8.5, 8"),
        ({"input": [True, 8, 8]}, "input must be a list of numbers"),
        ({"mean": [float("nan")]}, r"mean must be finite numbers, not \[nan\]"),
        ({"mean": [1e39]}, "mean must be finite numbers"),
        ({"mean": []}, r"mean must be a list of numbers or nothing, not \[\]"),
        ({"std": [float("-inf")]}, "std must be finite numbers"),
        ({"std": [0]}, r"every value of std must be above 0, not \[0\]"),
        ({"std": [-0.5]}, "every value of std must be above 0"),
    ],
)
def test_odd_records(tmp_path, odd, message):
    save_checkpoint(tmp_path / "model", new_encoder("digits"), {"arch": "digits", **odd})
    refused(tmp_path / "model", message)


def test_names_that_lead_nowhere(tmp_path):
    refused(tmp_path / "nowhere", "not found; a model is a folder with model.safetensors and model.json")
    refused("zoo:nowhere", "not in the zoo")
    refused("efficientnet-lite7", "a name or file such as efficientnet-lite0, zoo:NAME, hf:NAME, FILE.onnx")
    refused("resnet18", "resnet18: a network without weights; add --weights FILE")
    refused("keras:resnet", "unknown kind of encoder; write zoo:, hf:, timm: or torchvision:")
    refused("weights.pth", "weights alone do not say which network")
    refused("mine.py", "which function in it returns the encoder. Write mine.py:FUNCTION")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "a folder of the transformers library; write hf:")


# -- a user's own code

OWN = """
import torch
from torch import nn
from beside import WIDTH

def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, WIDTH))

def described():
    return encoder(), {"distance": "euclidean", "mean": [0.5] * 3, "std": [0.2] * 3, "size": 16}

def oblong():
    return encoder(), {"size": (8, 32)}

def unknown():
    return encoder(), {"maen": [0.5]}

def flat_std():
    return encoder(), {"mean": [0.5] * 3, "std": [0.2, 0.0, 0.2]}

def odd_size():
    return encoder(), {"size": "large"}

def number():
    return 3

def fails():
    return {}["weights"]

def says_it_better():
    from rankproof import RankproofError
    raise RankproofError("mine.safetensors: fetch it first")

constant = 3
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    (tmp_path / "own.py").write_text(OWN)
    yield f"{tmp_path}/own.py"
    for name in ("beside", "rankproof_user_own"):
        sys.modules.pop(name, None)


def test_a_function_of_the_users_own(own, images):
    path = list(sys.path)
    source = open_encoder(f"{own}:encoder")
    assert sys.path == path
    assert (source.distance, source.mean, source.input, source.channels) == ("cosine", None, None, None)
    assert_same(source, source.encoder, images)
    source = open_encoder(f"{own}:described")
    assert (source.distance, source.mean, source.std) == ("euclidean", (0.5,) * 3, (0.2,) * 3)
    assert source.input == (3, 16, 16)
    assert source.record == {
        "distance": "euclidean",
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "input": [3, 16, 16],
    }
    assert open_encoder(f"{own}:oblong").input == (3, 8, 32)


FUNCTIONS = """
import torch
from torch import nn

NET = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))

def itself(images):
    return NET(images)

def returned():
    return lambda images: NET(images)

def optional(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, width)), {"distance": "sphere"}

def needy(images, labels):
    return NET(images)
"""


def test_functions_of_images_are_encoders_returned_or_named(tmp_path, images):
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    named = open_encoder(f"{tmp_path}/functions.py:itself")
    assert_same(named, named.encoder, images)
    module = open_encoder(f"{tmp_path}/functions.py:NET")
    assert isinstance(module.encoder, nn.Sequential)
    assert open_encoder(f"{tmp_path}/functions.py:optional").distance == "sphere"
    returned = open_encoder(f"{tmp_path}/functions.py:returned")
    assert_same(returned, returned.encoder, images)
    refused(f"{tmp_path}/functions.py:needy", "failed with TypeError: .* missing 2 required")
    sys.modules.pop("rankproof_user_functions", None)


def test_a_function_that_does_something_else(own, tmp_path):
    refused(f"{tmp_path}/none.py:encoder", "none.py: no such file")
    refused(f"{own}:nothing", "own.py: has no function nothing")
    refused(f"{own}:constant", "own.py: has no function constant")
    refused(f"{own}:number", "must return a torch.nn.Module or a function .* it returned int")
    refused(f"{own}:unknown", "unknown setting 'maen'; known are distance, mean, std, input, size")
    refused(f"{own}:odd_size", "size must be a number or .height, width., not 'large'")
    refused(f"{own}:flat_std", "own.py:flat_std: every value of std must be above 0")
    refused(f"{own}:fails", "own.py:fails: failed with KeyError: 'weights'")
    refused(f"{own}:says_it_better", "^mine.safetensors: fetch it first$")
    (tmp_path / "broken.py").write_text("def encoder(:\n")
    refused(f"{tmp_path}/broken.py:encoder", "failed with SyntaxError")


# -- programs


@pytest.fixture
def exported(tmp_path, net, images):
    def save(name, *, dynamic=None, example=(images[:2],), encoder=net):
        torch.export.save(torch.export.export(encoder, example, dynamic_shapes=dynamic), str(tmp_path / name))
        return tmp_path / name

    return save


def test_an_exported_program(exported, net, images):
    file = exported("net.pt2", dynamic=({0: torch.export.Dim("batch")},))
    refused(file, "opening such a file can run code .* add --trust")
    source = open_encoder(str(file), trust=True)
    assert source.input == (3, 16, 16)
    assert_same(source, net, images)


def test_a_program_for_images_of_any_size_knows_none(exported, net, images):
    sides = {2: torch.export.Dim("h", min=8, max=64), 3: torch.export.Dim("w", min=8, max=64)}
    file = exported("any.pt2", dynamic=({0: torch.export.Dim("batch"), **sides},))
    source = open_encoder(str(file), trust=True)
    assert source.input is None
    assert_same(source, net, images[:, :, :12, :14])


def test_a_program_for_something_else(exported, tmp_path, net):
    refused(exported("fixed.pt2"), r"for batches of exactly 2; export it with dynamic_shapes=", trust=True)
    two = exported("flat.pt2", encoder=nn.Linear(3, 2), example=(torch.rand(2, 3),))
    refused(two, "must take one batch of images", trust=True)
    (tmp_path / "no.pt2").write_text("no")
    refused(tmp_path / "no.pt2", "cannot be opened as a program", trust=True)
    refused(tmp_path / "nowhere.pt2", "no such file", trust=True)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    refused(tmp_path / "weights.pt", "cannot be opened as a program", trust=True)


@pytest.mark.parametrize("suffix", ["pt", "ts"])
def test_a_torchscript_program(tmp_path, net, images, suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save(str(tmp_path / f"net.{suffix}"))
    refused(tmp_path / f"net.{suffix}", "can run code")
    assert_same(open_encoder(str(tmp_path / f"net.{suffix}"), trust=True), net, images)


def test_nothing_is_opened_without_trust(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", pytest.fail)
    monkeypatch.setattr(torch.export, "load", pytest.fail)
    for name in ("a.pt", "a.ts", "a.pt2"):
        (tmp_path / name).write_text("x")
        refused(tmp_path / name, "can run code")


# -- transformers


@pytest.fixture
def saved(transformers, tmp_path):
    """Save a random model with a preprocessor; gives its name."""

    def save(model, **settings):
        model.save_pretrained(tmp_path / "hf")
        settings = {"size": {"height": 16, "width": 16}, **settings}
        transformers.ViTImageProcessor(**settings).save_pretrained(tmp_path / "hf")
        return f"hf:{tmp_path / 'hf'}"

    return save


@pytest.fixture
def vit(transformers):
    torch.manual_seed(0)
    return transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)


class By(nn.Module):
    """A model of the library and what is read from it."""

    def __init__(self, model, read):
        super().__init__()
        self.model, self.read = model, read

    def forward(self, pixels):
        return self.read(self.model, pixels)


def test_a_vit_gives_its_pooled_output(transformers, saved, vit, images):
    model = transformers.ViTModel(vit)
    source = open_encoder(saved(model, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]))
    assert (source.mean, source.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (source.input, source.distance) == ((3, 16, 16), "cosine")
    assert source.record["arch"] == "ViTModel"
    assert json.loads(json.dumps(source.record)) == source.record
    assert_same(source, By(model, lambda model, pixels: model(pixels).pooler_output), images)


def test_a_classifier_without_a_pooling_layer_gives_its_first_token(transformers, saved, vit, images):
    model = transformers.ViTForImageClassification(vit)
    first = By(model.vit, lambda model, pixels: model(pixels).last_hidden_state[:, 0])
    assert_same(open_encoder(saved(model)), first, images)


def test_a_convolutional_network_gives_flat_embeddings(transformers, saved, images):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
    )
    model = transformers.ResNetModel(config)
    pooled = By(model, lambda model, pixels: model(pixels).pooler_output.flatten(1))
    assert_same(open_encoder(saved(model)), pooled, images)


def test_the_image_half_of_a_clip_is_projected(transformers, saved, images):
    config = transformers.CLIPVisionConfig(**SMALL, image_size=16, patch_size=8, projection_dim=6)
    model = transformers.CLIPVisionModelWithProjection(config)
    projected = By(model, lambda model, pixels: model(pixels).image_embeds)
    assert_same(open_encoder(saved(model)), projected, images)


def test_pixels_are_prepared_as_the_preprocessor_would(transformers, saved, vit, images):
    settings = {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}
    name = saved(transformers.ViTModel(vit), **settings)
    source = open_encoder(name)
    processor = transformers.AutoImageProcessor.from_pretrained(name.removeprefix("hf:"))
    pixels = (images * 255).round()
    expected = processor(list(pixels.to(torch.uint8)), return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (source.mean, source.std))
    torch.testing.assert_close((pixels / 255 - mean) / std, expected, atol=1e-5, rtol=1e-5)


def test_a_preprocessor_that_only_divides_leaves_plain_pixels(transformers, saved, vit):
    source = open_encoder(saved(transformers.ViTModel(vit), do_normalize=False))
    assert (source.mean, source.std, source.input) == (None, None, (3, 16, 16))


def test_the_size_is_that_of_the_crop_or_else_the_models(transformers, tmp_path, vit):
    transformers.ViTModel(vit).save_pretrained(tmp_path)
    for settings, side in (
        ({"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}, 16),
        ({"size": {"shortest_edge": 20}, "do_center_crop": False}, 20),
    ):
        transformers.CLIPImageProcessor(**settings).save_pretrained(tmp_path)
        assert open_encoder(f"hf:{tmp_path}").input == (3, side, side)


def test_its_own_preprocessing_is_that_of_the_processor(transformers, tmp_path, vit):
    transformers.ViTModel(vit).save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
    transformers.CLIPImageProcessor(**sizes, resample=1).save_pretrained(tmp_path)
    source = open_encoder(f"hf:{tmp_path}")
    assert repr(source.preprocess) == "Preprocess(resize=20, resample=lanczos, crop=16, pad=True)"
    assert source.notes == ()
    transformers.CLIPImageProcessor(size={"longest_edge": 16}, do_center_crop=False).save_pretrained(tmp_path)
    source = open_encoder(f"hf:{tmp_path}")
    assert source.preprocess is None
    (note,) = source.notes
    assert note.startswith("how the preprocessor of hf:")
    assert note.endswith(") resizes an upload is not reproduced")


def test_a_saved_attack_embeds_as_the_library_embeds_the_file(transformers, tmp_path, vit, make):
    transformers.ViTModel(vit).save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
    transformers.CLIPImageProcessor(**sizes).save_pretrained(tmp_path)
    source = open_encoder(f"hf:{tmp_path}")
    ranker = Ranker(source.encoder, mean=source.mean, std=source.std, preprocess=source.preprocess)
    photo = torch.from_numpy(load_sample_images().images[0].copy()).permute(2, 0, 1)
    uploads = torch.stack([photo[:, 40 * row : 40 * row + 61, 90:143] for row in range(6)])
    gallery = Gallery.build(ranker, uploads)
    result = attack(gallery, uploads[:2], CandidateRaise(w=2), Threat(8 / 255), gallery_ids=torch.arange(2))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    for adversarial in result.adversarial:
        levels = (adversarial * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(tmp_path / "upload.png")
        with Image.open(tmp_path / "upload.png") as upload, torch.no_grad():
            z = source.encoder(processor(images=upload, return_tensors="pt")["pixel_values"])
            torch.testing.assert_close(ranker.embed(adversarial[None]), z, atol=1e-5, rtol=1e-4)
    assert result.rank_after.mean() < result.rank_before.mean()


def test_models_that_would_be_partly_random_are_refused(transformers, saved, vit, tmp_path):
    from safetensors.torch import load_file, save_file

    name = saved(transformers.ViTModel(vit))
    file = tmp_path / "hf" / "model.safetensors"
    state = load_file(file)
    lost = [key for key in state if "layernorm_before" in key]
    save_file({key: value for key, value in state.items() if key not in lost}, file, {"format": "pt"})
    refused(name, "weights are missing in the file .*layernorm_before")


def test_only_safetensors_are_read(transformers, saved, vit, tmp_path):
    name = saved(transformers.ViTModel(vit))
    (tmp_path / "hf" / "model.safetensors").unlink()
    torch.save(transformers.ViTModel(vit).state_dict(), tmp_path / "hf" / "pytorch_model.bin")
    refused(name, "AutoModel cannot be read .OSError.*safetensors")


def test_code_that_comes_with_a_model_is_not_run(saved, transformers, vit, tmp_path):
    name = saved(transformers.ViTModel(vit))
    place = tmp_path / "hf" / "config.json"
    config = json.loads(place.read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Mine", "AutoModel": "evil.Mine"}}
    place.write_text(json.dumps(config))
    (tmp_path / "hf" / "evil.py").write_text("raise SystemExit('executed')\n")
    refused(name, "AutoConfig cannot be read")


def test_a_folder_without_a_preprocessor_or_a_model(saved, transformers, vit, tmp_path):
    name = saved(transformers.ViTModel(vit))
    (tmp_path / "hf" / "preprocessor_config.json").unlink()
    refused(name, "AutoImageProcessor cannot be read .* preprocessor_config.json")
    refused(f"hf:{tmp_path / 'nowhere'}", "AutoConfig cannot be read")


def test_channels_that_are_turned_are_refused(transformers, saved, vit, tmp_path):
    name = saved(transformers.ViTModel(vit))
    settings = {"do_flip_channel_order": True, "size": {"height": 16, "width": 16}}
    transformers.MobileViTImageProcessor(**settings).save_pretrained(tmp_path / "hf")
    refused(name, "its preprocessor reorders or offsets the channels")


# -- timm and torchvision


def put(monkeypatch, name, **contents):
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def transform(image, *, side, crop, filter_, mean, std):
    """What both libraries make of an image of Pillow: the shorter side, the centre, mean and std."""
    shorter = min(image.size)
    image = image.resize(tuple(side * old // shorter for old in image.size), filter_)
    left, top = (round((now - crop) / 2) for now in image.size)
    pixels = np.asarray(image)[top : top + crop, left : left + crop].astype(np.float32) / 255
    pixels = (pixels - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture
def timm(monkeypatch, net):
    asked = []

    def create_model(name, pretrained=False, **options):
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})\nand much more")
        asked.append((pretrained, options))
        return net

    config = {"input_size": (3, 16, 16), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.9}
    put(monkeypatch, "timm", create_model=create_model)
    config["interpolation"] = "bicubic"

    def create_transform(*, is_training, **given):
        assert (given, is_training) == (config, False)
        numbers = {"mean": given["mean"], "std": given["std"], "side": 17, "crop": 16}  # floor(16 / 0.9)
        return lambda image: transform(image, filter_=Image.Resampling.BICUBIC, **numbers)

    resolved = {"resolve_model_data_config": lambda model: dict(config), "create_transform": create_transform}
    put(monkeypatch, "timm.data", **resolved)
    return asked


def test_a_timm_model(timm, net, images):
    source = open_encoder("timm:small")
    assert timm == [(True, {"num_classes": 0})]
    assert (source.mean, source.std, source.input) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (3, 16, 16))
    assert source.record["arch"] == "small"
    expected = "Preprocess(resize=17, resample=bicubic, crop=16, centre=torchvision, pad=True)"
    assert (repr(source.preprocess), source.notes) == (expected, ())
    assert_same(source, net, images)
    refused("timm:large", r"cannot be loaded .RuntimeError: Unknown model .large.\); timm.list_models")


class Classifier(nn.Module):
    """As torchvision builds them: a head of several layers whose last one is linear."""

    def __init__(self):
        super().__init__()
        self.features = Net()
        self.classifier = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 10))

    def forward(self, images):
        return self.classifier(self.features(images))


class Preset:
    """As torchvision's for classification, with an odd margin around its crop."""

    crop_size, resize_size = [16], [21]
    interpolation = SimpleNamespace(value="bilinear")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __call__(self, image):
        numbers = {"mean": self.mean, "std": self.std, "side": 21, "crop": 16}
        return transform(image, filter_=Image.Resampling.BILINEAR, **numbers)


@pytest.fixture
def torchvision(monkeypatch):
    torch.manual_seed(0)
    network = Classifier().eval()
    default = SimpleNamespace(transforms=Preset)

    def get_model_weights(name):
        if name not in ("small", "headless"):
            raise ValueError(f"Unknown model {name}")
        return SimpleNamespace(DEFAULT=default)

    def get_model(name, weights):
        assert weights is default
        return network if name == "small" else network.features

    put(monkeypatch, "torchvision")
    put(monkeypatch, "torchvision.models", get_model=get_model, get_model_weights=get_model_weights)
    return network


def test_a_torchvision_model_loses_its_classifier(torchvision, images):
    before = nn.Sequential(torchvision.features, torchvision.classifier[:2])
    source = open_encoder("torchvision:small")
    assert (source.input, source.mean[0], source.std[0]) == ((3, 16, 16), 0.485, 0.229)
    expected = "Preprocess(resize=21, resample=bilinear, crop=16, centre=torchvision, pad=True)"
    assert (repr(source.preprocess), source.notes) == (expected, ())
    assert_same(source, before, images)
    refused("torchvision:large", "ValueError: Unknown model large.; torchvision.models.list_models")
    refused("torchvision:headless", "has no linear classifier to remove")


def test_a_transform_that_does_something_else_is_not_reproduced(torchvision, monkeypatch):
    monkeypatch.setattr(Preset, "resize_size", [22])
    source = open_encoder("torchvision:small")
    assert source.preprocess is None
    assert source.notes == ("how the transform of torchvision:small resizes an upload is not reproduced",)


@pytest.mark.parametrize("library", ["timm", "torchvision", "hf"])
def test_a_library_that_is_not_there_or_broken(monkeypatch, library):
    name = {"hf": "transformers"}.get(library, library)

    class Broken:
        def find_spec(self, wanted, path=None, target=None):
            if wanted.partition(".")[0] == name:
                raise RuntimeError("operator torchvision::nms does not exist\nand much more")

    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    refused(
        f"{library}:any",
        rf"{name} cannot be used here .RuntimeError: operator torchvision::nms does not exist\); "
        rf"install one that matches your torch: pip install 'rankproof\[{name}\]'",
    )


# -- where it runs


def test_a_device_that_is_not_there():
    refused("zoo:fashion-mnist/c2f1-ct", "cannot be put on nowhere", device="nowhere")


def test_an_edit_within_the_same_second_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "own.py"
    found = []
    for side in (2, 4):  # texts of one length, changed in one second: Python would take the code of before
        file.write_text(f"from torch import nn\n\ndef encoder():\n    return nn.AvgPool2d({side})\n")
        os.utime(file, (1_000_000_000, 1_000_000_000))
        found.append(open_encoder(f"{file}:encoder").encoder.kernel_size)
    assert found == [2, 4]
