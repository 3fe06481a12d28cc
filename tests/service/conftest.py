from io import BytesIO

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from rankproof.models import new_encoder, save_checkpoint
from rankproof.service.app import create_app
from rankproof.service.limits import Limits
from rankproof.service.opening import open_service
from rankproof.system import load_task, open_system

FREE = Limits(per_day=1_000_000, per_second=1_000_000, window=0.0)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A digits encoder with random weights, for each distance."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    encoder = new_encoder("digits")
    for distance in ("cosine", "euclidean", "sphere"):
        save_checkpoint(folder / distance, encoder, {"arch": "digits", "distance": distance})
    return folder


@pytest.fixture(scope="session")
def local(models):
    """The gallery that a service of the cosine model must agree with."""
    return open_system(str(models / "cosine"), None)


@pytest.fixture
def new_service(models, tmp_path):
    """Opens services in one folder, and closes them at the end."""
    opened = []

    def new(distance="cosine", folder=tmp_path, limits=FREE, preprocess=None, **options):
        subject = load_task(str(models / distance), None, preprocess=preprocess)
        service = open_service(subject, folder, limits=limits, **options)
        opened.append(service)
        return service

    yield new
    for service in opened:
        service.close()


@pytest.fixture
def service(new_service):
    return new_service()


@pytest.fixture
def client(service):
    return TestClient(create_app(service))


class Files:
    """Image files as callers send them."""

    @staticmethod
    def png(image):
        """A PNG file of an 8-bit image (c, h, w)."""
        return Files.encoded(np.asarray(image).transpose(1, 2, 0).squeeze(), "PNG")

    @staticmethod
    def encoded(pixels, kind, **options):
        file = BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    @staticmethod
    def noise(height, width, channels=3, seed=0):
        """Random 8-bit pixels (h, w, c), or (h, w) for one channel."""
        shape = (height, width, channels)[: 3 if channels > 1 else 2]
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="session")
def files():
    return Files
