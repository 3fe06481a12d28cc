"""docs/results.md from records/: `python -m rankproof.experiments.results`, or `make results`."""

from pathlib import Path

from rankproof.experiments.results.page import page, with_headline
from rankproof.files import write_atomically

PAGE, README = Path("docs/results.md"), Path("README.md")


def main() -> None:
    """Write docs/results.md and the README's table."""
    write_atomically(PAGE, page().encode())
    write_atomically(README, with_headline(README.read_text()).encode())
    print(f"{PAGE} and the table in {README} are up to date")


if __name__ == "__main__":
    main()
