"""Folders of the transformers library with random weights, examined as they are opened."""

import pytest
import torch

from rankproof import Gallery, QueryRaise, Ranker, RankproofError, Threat, attack, open_encoder

SIDE = 32
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "intermediate_size": 32, "image_size": SIDE, "patch_size": 8}


def beit(library):
    return library.BeitModel(library.BeitConfig(**VISION))


def swin(library):
    sizes = {"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return library.SwinModel(library.SwinConfig(image_size=SIDE, **sizes))


def siglip(library):
    text = {**SMALL, "intermediate_size": 32, "vocab_size": 8, "max_position_embeddings": 8}
    return library.SiglipModel(library.SiglipConfig(text_config=text, vision_config=VISION))


def dinov2_with_registers(library):
    config = library.Dinov2WithRegistersConfig(**SMALL, image_size=SIDE, patch_size=8, num_register_tokens=2)
    return library.Dinov2WithRegistersModel(config)


def resnet(library):
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return library.ResNetModel(library.ResNetConfig(**sizes))


def clip(library):
    text = {**SMALL, "intermediate_size": 32, "vocab_size": 8, "max_position_embeddings": 8}
    config = library.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    return library.CLIPModel(config)


FAMILIES = [beit, swin, siglip, dinov2_with_registers, resnet, clip]


@pytest.fixture
def opened(transformers, tmp_path):
    """A ranker of a model that went through a folder."""

    def save_and_open(model, **options):
        model.save_pretrained(tmp_path / "hf")
        processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
        processor.save_pretrained(tmp_path / "hf")
        source = open_encoder(f"hf:{tmp_path / 'hf'}")
        return Ranker(source.encoder, source.distance, mean=source.mean, std=source.std, **options)

    return save_and_open


@pytest.fixture(scope="module")
def images(make):
    return torch.rand(9, 3, SIDE, SIDE, generator=make.random(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_each_family_is_a_function_of_its_image(transformers, opened, images, family, dtype):
    torch.manual_seed(0)
    ranker = opened(family(transformers).to(dtype))
    gallery = Gallery.build(ranker, images)
    found = ranker.examination
    assert (found.kind, found.gradient, found.draws) == ("function", "reaches", 1)
    assert not any((found.changes_input, found.shares_output, found.changes_state))
    assert found.dtype == str(next(ranker.encoder.parameters()).dtype).removeprefix("torch.")
    assert gallery.embeddings.dtype == torch.float32
    rows = torch.arange(2)
    result = attack(gallery, images[rows], QueryRaise(), Threat(8 / 255), gallery_ids=rows)
    assert result.examination == found


def test_a_masked_autoencoder_is_random(transformers, opened, images):
    torch.manual_seed(0)
    ranker = opened(transformers.ViTMAEModel(transformers.ViTMAEConfig(**VISION)))
    Gallery.build(ranker, images)
    assert (ranker.examination.kind, ranker.examination.reproducible) == ("random", True)
    assert (ranker.draws, ranker.examination.gradient) == (8, "reaches")


def test_a_residual_network_that_normalises_by_its_batch_is_refused(transformers, opened, images):
    torch.manual_seed(0)
    ranker = opened(resnet(transformers))
    for module in ranker.encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = module.running_var = None  # as track_running_stats=False makes them
    with pytest.raises(RankproofError, match="depends on the others of its batch"):
        Gallery.build(ranker, images)
    ranker.chunk = 1
    Gallery.build(ranker, images)
    assert ranker.examination.kind == "function"
