"""rankproof: find out how far a stranger can move the results of a search-by-image system."""
