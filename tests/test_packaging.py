"""What is installed: all packages, all shipped files, and a package that is cheap to import."""

import ast
import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mtl_tickets

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_folder_of_the_package_is_listed(setup):
    listed = set(setup["options"]["packages"].split())
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "mtl_tickets").rglob("*.py")}
    assert listed == folders | {"mtl_tickets.task_configs"}


def test_every_folder_of_python_files_is_a_package():
    folders = {path.parent for path in (ROOT / "mtl_tickets").rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_every_dependency_is_pinned_within_its_bounds(setup):
    from packaging.requirements import Requirement

    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[_plain(name)] = version
    wanted = setup["options"]["install_requires"] + "\n" + setup["options.extras_require"]["dev"]
    requirements = [Requirement(line) for line in wanted.splitlines() if line and not line.startswith("#")]
    assert len(requirements) > 10
    for requirement in requirements:
        assert requirement.specifier.contains(pins[_plain(requirement.name)]), requirement


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_wheel_holds_all_modules_and_all_task_files(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    # a copy, so that building leaves nothing in the checkout
    import shutil

    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("mtl_tickets", "task_configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "from setuptools import build_meta; build_meta.build_wheel('../wheel')"
    (tmp_path / "wheel").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "mtl_tickets").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in held
    for path in (ROOT / "task_configs").rglob("*.yaml"):
        assert f"mtl_tickets/{path.relative_to(ROOT).as_posix()}" in held
    for path in (ROOT / "mtl_tickets/encoders").rglob("*"):
        assert path.is_dir() or path.relative_to(ROOT).as_posix() in held
    assert {"mtl_tickets/py.typed", "mtl_tickets/report/page.css"} <= held
    assert not any(name.startswith(("tests/", "task_configs/")) for name in held)
    # an installed package finds its task files inside itself
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    look = "from mtl_tickets.tasks.spec import shipped_tasks, task_config_folder as f; print(f(), len(shipped_tasks()))"
    said = subprocess.run([sys.executable, "-c", look], cwd=installed, check=True, capture_output=True, text=True)
    folder, count = said.stdout.split()
    assert Path(folder) == (installed / "mtl_tickets/task_configs").resolve()
    assert int(count) == len(list((ROOT / "task_configs/tasks").glob("*.yaml")))


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, mtl_tickets as mt; dir(mt); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "numpy", "pydantic", "yaml", "rich"} & set(loaded)


def test_every_name_offered_is_there_and_known_to_type_checkers():
    for name in mtl_tickets.__all__:
        assert getattr(mtl_tickets, name) is not None
    tree = ast.parse((ROOT / "mtl_tickets/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname or alias.name for node in block.body for alias in node.names}
    assert typed == set(mtl_tickets.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = mtl_tickets.no_such_thing


@pytest.mark.parametrize("script", ["scripts/demo.sh", "scripts/test.sh", "scripts/evaluate_task.sh", ".ci/run"])
def test_scripts_can_be_run_and_read(script):
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)
