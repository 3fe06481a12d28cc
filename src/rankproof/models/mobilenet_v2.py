"""MobileNetV2 without a classifier: the embedding is the global average of the last feature maps.

Parameters have torchvision's names (`features.1.conv.0.0.weight`), so that files of weights trained on
ImageNet can be loaded.
"""

from torch import Tensor, nn

STAGES = (  # expansion, output channels, blocks, stride (Sandler et al., CVPR 2018, table 2)
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, HEAD = 32, 1280  # channels


class InvertedResidual(nn.Module):
    """A depthwise convolution between two of 1x1, beside a shortcut where the shapes agree.

    Args:
        channels, outputs: number of feature maps before and after.
        stride: of the depthwise convolution.
        expansion: times as many feature maps in between; there is no first 1x1 convolution for 1.
    """

    def __init__(self, channels: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.has_shortcut = stride == 1 and channels == outputs
        self.conv = nn.Sequential(
            *([] if expansion == 1 else [_with_norm(channels, inner, 1)]),
            _with_norm(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) to (b, outputs, h / stride, w / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., CVPR 2018) of width 1, from images to the global average of its features.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [_with_norm(channels, STEM, 3, 2)]
        before = STEM
        for expansion, outputs, count, stride in STAGES:
            for number in range(count):
                layers.append(InvertedResidual(before, outputs, 1 if number else stride, expansion))
                before = outputs
        self.features = nn.Sequential(*layers, _with_norm(before, HEAD, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, 1280)."""
        z: Tensor = self.avgpool(self.features(images)).flatten(1)  # (b, d, 1, 1) to (b, d)
        return z


def _with_norm(channels: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )
