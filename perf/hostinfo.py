"""The host record that goes with every result: results from different records are never compared."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.measure import _limits

ROOT = Path(__file__).parent.parent


def _file(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _command(*words: str) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def record() -> dict[str, Any]:
    """CPU, kernel, settings that change timings, load, tools, and the commit."""
    info = {}
    for line in (_file("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    cpus = sorted(os.sched_getaffinity(0))
    a, b = _limits.pair()
    dirty = _command("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "cpu": info.get("model name"),
        "family_model_stepping": [info.get(k) for k in ("cpu family", "model", "stepping")],
        "microcode": info.get("microcode"),
        "hypervisor": "hypervisor" in info.get("flags", "").split(),
        "cpus": cpus,
        "siblings": {str(c): sorted(_limits.siblings(c)) for c in cpus[:64]},
        "pinned_to": [a, b],
        "tsc_ghz": round(_limits.tsc_hz() / 1e9, 4),
        "governor": _file(f"/sys/devices/system/cpu/cpu{a}/cpufreq/scaling_governor"),
        "turbo_off": _file("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "thp": _file("/sys/kernel/mm/transparent_hugepage/enabled"),
        "mitigations": {
            p.name: _file(str(p)) for p in sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))
        },
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "load_average": list(os.getloadavg()),
        "python": sys.version.split()[0],
        "compiler": _command(*os.environ.get("CC", "cc").split(), "--version"),
        "packages": {name: _version(name) for name in ("ioreq-engine", "Cython", "numpy")},
        "commit": _command("git", "rev-parse", "HEAD"),
        "changed_since_commit": dirty is not None,
    }
