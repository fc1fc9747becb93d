"""What several of these tests need: the image, built once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.container_image import Builder, Image


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The Dockerfile's, gone afterwards with everything that it was built of."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount what an image is built in")
    directory = tmp_path_factory.mktemp("image")
    try:
        yield Builder(directory).build()
    finally:
        shutil.rmtree(directory)
