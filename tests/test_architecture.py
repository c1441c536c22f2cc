"""The house rules of docs/architecture.md, held by reading every import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mbv3ssd_deploy"
FLOORS = (
    ("errors",),
    ("io",),
    ("core", "charts"),
    ("nets", "data", "onnx_body"),
    ("checkpoint", "ncnn_graph"),
    ("bundle", "train"),
    ("runtimes",),
    ("device",),
    ("verification", "detect", "evaluate", "bench"),
    ("pipeline",),
    ("cli",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LONGEST_FILE = 450
# Which rooms may import a heavy package; every other room gets its results as arrays.
HEAVY = {
    "torch": {"nets", "checkpoint", "onnx_body", "runtimes", "train"},
    "onnxruntime": {"runtimes"},
    "ncnn": {"runtimes"},
    "onnxsim": {"onnx_body"},
    "onnx": {"onnx_body", "ncnn_graph"},
    "matplotlib": {"charts"},
    "yaml": {"data"},
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path):
    parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Every module that `path` imports, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module
            # `from package import module` may name a module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_rooms_imported(path):
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "mbv3ssd_deploy" and len(parts) > 1 and parts[1] in FLOOR:
            yield parts[1]


def test_every_file_stands_in_a_room():
    known = set(FLOOR) | {"__init__", "__main__", "_loading"}
    assert [p for p in modules() if room_of(p) not in known] == []


def test_imports_go_down_the_stairs():
    upward = {
        f"{path.relative_to(PACKAGE)} -> {target}"
        for path in modules()
        if room_of(path) in FLOOR
        for target in own_rooms_imported(path)
        if target != room_of(path) and FLOOR[target] >= FLOOR[room_of(path)]
    }

    assert upward == set()


def test_heavy_packages_are_imported_only_where_they_run():
    strays = {
        f"{path.relative_to(PACKAGE)} -> {name}"
        for path in modules()
        for name in imports_of(path)
        if name.split(".")[0] in HEAVY and room_of(path) not in HEAVY[name.split(".")[0]]
    }

    assert strays == set()


def test_no_file_is_too_long_to_read():
    longest = {
        f"{path.relative_to(PACKAGE)}: {count}"
        for path in modules()
        if (count := len(path.read_text().splitlines())) > LONGEST_FILE
    }

    assert longest == set()


def test_only_the_command_line_prints():
    printing = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }

    assert printing == set()


def test_no_import_circle_between_files():
    names = {dotted(path): path for path in modules()}
    graph = {name: {i for i in imports_of(path) if i in names} for name, path in names.items()}
    done, open_path = set(), []

    def visit(name):
        assert name not in open_path, f"import circle: {' -> '.join([*open_path, name])}"
        if name in done:
            return
        open_path.append(name)
        for other in sorted(graph[name]):
            visit(other)
        open_path.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


@pytest.mark.parametrize("module", ["mbv3ssd_deploy", "mbv3ssd_deploy.cli.main"])
def test_the_front_door_and_help_import_nothing_heavy(module):
    code = (
        f"import sys, {module}; "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'onnxsim', 'ncnn', 'numpy', 'cv2', 'rich', "
        "'importlib.metadata'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )

    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
