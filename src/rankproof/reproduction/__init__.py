"""The papers' tables and figures, and our own experiments: measured again by one command each."""
