"""What is shipped: a source distribution from which the package can be built, and a wheel against which a user's own
compiled device can be built (the .pxd and .h files)."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    str(p.relative_to(ROOT))
    for p in (ROOT / "engine").rglob("*")
    if p.is_file() and p.suffix not in (".so", ".pyc", ".c") and "__pycache__" not in p.parts
}


def setup(*commands: str) -> None:
    """setup.py without the extensions, whose compilation other tests have seen."""
    env = {**os.environ, "ENGINE_ONLY": "-none-"}
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", *commands]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.xdist_group("packaging")
def test_the_source_distribution_has_every_source(tmp_path: Path) -> None:
    setup("egg_info", "--egg-base", str(tmp_path), "sdist", "-d", str(tmp_path))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {n.partition("/")[2] for n in tar.getnames()}
    assert SOURCES - names == set()
    assert {"setup.py", "pyproject.toml", "Makefile", "README.md", "LICENSE", "docs/abi.md"} <= names
    assert not [n for n in names if n.endswith((".so", ".pyc"))]


@pytest.mark.xdist_group("packaging")
def test_the_wheel_has_what_a_users_device_is_compiled_against(tmp_path: Path) -> None:
    setup(
        *("build", "--build-base", str(tmp_path / "build")),
        *("egg_info", "--egg-base", str(tmp_path)),
        *("bdist_wheel", "-d", str(tmp_path), "--bdist-dir", str(tmp_path / "bdist")),
    )
    (archive,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(archive) as z:
        names = {n for n in z.namelist() if n.startswith("engine/")}
    assert names == {n for n in SOURCES if not n.endswith(".pyx")}
