import cpp_build
import pytest
from bundle_folder import build_bundle_folder
from emulated_arm import Arm


@pytest.fixture(scope="session")
def arm():
    """The examples on a CPU that has float16 arithmetic."""
    return Arm(cpp_build.build_arm_examples())


@pytest.fixture(scope="session")
def older_arm():
    """The same with the last ncnn that takes the bits of an integer for a float."""
    return Arm(cpp_build.build_arm_examples("aarch64-older"))


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Two of its stride-2 depthwise convolutions are 22 and 11 wide: 2 and 3 left over 4."""
    return build_bundle_folder(tmp_path_factory.mktemp("arm"), image_size=(88, 88))
