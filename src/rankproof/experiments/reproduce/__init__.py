"""The printed tables of both papers, measured again by one command each."""
