"""A search-by-image service of one's own: a model and a gallery behind HTTP, which its owner may attack."""
