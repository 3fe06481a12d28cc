"""The small encoders: two convolutions and one linear layer."""

from torch import Tensor, nn


class C2F1(nn.Module):
    """Two 5x5 convolutions with ReLU and pooling, then one linear layer and nothing after it.

    The network of ECCV section 4.1 for 28x28 grey images: 1 -> 32 -> 64 channels, 3136 -> 1024.
    """

    size = 28

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.embedding = nn.Linear(64 * 7 * 7, 1024)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, 28, 28) to (b, 1024)."""
        z: Tensor = self.embedding(self.features(images).flatten(1))
        return z


class DigitsEncoder(nn.Module):
    """The same idea for the embedded 8x8 digits: 1 -> 16 -> 32 channels, 512 -> 64."""

    size = 8

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.embedding = nn.Linear(32 * 4 * 4, 64)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, 8, 8) to (b, 64)."""
        z: Tensor = self.embedding(self.features(images).flatten(1))
        return z
