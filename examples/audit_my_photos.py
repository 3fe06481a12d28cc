"""Audit your own photos with your own encoder: edit the constants and `my_encoder`, then run this file.

    .venv/bin/python examples/audit_my_photos.py

Writes OUT/report.html, OUT/report.json and example images. Runs on the GPU if the encoder is on one.
"""

import torch

import rankproof as rp

PHOTOS = "photos"  # a folder with one sub-folder per class, photos/CLASS/IMAGE.jpg
OUT = "runs/mine"
SIZE = 64  # side length in pixels that your encoder expects
EPS = 4 / 255  # perturbation budget: the largest change of a pixel, in [0, 1]
SECONDS = 600.0  # how long the audit may take: the longer, the more attacks are behind each figure
SEED = 0
DISTANCE = "cosine"  # or "euclidean": the distance your search ranks by
MEAN = [0.485, 0.456, 0.406]  # the normalisation your encoder was trained with; None for pixels in [0, 1]
STD = [0.229, 0.224, 0.225]


def my_encoder() -> torch.nn.Module:
    """Your trained module from images (b, 3, SIZE, SIZE) to embeddings (b, d); this one is a placeholder.

    Load its weights with safetensors, or with `torch.load(path, weights_only=True)`.
    """
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, kernel_size=5, stride=4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 4 * 4, 64),
    )


def main() -> None:
    """Load the images, embed them, run the audit and write the report."""
    photos = rp.load(PHOTOS, "test", size=SIZE, split_by="none")  # no split: every image is in the gallery
    print(photos.note)
    ranker = rp.Ranker(my_encoder(), DISTANCE, mean=MEAN, std=STD, name="my encoder")
    gallery = rp.Gallery.build(ranker, photos.images, photos.labels)
    report = rp.audit(
        gallery,
        photos.images,
        rp.Threat(eps=EPS),
        gallery_ids=torch.arange(len(photos)),  # image i is gallery item i
        seed=SEED,
        data=photos.name,
        options=rp.AuditOptions(time_limit=SECONDS, data_note=photos.note, classes=photos.classes),
    )
    for flag in report.flags:
        print(f"flag: {flag.cell or 'the audit'}: {flag.text}")
    print(f"report: {report.save(OUT)}")


if __name__ == "__main__":
    main()
