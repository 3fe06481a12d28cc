"""What of torch's settings and of the machine an embedding depends on, beyond rounding."""

import platform

import numpy
import PIL
import torch


def torch_settings(device: torch.device) -> list[str]:
    """Versions, the device, and the precisions in which products are taken; threads change rounding only."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    versions = [torch.__version__, numpy.__version__, PIL.__version__, platform.python_version()]
    return [*versions, device.type, name, str(torch.get_default_dtype()), *_precisions()]


def _precisions() -> list[str]:
    backends = torch.backends
    places = [backends, backends.cudnn, backends.cuda.matmul, backends.mkldnn]
    for backend in (backends.cudnn, backends.mkldnn):
        places += [getattr(backend, part, None) for part in ("conv", "matmul", "rnn")]
    found = [str(getattr(place, "fp32_precision", "")) for place in places]
    try:  # where the older and the newer names were both set, the older ones raise
        return [*found, torch.get_float32_matmul_precision(), str(torch.backends.cudnn.allow_tf32)]
    except RuntimeError as error:
        return [*found, type(error).__name__]
