"""Small convolutional encoders for grey images: C2F1 and LeNet for 28x28, and one for the 8x8 digits."""

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Convolutional features and one linear layer.

    Args:
        features: maps images to feature maps.
        flattened: number of values of the feature maps.
        dimensions: of the embedding.
    """

    def __init__(self, features: nn.Sequential, flattened: int, dimensions: int) -> None:
        super().__init__()
        self.features = features
        self.embedding = nn.Linear(flattened, dimensions)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, h, w) to (b, d)."""
        z: Tensor = self.embedding(self.features(images).flatten(1))
        return z


class C2F1(SmallCNN):
    """Two 5x5 convolutions with ReLU and pooling, then one linear layer and nothing after it.

    The network of ECCV section 4.1 for 28x28 grey images: 1 -> 32 -> 64 channels, 3136 -> 1024.
    """

    def __init__(self) -> None:
        features = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        super().__init__(features, 64 * 7 * 7, 1024)


class LeNet(SmallCNN):
    """Two 5x5 convolutions with pooling and no ReLU between them, one linear layer, ReLU on the embedding.

    For 28x28 grey images: 1 -> 20 -> 50 channels, 800 -> 500 (ECCV, transfer).
    """

    def __init__(self) -> None:
        features = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
        )
        super().__init__(features, 50 * 4 * 4, 500)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, 28, 28) to (b, 500)."""
        return super().forward(images).relu()


class DigitsEncoder(SmallCNN):
    """Two 3x3 convolutions and one linear layer for the 8x8 digits: 1 -> 16 -> 32 channels, 512 -> 64."""

    def __init__(self) -> None:
        features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        super().__init__(features, 32 * 4 * 4, 64)
