"""Residual networks without a classifier: the embedding is the global average of the last feature maps.

Parameters have the names that checkpoints trained on ImageNet use (`layer1.0.conv1.weight`), so that such
a file of weights can be loaded; its classifier, `fc`, is ignored.
"""

from collections.abc import Sequence

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) to (b, width, h / stride, w / stride)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        z: Tensor = self.relu(y + self.downsample(x))
        return z


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, beside a shortcut; the 3x3 one has the stride."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) to (b, 4 width, h / stride, w / stride)."""
        y = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        z: Tensor = self.relu(self.bn3(self.conv3(y)) + self.downsample(x))
        return z


class ResNet(nn.Module):
    """A residual network (He et al., CVPR 2016) from images to the global average of its features.

    Args:
        block: kind of residual block.
        counts: blocks in each of its four layers.
        channels: of the images.
    """

    def __init__(self, block: type[Basic] | type[Bottleneck], counts: Sequence[int], channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = (WIDTHS[0], *(block.expansion * width for width in WIDTHS[:-1]))
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                block(before, width, 1 if width == WIDTHS[0] else 2),
                *(block(block.expansion * width, width, 1) for _ in range(count - 1)),
            )
            for before, width, count in zip(inputs, WIDTHS, counts, strict=True)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, 512), or to (b, 2048) from bottlenecks."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        z: Tensor = self.avgpool(x).flatten(1)  # (b, d, 1, 1) to (b, d)
        return z


def resnet18(channels: int = 3) -> ResNet:
    """ResNet-18: 512 dimensions."""
    return ResNet(Basic, (2, 2, 2, 2), channels)


def resnet50(channels: int = 3) -> ResNet:
    """ResNet-50: 2048 dimensions."""
    return ResNet(Bottleneck, (3, 4, 6, 3), channels)


def _shortcut(channels: int, outputs: int, stride: int) -> nn.Module:
    if channels == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
