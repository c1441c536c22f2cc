"""What pyproject.toml cannot say: the wheel carries the C++ sources and the trained detector.

`package` gives the sources to boards, `demo` the detector to beginners. They stand once, in
cpp_postprocess/ and models/, and become folders of mbv3ssd_deploy/ in the wheel.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SOURCES, MODELS = "cpp_postprocess", "models"
LEFT_OUT = shutil.ignore_patterns("tests", "fuzz", "renderer", "render.py", "__pycache__", ".*")


class BuildWithSources(build_py):
    """Copies them; an editable install finds them where they are."""

    def run(self) -> None:
        """Build the package, then put the sources and their licence into it."""
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, "mbv3ssd_deploy")
            for name in (SOURCES, MODELS):
                shutil.copytree(ROOT / name, package / name, ignore=LEFT_OUT, dirs_exist_ok=True)
            shutil.copy2(ROOT / "LICENSE", package / SOURCES)


setup(cmdclass={"build_py": BuildWithSources})
