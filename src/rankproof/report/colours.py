"""The colours of all figures."""

INK, MUTED, RULE, BAND = "#1f2a37", "#667281", "#dde3e9", "#2f6f9f"
CHOSEN, ATTACKED = "#d9761a", "#2f6f9f"
