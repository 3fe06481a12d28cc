"""docs/results.md and the README's table, from records: what `make results` runs."""

import re
from pathlib import Path

from rankproof.io import write_atomically
from rankproof.reproduction.records import CompletedCells
from rankproof.reproduction.results_page import headline, page

PAGE, README = Path("docs/results.md"), Path("README.md")
HEADLINE = re.compile(r"(<!-- results:headline -->\n).*?(<!-- /results -->)", re.DOTALL)


def main() -> None:
    """Write docs/results.md and the README's table."""
    records = CompletedCells()
    write_atomically(PAGE, page(records).encode())
    write_atomically(README, with_headline(README.read_text(), headline(records)).encode())
    print(f"{PAGE} and the table in {README} are up to date")


def with_headline(readme: str, table: str) -> str:
    """The README with another table."""
    return HEADLINE.sub(lambda found: f"{found[1]}{table}\n{found[2]}", readme)


if __name__ == "__main__":
    main()
