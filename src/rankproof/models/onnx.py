"""Encoders in ONNX files: run by onnxruntime, and converted to torch for their gradients.

The converted network is what is attacked and ranked. It is compared with onnxruntime on the first images
that reach it, whoever passes them, and a difference is an error. A network that cannot be converted is run by
onnxruntime and has no gradient, which is enough for a black box.
"""

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.models.onnx_comparison import COMPARED, TF32, Comparison
from rankproof.models.onnx_conversion import CannotConvertError, converted
from rankproof.models.onnx_file import EXTRA, read_onnx
from rankproof.models.onnx_graph import EmbeddingGraph, embedding_graph
from rankproof.models.source import Source, describe, optional_library, reason

NOISE = re.compile(r"^\w+: \[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src\S+ |onnxruntime::.*\) ")
SAID = 400  # characters of its own words in a message
SILENT = 4  # severity of onnxruntime's log: what matters comes as an exception

PLAIN = (
    "no mean and std: the network gets pixels in [0, 1], since an ONNX file does not say what it was made "
    "for; give --mean and --std if it wants others"
)
WANTS_BYTES = (
    "no mean and std: the network gets pixels in [0, 1], but it begins with a normalisation of pixels in "
    "0 .. 255; it gets those by --mean 0 --std 1/255 (in Python mean=[0], std=[1 / 255])"
)


