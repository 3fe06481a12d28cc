"""docs/results.md from records/."""
