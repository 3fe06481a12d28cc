"""EfficientNet-Lite without a classifier: the embedding is the global average of the last feature maps.

The definition is our own, with the parameter names of the package `efficientnet-lite-pytorch` (such as
`_blocks.0._depthwise_conv.weight`), whose weights were converted from those that Google published. That
package was last touched in 2020 and pads for one image size that is fixed when a network is built; ours pads
for the images it gets. A test compares the two wherever the package is installed.
"""

from itertools import pairwise
from math import ceil

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))  # width and depth of Lite0 to Lite4
STAGES = (  # blocks, kernel, stride, expansion, outputs of a stage (Tan and Le, ICML 2019, table 1)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280  # channels; not scaled in the Lite networks
DIVISOR = 8  # of every number of channels


class SamePadding(nn.Module):
    """Zeros around feature maps, as TensorFlow's padding "SAME" adds them before a convolution with a stride.

    The output of the convolution has ceil(side / stride) rows. Where the zeros cannot be divided evenly, as
    for even sides, the one more stands at the bottom and on the right.

    Args:
        kernel, stride: of the convolution; the kernel is at least as large as the stride.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c, h + zeros, w + zeros)."""
        rows, columns = (self.kernel - self.stride + -x.shape[axis] % self.stride for axis in (2, 3))
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class InvertedBottleneck(nn.Module):
    """A depthwise convolution between two of 1x1, beside a shortcut where the shapes agree.

    Args:
        channels, outputs: number of feature maps before and after.
        kernel, stride: of the depthwise convolution.
        expansion: times as many feature maps in between; there is no first 1x1 convolution for 1.
    """

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expands, self.has_shortcut = expansion > 1, stride == 1 and channels == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(channels, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._pad, self._depthwise_conv = _padded(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self._relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) to (b, outputs, ceil(h / stride), ceil(w / stride))."""
        y = self._relu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._relu(self._bn1(self._depthwise_conv(self._pad(y))))
        z: Tensor = self._bn2(self._project_conv(y))
        return z + x if self.has_shortcut else z


class EfficientNetLite(nn.Module):
    """An EfficientNet-Lite network from images of any size to the global average of its features.

    These are the networks of Tan and Le (ICML 2019) without squeeze-and-excitation, with ReLU6 for swish, and
    with a stem and a head of fixed width. The dropout and the random depth of their training are left out.

    Args:
        width, depth: by which channels and blocks of a stage are multiplied.
    """

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        self._pad, self._conv_stem = _padded(3, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        widths = [STEM, *(_scaled_width(outputs, width) for *_, outputs in STAGES)]
        self._blocks = nn.ModuleList()
        for number, (before, after) in enumerate(pairwise(widths)):
            count, kernel, stride, expansion, _ = STAGES[number]
            if 0 < number < len(STAGES) - 1:  # the first and the last stage keep their depth
                count = ceil(depth * count)
            self._blocks.append(InvertedBottleneck(before, after, kernel, stride, expansion))
            self._blocks.extend(
                InvertedBottleneck(after, after, kernel, 1, expansion) for _ in range(count - 1)
            )
        self._conv_head = nn.Conv2d(widths[-1], HEAD, 1, bias=False)
        self._bn1 = _norm(HEAD)
        self._relu = nn.ReLU6(inplace=True)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) to (b, 1280)."""
        x = self._relu(self._bn0(self._conv_stem(self._pad(images))))
        for block in self._blocks:
            x = block(x)
        x = self._relu(self._bn1(self._conv_head(x)))
        z: Tensor = self._avg_pooling(x).flatten(1)  # (b, d, 1, 1) to (b, d)
        return z


def efficientnet_lite(number: int) -> EfficientNetLite:
    """EfficientNet-Lite0 to Lite4 with random weights: 1280 dimensions."""
    return EfficientNetLite(*SCALES[number])


def _padded(
    channels: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> tuple[nn.Module, nn.Conv2d]:
    """A convolution and what pads its input; without a stride the padding never depends on the side."""
    inside = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(channels, outputs, kernel, stride, padding=inside, groups=groups, bias=False)
    return nn.Identity() if stride == 1 else SamePadding(kernel, stride), convolution


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _scaled_width(channels: int, width: float) -> int:
    """The multiple of 8 nearest to channels * width, and no more than 10 % below it."""
    scaled = channels * width
    nearest = max(DIVISOR, int(scaled + DIVISOR / 2) // DIVISOR * DIVISOR)
    return nearest + DIVISOR if nearest < 0.9 * scaled else nearest
