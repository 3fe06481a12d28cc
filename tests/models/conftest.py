import logging

import pytest


@pytest.fixture(scope="session")
def transformers():
    library = pytest.importorskip("transformers")
    library.utils.logging.set_verbosity(logging.CRITICAL)
    library.utils.logging.disable_progress_bar()
    return library
