"""The host a result was taken on.  Results of different records are never compared."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

import engine
from engine.measure import _limits


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def cpu_seconds(*pids: int) -> float:
    """CPU time that other processes have used.  Raises OSError for one that is no more."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)  # a process's CPU-time clock: clock_getcpuclockid(3)


def record() -> dict[str, Any]:
    """CPU, cores, kernel, versions, and what else decides how fast things are."""
    info = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    allowed = sorted(os.sched_getaffinity(0))
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_allowed": allowed,
        "smt": any(len(_limits.siblings(c)) > 1 for c in allowed),
        "virtual": " hypervisor" in info,
        "tsc_mhz": round(_limits.tsc_hz() / 1e6),
        "memory_mib": int(memory[1]) >> 10 if memory else 0,
        "governor": _read(f"/sys/devices/system/cpu/cpu{allowed[0]}/cpufreq/scaling_governor") or "unknown",
        "load": [round(x, 2) for x in os.getloadavg()],
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "engine": engine.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }
