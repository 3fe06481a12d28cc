"""What the tests of oracles build their questions and answers from."""

import torch

from rankproof.oracles import TrackedItems

SHAPE = (1, 4, 4)


def track(ids, excluded=None):
    ids = torch.as_tensor(ids)
    return TrackedItems(torch.arange(len(ids)), ids, None if excluded is None else torch.as_tensor(excluded))


def brute_force(gallery, images, ids, visible, excluded=None):
    # Sort the whole gallery for every image and look each item up.
    found = []
    for row, pictures in enumerate(images):
        prepare = gallery.ranker.distance.prepare
        z = prepare(gallery.ranker.embed_all(pictures).double())
        far = gallery.ranker.distance.pairwise(z, prepare(gallery.embeddings.double()))
        for distances in far.tolist():
            order = sorted(range(len(gallery)), key=lambda item: (distances[item], item))
            order = [item for item in order if excluded is None or item != excluded[row]]
            order = order if visible is None else order[:visible]
            found.append(
                [order.index(item) if item in order else visible or len(gallery) for item in ids[row]]
            )
    return torch.tensor(found).view(*images.shape[:2], -1)


def around(make, pictures, rows, count, spread, seed):
    # Populations (b, p, c, h, w) around some images.
    noise = torch.rand(len(rows), count, *SHAPE, generator=make.random(seed), dtype=torch.float64) * 2 - 1
    return (pictures[rows][:, None] + spread * noise).clamp(0, 1)


class Counting:
    # An oracle that has nothing but a call; remembers what it was sent.

    def __init__(self, visible=9, oracle=None):
        self.visible, self.oracle, self.sent, self.asked = visible, oracle, [], 0

    def top(self, images, count, tracked):
        self.sent.append(("top", tuple(images.shape), tracked.attacks.tolist()))
        if self.oracle is not None:
            return self.oracle.top(images, count, tracked)
        return torch.arange(count).expand(len(images), -1)

    def __call__(self, images, tracked):
        self.sent.append(("call", tuple(images.shape[:2]), tracked.attacks.tolist()))
        self.asked += images.shape[0] * images.shape[1]
        if self.oracle is not None:
            return self.oracle(images, tracked)
        return torch.zeros(*images.shape[:2], tracked.ids.shape[1], dtype=torch.int64)
