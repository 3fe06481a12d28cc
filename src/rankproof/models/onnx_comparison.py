"""How far two implementations of one encoder agree, on the first images that reach it."""

import hashlib

import torch
from torch import Tensor, nn

COMPARED = 8  # images on which the two are compared, at least
SIZES = 2  # of batches of several images that are compared: numbers that were baked in fit one of them
FORMS = 8  # heights and widths of images that are compared, at most
SHARE = 1e-3  # of the median distance: a smaller difference is rounding
ROUNDING = 64  # units in the last place of an embedding's length: so is this, of two implementations
COARSE = 4  # the same in half precision, whose units are large already
TF32 = 2.0**-10  # unit in the last place of the products of single precision on a GPU
MOST_KNOWN = 32  # embeddings of which the median distance is taken
ALIKE = 0.1  # median distance of images, in lengths, of a network that hardly tells them apart


class Comparison:
    """What two implementations gave for the first images.

    Args:
        eps: unit in the last place of their arithmetic.
    """

    def __init__(self, eps: float) -> None:
        self.eps = eps
        self._known = torch.empty(0)
        self._sizes: set[int] = set()  # of batches
        self._forms: set[torch.Size] = set()  # of images
        self._seen: set[bytes] = set()  # images, by their bytes
        self.rows = 0  # compared, some of the same image
        self.over = False  # whether there is nothing more to compare
        self.share = self.last = 0.0  # largest and last difference, in median distances
        self.alike = ""

    def wants(self, shape: torch.Size) -> bool:
        """Whether a batch of that shape is to be compared."""
        count, several = shape[0], self._sizes - {1}
        new_size = count > 1 and count not in several and len(several) < SIZES
        new_form = shape[1:] not in self._forms and len(self._forms) < FORMS
        return not self.over and (self.rows < COMPARED or new_size or new_form)

    @property
    def images(self) -> int:
        """How many images were compared."""
        return len(self._seen)

    def add(self, z: Tensor, images: Tensor) -> None:
        """Take note of what onnxruntime gives for images, by which differences are measured."""
        digests = [
            hashlib.sha256(image.cpu().float().contiguous().numpy().tobytes()).digest() for image in images
        ]
        new = [row for row, digest in enumerate(digests) if digest not in self._seen]
        self._seen.update(digests)
        self._known = torch.cat([self._known.to(z), z[new]])[:MOST_KNOWN] if len(self._known) else z
        self.alike = ""
        if len(self._known) >= COMPARED and (median := _median(_directions(self._known.double()))) < ALIKE:
            low, high = float(images.min()), float(images.max())
            self.alike = (
                f"its embeddings of different images are nearly alike (median distance {median:.1g} of their "
                f"length), and pixels reach it from {low:.2g} to {high:.2g}: does it want another range?"
            )

    def differ(self, z: Tensor, expected: Tensor) -> bool:
        """Whether embeddings (n, d) differ from those of onnxruntime by more than rounding."""
        if z.shape != expected.shape or not bool(torch.isfinite(z).all()):
            self.last = float("inf")
            return bool(torch.isfinite(expected).all())  # others find what onnxruntime gives, too
        largest, tolerated = 0.0, True
        for form in (torch.clone, _directions):
            a, b, known = (form(each.double()) for each in (z, expected, self._known))
            length, median = float(known.norm(dim=1).max()), _median(known)
            difference = float((a - b).norm(dim=1).max())
            units = (ROUNDING if self.eps < TF32 else COARSE) * self.eps * length
            tolerated = tolerated and difference <= max(SHARE * median, units)
            largest = max(largest, difference / (median or length or 1.0))
        self.last = largest
        return not tolerated

    def passed(self, shape: torch.Size, rows: int) -> None:
        """Count images that agree, of a batch of some shape."""
        self._sizes.add(shape[0])
        self._forms.add(shape[1:])
        self.rows += rows
        self.share = max(self.share, self.last)


def _directions(z: Tensor) -> Tensor:
    """Embeddings in double precision, scaled to length 1."""
    return nn.functional.normalize(z, dim=1, eps=torch.finfo(torch.float64).tiny)


def _median(z: Tensor) -> float:
    """The median distance of embeddings (n, d); 0 of a single one."""
    return float(torch.pdist(z).median()) if len(z) > 1 else 0.0
