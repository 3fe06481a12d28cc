"""Methods that see places alone."""
