"""LeNet, the second small encoder of the transfer experiments."""

from torch import Tensor, nn


class LeNet(nn.Module):
    """Two 5x5 convolutions with pooling and nothing between them, one linear layer, ReLU on the embedding.

    For 28x28 grey images: 1 -> 20 -> 50 channels, 800 -> 500 (ECCV, transfer).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
        )
        self.embedding = nn.Linear(50 * 4 * 4, 500)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1, 28, 28) to (b, 500)."""
        z: Tensor = self.embedding(self.features(images).flatten(1))
        return z.relu()
