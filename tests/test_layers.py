"""Who may import whom: the layers of the architecture, and what must stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import inlay

PACKAGE = Path(inlay.__file__).parent

# From the bottom up. A part may import every part of the layers below its own, and itself; parts of one layer do not
# import each other, so that each can be used and tested alone. "" is the package itself: it holds the version, and the
# library's entry points, which import from above when they are called.
LAYERS: list[set[str]] = [
    {"", "errors", "files", "randomness", "settings"},
    {"base", "objective", "methods", "data", "metrics", "artifacts"},
    {"train"},
    {"run"},
    {"study"},
    {"cli"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
# Readers of records, used where no torch is installed.
TORCH_FREE = ("inlay.study.statistics", "inlay.study.report")
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute module) for every import of a file, also those inside functions and conditions."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*origin, *([node.module] if node.module else [])])
            if module == "inlay":  # `from inlay import data` imports a part; `from inlay import __version__` does not
                yield from ((node.lineno, f"inlay.{alias.name}") for alias in node.names if alias.name in LEVEL)
            else:
                yield node.lineno, module


def violations(path: Path) -> list[str]:
    here = module_name(path)
    part = part_of(here)
    found = []
    for line, module in imports(path):
        if here.startswith(TORCH_FREE) and module.split(".")[0] in HEAVY:
            found.append(f"{path}:{line}: {here} must do without {module}")
        if module.split(".")[0] != "inlay":
            continue
        other = part_of(module)
        if other not in LEVEL:
            found.append(f"{path}:{line}: {module} belongs to no layer")
        elif other != part and LEVEL[other] >= LEVEL[part] > 0:
            found.append(f"{path}:{line}: {here} (layer of {part}) must not import {module}")
        elif part and LEVEL[part] == 0 and LEVEL[other] > 0:
            found.append(f"{path}:{line}: {here} lies at the bottom and must not import {module}")
    return found


def test_every_part_of_the_package_has_a_layer():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(LEVEL)


def test_imports_point_downwards():
    files = [path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts]
    assert len(files) > 10
    assert [violation for path in files for violation in violations(path)] == []


@pytest.mark.parametrize(
    ("place", "source", "message"),
    [
        ("data/x.py", "import inlay.train", "must not import inlay.train"),
        ("data/x.py", "def f():\n    from inlay.methods import METHODS", "must not import inlay.methods"),
        ("base/x.py", "from inlay import data", "must not import inlay.data"),
        ("base/deep/x.py", "from ...data import views", "must not import inlay.data"),
        ("data/__init__.py", "from ..run import load", "must not import inlay.run"),
        ("errors.py", "import inlay.data", "lies at the bottom"),
        ("run/x.py", "if 1:\n    import inlay.cli.main", "must not import inlay.cli.main"),
        ("train/x.py", "import inlay.unknown", "belongs to no layer"),
        ("study/report.py", "def f():\n    import torch.nn", "must do without torch.nn"),
        ("study/statistics/fit.py", "from torch import Tensor", "must do without torch"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, monkeypatch, place, source, message):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "inlay")
    path = tmp_path / "inlay" / place
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    (violation,) = violations(path)
    assert message in violation


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("data/x.py", "from inlay.errors import DataError\nfrom inlay.data.cache import Cache\nimport torch"),
        ("data/x.py", "from . import cache\nfrom .tabletop import scene\nfrom inlay import __version__"),
        ("cli/x.py", "import inlay.run.load, inlay.study.report, inlay.settings"),
        ("settings.py", "from inlay.errors import ConfigError"),
        ("study/report.py", "import numpy\nfrom inlay.run import load"),
    ],
)
def test_a_permitted_import_is_let_pass(tmp_path, monkeypatch, place, source):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "inlay")
    path = tmp_path / "inlay" / place
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert violations(path) == []


@pytest.mark.parametrize(
    "statement", ["import inlay", "from inlay.cli.main import main; main(['--help'])", "import inlay.cli.main"]
)
def test_what_must_stay_light_imports_nothing_heavy(statement):
    light = sorted(HEAVY | {"pydantic", "matplotlib", "datasets", "numpy"})
    code = f"import sys; {statement}; print([name for name in {light} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"
