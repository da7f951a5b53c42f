"""tools/record_trace.py: what it records of a guest on QEMU is what the engine replays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.frontends import replay
from engine.frontends.trace import golden_path, load, load_golden

TOOL = Path(__file__).parents[2] / "tools" / "record_trace.py"
pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-system-x86_64") or not shutil.which("cc"), reason="needs QEMU and a C compiler"
)


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *args], capture_output=True, text=True, timeout=120, check=False)


def test_a_guest_is_recorded_and_replayed(tmp_path: Path) -> None:
    out = tmp_path / "seabios.npz"
    machine = ["-M", "pc", "-m", "64", "-nodefaults", "-vga", "none", "-rtc", "base=2024-01-01,clock=vm"]
    got = run("--out", out, "--max", "1200", "--", *machine)
    if "is not the function that is known" in got.stderr:
        pytest.skip("another QEMU than the recorder knows")
    assert got.returncode == 0, got.stderr
    trace = load(out)
    assert len(trace.acc) == 1200 and trace.side["machine_args"] == machine and len(trace.dma)
    golden = load_golden(golden_path(trace), trace)
    assert golden.lines_stable and golden.vectors_stable
    job = replay.open_job(trace, golden, "auto", {})
    replay.learn(job)
    result = replay.replay(job, "local", 0).result
    assert result["ok"] and result["compared"] == result["reads"] > 300, result["mismatches"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--out", "x.npz", "--", "-bios", "{rom}"], "the machine names 'rom'"),
        (["--out", "x.npz", "--", "-M", "no-such-machine"], "QEMU ended with 1"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_line(args: list[str], said: str) -> None:
    got = run(*args)
    assert got.returncode == 2 and said in got.stderr and got.stderr.count("record_trace.py:") == 1
