"""Every compiled module ships a .pyi, and each agrees with the built module: names, kinds, parameters, defaults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p.relative_to(ROOT) for p in (ROOT / "engine").rglob("*.pyx"))

# What the built modules have beyond their stubs, on purpose: names that Cython makes; names they import; constants of a
# part's register map; constructors that are __cinit__; the buffer protocol, which Python can name since 3.12 only.
ALLOWED = r"""
.*\.__test__
.*\.__(reduce|setstate)_cython__
.*\.__pyx_capi__
.*\.__buffer__
.*\.(ACC|REC)
engine\._device\.(Arena|Dma)\.__init__
engine\._dispatch\.Table\.__init__
engine\.devices\._output\.OutputRing\.__init__
engine\.(devices|pci|testing)\..*\.(RO|WO|RW|RC|RW1C)
engine\.(devices|pci|testing)\..*\.PCI_(CONFIG|STATE)
engine\.devices\.\w+\.[A-Z][A-Z0-9_]*
"""


def module(source: Path) -> str:
    return ".".join(source.with_suffix("").parts)


def stubtest(modules: list[str], allowed: Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    options = ["--concise", "--ignore-disjoint-bases", "--ignore-unused-allowlist", "--allowlist", str(allowed)]
    command = [sys.executable, "-W", "ignore", "-m", "mypy.stubtest", *options, *modules]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stubs") / "allowed"
    path.write_text(ALLOWED)
    return path


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_each_extension_has_a_stub(source: Path) -> None:
    assert (ROOT / source.with_suffix(".pyi")).is_file()


def test_stubs_agree_with_the_built_modules(allowed: Path) -> None:
    with_stub = [module(s) for s in SOURCES if (ROOT / s.with_suffix(".pyi")).is_file()]
    got = stubtest(with_stub, allowed)
    assert got.returncode == 0, got.stdout + got.stderr[-2000:]


def test_a_stub_that_lies_is_found(allowed: Path, tmp_path: Path) -> None:
    """Parameters, a default and a name that the built module does not have."""
    package = tmp_path / "engine"
    package.mkdir()
    for path in (ROOT / "engine").iterdir():
        if path.name != "_executor.pyi":
            (package / path.name).symlink_to(path)
    stub = (ROOT / "engine" / "_executor.pyi").read_text()
    lies = {
        "run_settle": ("run_settle(self, t_ns: int)", "run_settle(self, time: int)"),
        "run_access": ("value: int = 0", "value: int = 1"),
        "refresh": ("def refresh(self)", "def refresh(self, unit: int = 0)"),
    }
    for true, lie in lies.values():
        assert true in stub
        stub = stub.replace(true, lie)
    (package / "_executor.pyi").write_text(stub + "\nNO_SUCH_NAME: int\n")
    got = stubtest(["engine._executor"], allowed, tmp_path)
    assert got.returncode == 1, got.stderr[-2000:]
    for name in (*lies, "NO_SUCH_NAME"):
        assert name in got.stdout, got.stdout
