"""One good bundle for all tests of this folder."""

import pytest
from bundle_folder import build_bundle_folder


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory):
    return build_bundle_folder(tmp_path_factory.mktemp("bundle_folder"))
