"""What attacks and audits write is what docs/schema says."""

import json
from dataclasses import fields
from pathlib import Path

import jsonschema_rs
import pytest
import torch

from rankproof import (
    Gallery,
    LocalOracle,
    MaxShift,
    Preserve,
    QueryRaise,
    Rand,
    RankproofError,
    Reorder,
    Threat,
    attack,
    audit,
)
from rankproof.attacks.summary import AttackSummary
from rankproof.audit import AuditOptions, AuditResult

SCHEMA = Path(__file__).parents[2] / "docs" / "schema"


@pytest.fixture(scope="module")
def schemas():
    """The documents, and a validator for each by its name."""
    documents = {name: json.loads((SCHEMA / f"{name}.json").read_text()) for name in ("attack", "audit")}
    resources = [(f"{name}.json", document) for name, document in documents.items()]
    registry = jsonschema_rs.Registry(resources)
    validators = {
        name: jsonschema_rs.Draft202012Validator(document, registry=registry)
        for name, document in documents.items()
    }
    return documents, validators


@pytest.fixture(scope="module")
def gallery(make):
    images = make.images(24)
    return Gallery.build(make.ranker(), images, torch.arange(24) % 2)


def errors(validator, value):
    """What is wrong with a value after it has been written and read."""
    return [error.message for error in validator.iter_errors(json.loads(json.dumps(value, allow_nan=False)))]


def run(gallery, goal, *, count=3, visible=None, eps=8 / 255):
    ids = torch.arange(count)
    options = {} if visible is None else {"method": Rand(), "budget": 12}
    target = gallery if visible is None else LocalOracle(gallery, visible if visible != "inf" else None)
    return attack(target, gallery.images[ids], goal, Threat(eps), gallery_ids=ids, **options)


@pytest.mark.parametrize(
    ("goal", "options"),
    [
        (QueryRaise(m=2), {}),
        (QueryRaise() + 1.0 * Preserve(g=3), {}),
        (Reorder(k=3), {"eps": 0.0}),
        (MaxShift(), {"count": 1}),
        (Reorder(k=3), {"visible": 10}),
        (Reorder(k=3), {"visible": "inf"}),
    ],
    ids=["qa+", "sp-qa+", "oa", "one shift", "black box", "whole ranking"],
)
def test_an_attack_is_what_its_schema_says(gallery, schemas, tmp_path, goal, options):
    result = run(gallery, goal, **options)
    assert errors(schemas[1]["attack"], result.summary.to_json()) == []
    saved = json.loads((result.save(tmp_path) / "result.json").read_text())
    assert errors(schemas[1]["attack"], saved) == []
    assert AttackSummary.from_json(saved) == result.summary


def test_an_audit_is_what_its_schema_says(gallery, schemas, tmp_path):
    result = audit(
        gallery,
        gallery.images,
        gallery_ids=torch.arange(24),
        trials="2,at-eps=1,controls=0,qa+@controls=1,black-box=1x9",
        options=AuditOptions(model_record={"arch": "small"}, classes=("a", "b")),
    )
    result.save(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert errors(schemas[1]["audit"], saved) == []
    assert saved["flags"]
    again = AuditResult.from_json(saved)
    assert again.to_json() == saved == result.to_json()
    assert (again.cells, again.flags, again.strips) == (result.cells, result.flags, ())


def test_the_schemas_name_every_key_and_describe_it(schemas):
    documents, _ = schemas
    for name, value in (("attack", AttackSummary), ("audit", AuditResult)):
        keys = {"schema", *(each.name for each in fields(value))} - {"strips"}
        assert set(documents[name]["properties"]) == set(documents[name]["required"]) == keys
        assert all("description" in each for each in documents[name]["properties"].values())
        jsonschema_rs.meta.validate(documents[name])


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"eps": 1.5}, {"ci95": [1.0]}, {"curve": [[1]]}, {"more": 1}, {"visible": "all"}],
    ids=str,
)
def test_what_is_not_an_attack_is_refused(gallery, schemas, change):
    assert errors(schemas[1]["attack"], run(gallery, QueryRaise()).summary.to_json() | change)


def test_a_later_schema_and_what_is_no_report_are_refused(gallery):
    result = run(gallery, QueryRaise()).summary
    report = {"schema": 1, "cells": [result.to_json()], "flags": []}
    with pytest.raises(RankproofError, match="schema 2 is unknown; this version reads 1"):
        AuditResult.from_json(report | {"schema": 2})
    with pytest.raises(RankproofError, match="no report of an audit"):
        AuditResult.from_json(report)
