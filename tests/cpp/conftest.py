import cpp_build
import pytest
from cpp_library import Library


@pytest.fixture(scope="session")
def shared_library():
    """libmbv3ssd_postprocess.so, as users build it."""
    folder = cpp_build.build_preset("release")
    return folder / "libmbv3ssd_postprocess.so"


@pytest.fixture(scope="session")
def library(shared_library):
    return Library(shared_library)
