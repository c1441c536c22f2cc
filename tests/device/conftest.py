"""One good bundle with ncnn files for all tests of this folder."""

import pytest
from workbench import build_workbench


@pytest.fixture(scope="session")
def workbench(tmp_path_factory):
    return build_workbench(tmp_path_factory.mktemp("device"))