class Runtime:
    """A model as onnxruntime runs it, on the CPU; copies of an encoder share it.

    Args:
        name: of the encoder, for messages.
        graph: what it runs.
    Raises:
        RankproofError: onnxruntime is missing or does not take the model.
    """

    def __init__(self, name: str, graph: EmbeddingGraph) -> None:
        library = optional_library("onnxruntime", EXTRA)
        options = library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = library.InferenceSession(
                graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library has no common class of its errors
            raise RankproofError(f"{name}: onnxruntime cannot run it ({_said(error)})") from None
        self._name, self._input, self._output = name, graph.input, graph.output
        self._version = str(library.__version__)

    def __rankproof_state__(self) -> tuple[str, ...]:
        """What it depends on beside the content of the file, for whoever keeps embeddings."""
        return self._version, self._name, self._input, self._output

    def __deepcopy__(self, memo: object) -> "Runtime":
        return self

    def __call__(self, pixels: Tensor) -> Tensor:
        """The output for pixels in the form that the graph takes."""
        values = pixels.detach().cpu().contiguous().numpy()
        try:
            (z,) = self._session.run([self._output], {self._input: values})
        except Exception as error:  # the library has no common class of its errors
            raise RankproofError(
                f"{self._name}: onnxruntime fails on pixels of {tuple(values.shape)} ({_said(error)}); are "
                f"they of the size that the file was made for?"
            ) from None
        if not hasattr(z, "dtype") or z.dtype.kind not in "fiub":
            raise RankproofError(f"{self._name}: {self._output} is no tensor of numbers; choose by --output")
        return torch.from_numpy(z).to(pixels.device)


def _said(error: Exception) -> str:
    return NOISE.sub("", reason(error)[:SAID])


class OnnxEncoder(nn.Module):
    """An ONNX model as an encoder of pixels (b, c, h, w).

    Args:
        name: of the encoder, for messages.
        graph: what computes the embedding.
        fingerprint: 32 bytes that say what the file holds, kept as a buffer: a network without weights of its
            own is told from another by them.
    """

    fingerprint: Tensor

    def __init__(self, name: str, graph: EmbeddingGraph, fingerprint: bytes) -> None:
        super().__init__()
        self.name, self.dtype, self.output = name, graph.dtype, graph.output
        self._channels_last, self._group = graph.channels_last, graph.batch or 1
        self.runtime = Runtime(name, graph)
        self.register_buffer("fingerprint", torch.tensor(list(fingerprint), dtype=torch.uint8))
        self._position = _position(graph)
        self._whole = True  # whether a batch of any size passes at once
        self.network: nn.Module | None = None
        self._obstacle = ""
        try:
            self.network = converted(graph)
        except CannotConvertError as error:
            self._obstacle = str(error)
        self._comparison = Comparison(self._eps())

    def _eps(self) -> float:
        """Unit in the last place of the coarsest type it computes in."""
        values = (*self.parameters(), *self.buffers())
        types = {value.dtype for value in values if value.is_floating_point()} | {self.dtype}
        return max(torch.finfo(each).eps for each in types if each.is_floating_point)

    @property
    def implementation(self) -> str:
        """How it is computed, for reports: how far two implementations agree, or why there is only one."""
        found = self._comparison
        if self.network is None:
            said = f"run by onnxruntime, without gradients, since {self._obstacle}"
        elif not found.images:
            said = "not yet compared with onnxruntime"
        else:
            within = f"within {found.share:.0e} of the median distance" if found.share else "exactly"
            said = f"onnxruntime and the converted network agree {within} on {found.images} images"
        if not self._whole:
            passes = "one image at a time" if self._group == 1 else f"{self._group} images at a time"
            said += f", {passes}, since other batches fail or differ"
        return said if not found.alike else f"{said}; {found.alike}"

    def train(self, mode: bool = True) -> "OnnxEncoder":
        """Set the mode of this module only; the network is one for inference."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, d)."""
        pixels = self._prepared(images)
        if not self._comparison.wants(pixels.shape):
            return self._embedded(pixels)
        with torch.no_grad():
            self._compare(pixels, images)
        return self._embedded(pixels)

    def _prepared(self, images: Tensor) -> Tensor:
        """Pixels in the form and type that the graph takes; 8-bit ones are rounded, and stay floats."""
        if self.dtype == torch.uint8:
            if not bool(((images >= 0) & (images <= 1)).all()):
                raise RankproofError(
                    f"{self.name}: takes 8-bit pixels, which are made from [0, 1]; leave mean and std out"
                )
            images = 255 * images
            images = images + (images.round() - images).detach()  # the gradient passes straight through
        else:
            images = images.to(self.dtype)
        return images.permute(0, 2, 3, 1) if self._channels_last else images

    def _run(self, pixels: Tensor) -> Tensor:
        """By onnxruntime."""
        return self._flat(self.runtime(pixels.to(self.dtype)), len(pixels))

    def _converted(self, pixels: Tensor) -> Tensor:
        """By the converted network."""
        assert self.network is not None
        z: Any = self.network(pixels)
        return self._flat(z[self._position] if isinstance(z, tuple | list) else z, len(pixels))

    def _flat(self, z: Tensor, count: int) -> Tensor:
        """(b, d) from (b, d), (b, d, 1, 1) and the like, or (d,) of one image."""
        if z.dim() == 1 and count == 1:
            z = z[None]
        if z.dim() < 2 or len(z) != count:
            raise RankproofError(
                f"{self.name}: must give one embedding for each of {count} images, {self.output} is "
                f"{tuple(z.shape)}; choose another tensor by --output"
            )
        if z[0].numel() != max(z.shape[1:]):
            raise RankproofError(
                f"{self.name}: {self.output} is a map of {tuple(z.shape)}, no embedding (b, d); choose a "
                f"tensor after its pooling by --output"
            )
        return z.flatten(1)

    def _embedded(self, pixels: Tensor) -> Tensor:
        run = self._run if self.network is None else self._converted
        return run(pixels) if self._whole else self._in_groups(run, pixels)

    def _in_groups(self, run: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """By passes of as many images as the file was made for; the last is filled up by its last image."""
        parts = []
        for part in pixels.split(self._group):
            missing = self._group - len(part)
            filled = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
            parts.append(run(filled)[: len(part)])
        return torch.cat(parts)

    def _compare(self, pixels: Tensor, images: Tensor) -> None:
        """Find a way through the network that agrees with onnxruntime, given images as the file wants them.

        Raises:
            RankproofError: there is none.
        """
        rows = torch.arange(len(pixels))
        rows = rows if len(rows) <= COMPARED else torch.cat([rows[: COMPARED - 1], rows[-1:]])
        expected = self._in_groups(self._run, pixels[rows])
        found = self._comparison
        found.add(expected, images[rows])
        found.eps = max(found.eps, TF32 if pixels.is_cuda else 0.0)
        if found.differ(self._in_groups(self._run, pixels[rows]), expected):
            self.network, self._obstacle = None, "it is random, so that nothing can check a conversion"
            found.over = True
            return
        while (z := self._attempt(pixels)) is None or found.differ(z[rows], expected):
            if self._whole and len(pixels) != self._group:
                self._whole = False
            elif z is None and self.network is not None and found.rows < COMPARED:
                self.network, self._whole = None, True
            else:
                raise self._disagreement(None if z is None else found.last, pixels)
        found.passed(pixels.shape, len(rows))

    def _attempt(self, pixels: Tensor) -> Tensor | None:
        """Embeddings in the present way, None where it fails; the last resort, single passes, may raise."""
        if self.network is None and not self._whole:
            return self._embedded(pixels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a converted network, meant for the author of the library
                return self._embedded(pixels)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a converted network may raise anything
            if self.network is not None:
                self._obstacle = f"its conversion fails, {reason(error)}"
            return None

    def _disagreement(self, share: float | None, pixels: Tensor) -> RankproofError:
        """The error of embeddings that differ by a share of the median distance, or (None) of none at all."""
        if share is None:
            return RankproofError(
                f"{self.name}: agreed so far, but not on pixels of {tuple(pixels.shape)}: {self._obstacle}"
            )
        return RankproofError(
            f"{self.name}: onnxruntime and the network converted by onnx2torch disagree by {share:.2g} of "
            f"the median distance, so that no gradient can be trusted; for a black box, name a function that "
            f"runs the file by onnxruntime as FILE.py:FUNCTION"
        )


def _position(graph: EmbeddingGraph) -> int:
    """Which of the outputs of its node the embedding is."""
    node = next(each for each in graph.model.graph.node if graph.output in each.output)
    return list(node.output).index(graph.output)


def load_onnx(name: str, file: Path, output: str | None = None) -> Source:
    """The encoder in an ONNX file.

    Args:
        name: of the encoder, for messages.
        output: name of the embedding, any tensor of the graph; None is the only output, or the only one that
            is (b, d).
    Raises:
        RankproofError: the file, its graph or the output cannot be used, or onnxruntime is missing.
    """
    model = read_onnx(name, file)
    graph = embedding_graph(name, model, output)
    digest = hashlib.sha256(graph.model.SerializeToString(deterministic=True))
    encoder = OnnxEncoder(name, graph, digest.digest())
    record = {
        "format": "onnx",
        "output": graph.output,
        "opset": next((each.version for each in model.opset_import if each.domain == ""), None),
    }
    form = None if None in graph.form else list(graph.form)
    source = describe(encoder, name, {"input": form}, record)
    note = None if graph.dtype == torch.uint8 else WANTS_BYTES if graph.wants_bytes else PLAIN
    return replace(source, plain_note=note)
