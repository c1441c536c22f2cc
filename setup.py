"""What pyproject.toml cannot say: the wheel carries the C++ sources that `package` gives to boards.

They stand in cpp_postprocess/ once, and become mbv3ssd_deploy/cpp_postprocess/ of the wheel.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SOURCES = "cpp_postprocess"
LEFT_OUT = shutil.ignore_patterns("tests", "fuzz", "__pycache__", ".*")


class BuildWithSources(build_py):
    """Copies them; an editable install finds them where they are."""

    def run(self) -> None:
        """Build the package, then put the sources and their licence into it."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "mbv3ssd_deploy", SOURCES)
            shutil.copytree(ROOT / SOURCES, target, ignore=LEFT_OUT, dirs_exist_ok=True)
            shutil.copy2(ROOT / "LICENSE", target)


setup(cmdclass={"build_py": BuildWithSources})
