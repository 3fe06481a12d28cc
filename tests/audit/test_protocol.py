import json
import threading
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch

from rankproof import Gallery, QueryRaise, Ranker, Threat
from rankproof.audit import measurements
from rankproof.audit.protocol import (
    NAME,
    Protocol,
    canonical,
    data_digest,
    protocol_hashes,
    record,
)
from rankproof.goals import query
from rankproof.methods import defaults
from rankproof.ranking.mixed_images import MixedImages
from rankproof.rng import draw

ORDER = draw(20, 10, 0)
RECORD = Path(__file__).parents[2] / "docs" / "rankproof-1.json"


def is_hash(text):
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


# -- the protocol ----------------------------------------------------------------------------------


def changes(value):
    """Every value that differs from a dataclass in one field, nested ones included, with the field's name."""
    for each in fields(value):
        now = getattr(value, each.name)
        if is_dataclass(now):
            for name, other in changes(now):
                yield f"{each.name}.{name}", replace(value, **{each.name: other})
            continue
        for other in others(now):
            if other == now:
                continue
            try:
                changed = replace(value, **{each.name: other})
            except Exception:
                continue
            yield each.name, changed
            break


def others(now):
    """Values that may stand in the place of another."""
    match now:
        case bool():
            return [not now]
        case int():
            return [now + 1]
        case float():
            return [now * 0.9 + 0.003]
        case None:
            return [3, 0.25]
        case str():
            return ["iccv21", "eccv20", "distance", "inequality"]
        case tuple():
            return [now[:-1], (*now, 1)]
    return []


def test_every_hyper_parameter_of_every_search_and_goal_changes_the_hash():
    standard = Protocol()
    seen, names, checked = {standard.digest}, set(), []
    for place, (goal, searches) in enumerate(standard.searches):
        variants = [(name, other, searches) for name, other in changes(goal)]
        for number, search in enumerate(searches):
            for name, other in changes(search) if search not in checked else ():
                changed = (*searches[:number], other, *searches[number + 1 :])
                variants.append((f"{type(search).__name__}.{name}", goal, changed))
            checked.append(search)
        for name, *pair in variants:
            if name == "order" or (name == "terms"):
                continue
            every = [*standard.searches]
            every[place] = tuple(pair)
            digest = replace(standard, searches=tuple(every)).digest
            assert digest not in seen, name
            seen.add(digest)
            names.add(name)
    kinds = {type(search) for _, searches in standard.searches for search in searches}
    expected = {f"{kind.__name__}.{each.name}" for kind in kinds for each in fields(kind)}
    told = {".".join(name.split(".")[:2]) for name in names}
    assert expected <= told | {f"{kind.__name__}.subspace" for kind in kinds}


@pytest.mark.parametrize(
    "change", [{"eps": 3 / 255}, {"first": 9}, {"seed": 1}, {"visible": 40}, {"queries": (100,)}], ids=str
)
def test_every_setting_changes_the_hash_and_the_name_says_which(change):
    standard, other = Protocol(), Protocol(**change)
    assert other.digest != standard.digest
    assert standard.name == NAME
    assert other.name.startswith(f"{NAME} with other ")
    assert standard.digest == Protocol().digest


def test_the_numbers_of_the_definitions_belong_to_it(monkeypatch):
    before = Protocol().digest
    monkeypatch.setattr(query, "PRICE_BESIDE_LOWER", 0.02)
    assert Protocol().digest != before


def test_the_description_is_json_and_the_hash_is_that_of_its_canonical_form():
    description = Protocol().description
    text = canonical(description)
    assert json.loads(text) == description
    assert text.isascii()
    goals = [goal["name"] for goal, _ in description["searches"]]
    assert goals[:4] == ["ca+", "ca-", "qa+", "qa-"]
    assert {"oa", "sp-qa+", "shift"} <= set(goals)
    odd = Protocol(searches=((Odd(), ()),))
    with pytest.raises(TypeError, match="no place in a protocol"):
        odd.description  # noqa: B018


@dataclass(frozen=True, kw_only=True)
class Odd(QueryRaise):
    thing: object = object()


