"""The documentation is correct: its code blocks run, links work, generated pages are up to date."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
SKIPPED = re.compile(r"<!-- not run: [^>]+-->\n```sh\n.*?```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def blocks(page, language):
    """Return the code blocks of a page that are run, in order."""
    text = SKIPPED.sub("", page.read_text(encoding="utf-8"))
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def script_folder(tmp_path_factory):
    """A folder with an `mbv3ssd-deploy` that uses this interpreter."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "mbv3ssd-deploy"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mbv3ssd_deploy "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def readme_run(tmp_path_factory, script_folder):
    """The result of the README's commands, and the folder in which they ran."""
    lines = "".join(blocks(REPOSITORY / "README.md", "sh"))
    assert "mbv3ssd-deploy verify" in lines
    folder = tmp_path_factory.mktemp("readme")
    path = f"{script_folder}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-e"],  # noqa: S607 -- any POSIX shell will do
        input=lines,
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return result, folder


def test_the_readme_runs_from_top_to_bottom(readme_run):
    result, _ = readme_run

    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASS on 12 images" in result.stdout


def test_the_api_page_runs_from_top_to_bottom(readme_run):
    _, folder = readme_run
    code = "\n".join(blocks(DOCS / "api.md", "python"))

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr


def generator():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "backbones.md", "formats/ncnn-layers.md"])
def test_generated_pages_are_fresh(name):
    assert (DOCS / name).read_text() == generator().PAGES[name](), "run `make docs`"


def test_every_local_link_exists():
    pages = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *DOCS.rglob("*.md")]
    dead = [
        f"{page.name}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]

    assert dead == []


def test_the_front_door_is_documented():
    import mbv3ssd_deploy

    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in mbv3ssd_deploy.__all__:
        assert getattr(mbv3ssd_deploy, name) is not None
        assert name in text or name == "__version__", name


def test_the_version_equals_pyproject():
    import tomllib

    import mbv3ssd_deploy

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert mbv3ssd_deploy.__version__ == project["version"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lists_its_targets():
    result = subprocess.run(
        ["make"],  # noqa: S607 -- the user's make
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )

    for target in ("demo", "test", "check", "compat", "docs", "bench"):
        assert f"make {target}" in result.stdout
