"""The whole page, section by section, and the small table of the README."""

import re

from rankproof.experiments.results import black_box, papers, services, training, white_box
from rankproof.experiments.results.section import Section

SECTIONS: tuple[Section, ...] = (
    *papers.SECTIONS,
    *white_box.SECTIONS,
    *black_box.SECTIONS,
    *services.SECTIONS,
    *training.SECTIONS,
)
HEADLINE = re.compile(r"(<!-- results:headline -->\n).*?(<!-- /results -->)", re.DOTALL)


def page() -> str:
    """docs/results.md."""
    parts = [
        "# Results",
        "Made by `make results` from `records/`; do not edit. Each section names its command.",
        *(section.markdown() for section in SECTIONS),
    ]
    return "\n\n".join(parts) + "\n"


def with_headline(readme: str) -> str:
    """The README with the table of this day."""
    return HEADLINE.sub(lambda found: f"{found[1]}{white_box.headline()}\n{found[2]}", readme)