def test_the_protocol_is_the_recorded_one():
    """Another description is another protocol: it needs another name, and the page a new record.

    python -c 'from rankproof.audit.protocol import record; print(record(), end="")' > docs/rankproof-1.json
    """
    assert RECORD.read_text() == record()


# -- the data --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(make):
    pixels = torch.randint(256, (20, 1, 4, 4), generator=make.random(0)).to(torch.uint8)
    return Gallery.build(make.ranker(), pixels, list(range(10)) * 2)


def test_pixels_labels_and_the_attacked_images_with_their_order_decide_the_hash_of_the_data(gallery):
    ids, pixels = torch.arange(20), gallery.images

    def digest(gallery=gallery, attacked=ORDER, ids=ids):
        return data_digest(gallery, gallery.images, attacked, ids)

    brighter, renamed = pixels.clone(), gallery.labels.clone()
    brighter[7, 0, 0, 0] += 1
    renamed[3] += 1
    different = [
        digest(),
        digest(replace(gallery, images=brighter)),
        digest(replace(gallery, labels=renamed)),
        digest(replace(gallery, labels=None)),
        digest(attacked=ORDER.flip(0)),
        digest(attacked=ORDER[:-1]),
        digest(ids=None),
        digest(replace(gallery, images=pixels.reshape(20, 1, 2, 8))),
        data_digest(replace(gallery, images=None), pixels, ORDER, ids),
    ]
    assert len(set(different)) == len(different)
    assert all(map(is_hash, different))


def test_the_same_pixels_have_one_hash_however_they_are_given(gallery):
    ids, floats = torch.arange(20), gallery.images.float() / 255
    expected = data_digest(gallery, gallery.images, ORDER, ids)
    assert data_digest(replace(gallery, images=floats), floats, ORDER, ids) == expected
    assert data_digest(replace(gallery, images=floats.double()), floats, ORDER, ids) == expected
    between = floats.clone()
    between[0, 0, 0, 0] += 0.4 / 255
    assert data_digest(replace(gallery, images=between), floats, ORDER, ids) != expected
    mixed = replace(gallery, images=MixedImages(list(gallery.images)))
    assert data_digest(mixed, floats, ORDER, ids) != expected


# -- the model -------------------------------------------------------------------------------------


def hashes(gallery):
    return protocol_hashes(Protocol(), gallery, gallery.images, ORDER, torch.arange(20))


def test_the_three_hashes_of_an_audit(make, gallery):
    found = hashes(gallery)
    assert found == hashes(gallery)
    assert (found.name, found.protocol, found.model_note) == (NAME, Protocol().digest, "")
    assert is_hash(found.model)
    assert len({found.protocol, found.data, found.model}) == 3
    other = hashes(Gallery.build(make.ranker(seed=1), gallery.images, gallery.labels))
    assert (other.data, other.protocol) == (found.data, found.protocol)
    assert other.model != found.model
    smaller = hashes(Gallery.build(make.ranker(chunk=3), gallery.images, gallery.labels))
    assert smaller.model == found.model


def test_a_model_that_cannot_be_read_is_told_by_the_embeddings_of_fixed_images(make, gallery):
    def opaque(scale):
        lock = threading.Lock()

        def encode(images):
            with lock:
                return (scale * images).flatten(1).tanh()[:, :6]

        return Gallery.build(Ranker(encode, "euclidean"), gallery.images)

    found, again, other = hashes(opaque(2.0)), hashes(opaque(2.0)), hashes(opaque(0.5))
    assert "cannot be read" in found.model_note
    assert found.model == again.model != other.model


def test_an_audit_with_nothing_said_follows_the_protocol(monkeypatch):
    for name in ("audited", "automatic", "smallest"):
        monkeypatch.setattr(measurements, name, getattr(defaults, name))
    assert measurements.protocol_of(Threat(2 / 255), 10, 0, 500) == Protocol()
    assert measurements.protocol_of(Threat(2 / 255), 10, 0, 4).name.startswith(f"{NAME} with other ")
