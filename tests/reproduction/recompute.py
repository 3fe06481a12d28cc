"""The figures of a record once more, from saved attacks and weights: no line of the library is used.

The encoders are written out in double precision, ranks are counted one by one.
"""

import numpy as np
import torch
from torch.nn import functional

POOLED = {"digits": (False, True), "c2f1": (True, True)}  # after which convolutions


def saved_attacks(folder):
    """Arrays of each attack.npz of a cell, by the name of its folder."""
    found = {}
    for file in sorted(folder.rglob("attack.npz")):
        with np.load(file) as arrays:
            found[file.parent.name] = dict(arrays)
    return found


def embedding(pictures, weights, arch, distance):
    """Two convolutions and one linear layer, a few pictures at a time."""
    parts = torch.as_tensor(pictures).split(200)
    z = np.concatenate([layers_of(part.double(), weights, arch) for part in parts])
    return z / np.sqrt((z**2).sum(1, keepdims=True)) if distance == "cosine" else z


def layers_of(z, weights, arch):
    layers = sorted({int(name.split(".")[1]) for name in weights if name.startswith("features")})
    for layer, pooled in zip(layers, POOLED[arch], strict=True):
        kernel, bias = (weights[f"features.{layer}.{part}"].double() for part in ("weight", "bias"))
        z = functional.conv2d(z, kernel, bias, padding=kernel.shape[-1] // 2).clamp(min=0)
        z = functional.max_pool2d(z, 2) if pooled else z
    z = z.flatten(1) @ weights["embedding.weight"].double().T + weights["embedding.bias"].double()
    return z.numpy()


def apart(a, items, distance):
    """One against all."""
    return 1 - items @ a if distance == "cosine" else np.sqrt(((items - a) ** 2).sum(1))


def place(own, others):
    """How many distances are smaller."""
    nearer = 0
    for other in others:
        if other < own:
            nearer += 1
    return nearer


def figures(record, attack, database, moved, distance):
    """Those of each attack of a cell.

    Args:
        database, moved: embeddings of X and of the perturbed pictures.
    """
    found = {"rank": [], "sp_rank": [], "tau": [], "mean_rank": []}
    for number in range(len(moved)):
        own = apart(moved[number], database, distance)
        ranks = [
            chosen_rank(record, chosen, moved[number], own, database, distance)
            for chosen in attack["targets"][number]
        ]
        kept = [place(own[item], own) for item in attack["preserved"][number]]
        found["rank"].append(100 * np.mean(ranks) / len(database))
        found["sp_rank"].append(100 * np.mean(kept) / len(database) if kept else None)
        found["tau"].append(agreement(ranks, record) if record["goal"] == "oa" else None)
        found["mean_rank"].append(np.mean(ranks) if record["goal"] == "oa" else None)
    return found


def chosen_rank(record, chosen, moved, own, database, distance):
    """In a candidate attack the chosen item is the query and the picture itself is ranked."""
    if not record["goal"].startswith("ca"):
        return place(own[chosen], own)
    query = database[chosen]
    return place(apart(query, moved[None], distance)[0], apart(query, database, distance))


def agreement(places, record):
    """tau_S: a pair counts if both are in sight and in the wanted order, else against."""
    seen = {"k": record["count"], "inf": np.inf, None: np.inf}.get(record["visible"], record["visible"])
    total, pairs = 0, 0
    for first in range(len(places)):
        for second in range(first + 1, len(places)):
            right = places[first] < places[second] < seen
            total, pairs = total + (1 if right else -1), pairs + 1
    return total / pairs


def shared_figure(record, attack, database, moved, distance):
    """The mean rank under one perturbation for all; of "-" goals over the 1 % nearest to the target."""
    ranks = np.array(figures(record, attack, database, moved, distance)["rank"])
    if record["goal"].endswith("-"):
        item = attack["targets"][0, 0]
        near = apart(database[item], database[attack["index"]], distance).argsort(kind="stable")
        ranks = ranks[near[: max(1, round(0.01 * len(ranks)))]]
    return ranks.mean()


def both(record, attacks, weights, arch, distance, database):
    """What the saved attacks come to and what is recorded, by the name of the figure.

    Args:
        attacks: those of `saved_attacks`.
        database: embeddings of X.
    """
    found = {}
    for folder, attack in attacks.items():
        moved = embedding(attack["adversarial"], weights, arch, distance)
        if record["run"] == "universal":
            figure = shared_figure(record, attack, database, moved, distance)
            found.setdefault(folder.split("-")[-1], []).append(figure)
        else:
            found |= figures(record, attack, database, moved, distance)
    if record["run"] == "service":  # told as the paper tells it, by mean and spread
        found["mean"] = found.pop("tau")
    recorded = record["values"]
    return {name: np.array([ours, recorded[name]], float) for name, ours in found.items() if name in recorded}
