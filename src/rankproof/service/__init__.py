"""A search-by-image service over a gallery, with the limits of the platform attacked in ICCV 2021."""
