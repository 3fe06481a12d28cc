"""What an audit found, as plain values: no model inside."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rankproof.attacks.budget_summary import BudgetSummary
from rankproof.attacks.summary import AttackSummary, read_fields
from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.ranking.examination import examination_from_json
from rankproof.report.findings import ClassBudget, Control, ProtocolHashes
from rankproof.report.page import Flag, ReportPage, json_value

SCHEMA = 1  # of report.json; docs/schema/audit.json describes it


@dataclass(frozen=True, kw_only=True)
class AuditResult(ReportPage):
    """A whole audit: all that its report shows, to be saved as a page, as JSON and as images."""

    def to_json(self) -> JsonObject:
        """The object of report.json: all but the strips, with None for what is not finite."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "strips"}
        values["cells"] = [attack.to_json() for attack in self.cells]
        values["flags"] = [asdict(flag) for flag in self.flags]
        values["examination"] = None if self.examination is None else self.examination.to_json()
        values["smallest"] = [each.to_json() for each in self.smallest]
        for name in ("controls", "classes"):
            values[name] = [asdict(each) for each in getattr(self, name)]
        values["protocol"] = None if self.protocol is None else asdict(self.protocol)
        plain: JsonObject = json_value({"schema": SCHEMA} | values)
        return plain

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "AuditResult":
        """The audit in an object that `to_json` made, without its strips; older ones without "schema", too.

        Raises:
            RankproofError: something needed is missing, or the object is of a later schema.
        """
        read = read_fields(cls, values, SCHEMA)
        try:
            read["cells"] = tuple(AttackSummary.from_json(attack) for attack in values["cells"])
            read["flags"] = tuple(Flag(**flag) for flag in values["flags"])
            read["examination"] = examination_from_json(values.get("examination"))
            read["smallest"] = tuple(BudgetSummary.from_json(each) for each in values.get("smallest", ()))
            read["controls"] = tuple(Control(**each) for each in values.get("controls", ()))
            read["classes"] = tuple(ClassBudget(**each) for each in values.get("classes", ()))
            protocol = values.get("protocol")
            read["protocol"] = None if protocol is None else ProtocolHashes(**protocol)
            read["missing"] = tuple(values.get("missing", ()))
            return cls(**read)
        except (KeyError, TypeError) as error:
            raise RankproofError(f"no report of an audit: {error}") from None

    def save(self, folder: str | Path) -> Path:
        """Write report.html, report.json and the strips as PNG; returns the path of report.html."""
        from rankproof.report.html import save

        figures = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        return save(self, f"{figures}\n", Path(folder))
