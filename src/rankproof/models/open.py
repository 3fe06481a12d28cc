"""Opens an encoder by name, whichever library or file it comes from."""

import re
from dataclasses import replace
from pathlib import Path

from rankproof.errors import RankproofError
from rankproof.models.architectures import ARCHITECTURES
from rankproof.models.checkpoint import RECORD, WEIGHTS, ZOO, load_checkpoint
from rankproof.models.definitions import DEFINITIONS
from rankproof.models.huggingface import load_huggingface
from rankproof.models.model_libraries import load_timm, load_torchvision
from rankproof.models.onnx import load_onnx
from rankproof.models.package_weights import WEIGHT_PACKAGES, load_from_package
from rankproof.models.program import load_program
from rankproof.models.source import SETTINGS, Source, describe
from rankproof.models.user_code import call_user
from rankproof.models.weights_file import open_weights

ONNX = ".onnx"
USER_CODE = re.compile(r"(.+\.py):(\w+)")


def open_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    output: str | None = None,
    trust: bool = False,
    device: str = "cpu",
) -> Source:
    """Open an encoder by name.

    - a folder written by `rankproof train`, or `zoo:NAME`
    - `efficientnet-lite0`, `-lite1`, `-lite2`: trained on ImageNet, from the extra `photos`
    - `hf:FOLDER_OR_NAME`, `timm:NAME`, `torchvision:NAME`: from the library of that name
    - `module.py:function`: a function in your own file, which returns the module
    - with `weights`, the network that a file of weights belongs to, such as `resnet18`
    - `FILE.onnx`: a network in an ONNX file; it has a gradient where onnx2torch can convert it
    - `FILE.pt2` (torch.export), `FILE.pt` or `FILE.ts` (TorchScript): a program, only with `trust`

    Args:
        name: one of the forms above.
        weights: a file with a state dict, under torchvision's or timm's names.
        trust: allow files that can run code when they are opened.
        output: of an ONNX file, the tensor that is the embedding; None is its only output, or the only one
            that is (b, d).
        device: where the encoder is put.
    Raises:
        RankproofError: it cannot be opened; the message says what to do.
    """
    source = _open(name, trust, output) if weights is None else open_weights(name, weights)
    try:
        source.encoder.to(device)
    except (RuntimeError, AssertionError) as error:
        raise RankproofError(f"{name}: cannot be put on {device} ({error}); choose another device") from None
    return source


def _open(name: str, trust: bool, output: str | None) -> Source:
    """The encoder, on the CPU."""
    if name.endswith(ONNX) and not Path(name).is_dir():
        return load_onnx(name, Path(name), output)
    if output is not None:
        raise RankproofError(f"{name}: --output names a tensor of an ONNX file, FILE{ONNX}; leave it out")
    if match := USER_CODE.fullmatch(name):
        return call_user(name, Path(match[1]), match[2])
    if name in WEIGHT_PACKAGES and not Path(name).is_dir():
        return load_from_package(name)
    scheme, _, rest = name.partition(":")
    match scheme if rest else "folder" if Path(name).is_dir() else Path(name).suffix:
        case "hf":
            return load_huggingface(name, rest)
        case "timm":
            return load_timm(name, rest)
        case "torchvision":
            return load_torchvision(name, rest)
        case ".pt2" | ".pt" | ".ts":
            return load_program(name, Path(name), trust)
        case ".safetensors" | ".pth" | ".bin" | ".ckpt":
            raise RankproofError(
                f"{name}: weights alone do not say which network they belong to; write --model NETWORK "
                f"--weights {name}, where NETWORK is one of {', '.join(DEFINITIONS)}; for any other write a "
                f"function that builds it and loads them, and name it as module.py:function"
            )
        case ".py":
            raise RankproofError(f"{name}: which function in it returns the encoder? Write {name}:FUNCTION")
    return _from_checkpoint(name)


def _from_checkpoint(name: str) -> Source:
    """A checkpoint folder or a zoo name; settings that its record lacks are those of the architecture."""
    if (Path(name) / "config.json").is_file() and not (Path(name) / RECORD).is_file():
        raise RankproofError(f"{name}: a folder of the transformers library; write hf:{name}")
    if ":" in name and not name.startswith(ZOO) and not Path(name).exists():
        raise RankproofError(
            f"{name}: unknown kind of encoder; write zoo:, hf:, timm: or torchvision: before a name, "
            f"FILE.py:FUNCTION, or the path of a folder or program"
        )
    if name in DEFINITIONS and not Path(name).exists():
        raise RankproofError(f"{name}: a network without weights; add --weights FILE (in Python weights=)")
    if not name.startswith(ZOO) and not Path(name).exists():
        raise RankproofError(
            f"{name}: not found; a model is a folder with {WEIGHTS} and {RECORD}, or a name or file such as "
            f"efficientnet-lite0, zoo:NAME, hf:NAME, FILE.onnx or FILE.py:FUNCTION"
        )
    checkpoint = load_checkpoint(name)
    record, architecture = checkpoint.record, ARCHITECTURES[str(checkpoint.record["arch"])]
    form = None if (side := architecture.size) is None else [architecture.channels, side, side]
    defaults = {"mean": architecture.mean, "std": architecture.std, "input": form}
    settings = {key: record.get(key, defaults.get(key)) for key in SETTINGS}
    source = describe(checkpoint.encoder, name, settings, channels=architecture.channels)
    return replace(source, record=record)
