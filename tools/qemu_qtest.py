#!/usr/bin/env python3
"""A QEMU whose "-accel qtest" works, as the reference of `engine diff` and of tests.

    tools/qemu_qtest.py                              say whether there is one, and where its module comes from
    tools/qemu_qtest.py -machine pc -qtest stdio     run it (-accel qtest is added)

Most builds have the accelerator.  Debian 12's package of QEMU 7.2 has removed its module; there accel_qtest.c, beside
this file, is compiled (with $CC, or cc) and put into a folder under $XDG_CACHE_HOME, which QEMU finds by
QEMU_MODULE_DIR.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("accel_qtest.c")
MODULE = "accel-qtest-x86_64.so"


class NoReference(Exception):
    """There is no QEMU that could serve; the text says what is missing."""


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ioreq-engine"


def _try(qemu: str, env: dict[str, str]) -> str:
    """What a QEMU says to -accel qtest; "" if it takes it."""
    quit = '{"execute": "qmp_capabilities"} {"execute": "quit"}\n'
    command = [qemu, "-accel", "qtest", "-machine", "none", "-display", "none", "-nodefaults", "-qmp", "stdio"]
    done = subprocess.run(command, input=quit, env=env, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def _module(qemu: str) -> Path:
    """The folder with a module for this very binary, compiled if need be."""
    stamp = re.search(rb"qemu_stamp_[0-9a-f]{40}", Path(qemu).read_bytes())
    if stamp is None:
        raise NoReference(f"{qemu} takes no modules")
    folder = _cache() / f"{stamp[0].decode()}-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]}"
    if not (folder / MODULE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / MODULE
            cc = os.environ.get("CC", "cc").split()
            command = [
                *cc,
                "-O2",
                "-Wall",
                "-shared",
                "-fPIC",
                f"-DSTAMP={stamp[0].decode()}",
                "-o",
                str(made),
                str(SOURCE),
            ]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as e:
                raise NoReference(f"C compiler {cc[0]}: {e.strerror}") from None
            if done.returncode:
                said = next((ln for ln in done.stderr.splitlines() if "error" in ln), "no message")
                raise NoReference(f"{SOURCE.name} was not compiled: {said}")
            made.rename(folder / MODULE)
    return folder


def reference(qemu: str = "qemu-system-x86_64") -> tuple[str, dict[str, str]]:
    """(program, environment) of a QEMU that runs with -accel qtest.  Raises NoReference."""
    path = shutil.which(qemu)
    if path is None:
        raise NoReference(f"{qemu} is not installed (Debian: qemu-system-x86)")
    env = dict(os.environ)
    why = _try(path, env)
    if why:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stdout
        version = said.partition("\n")[0] or path
        if " 7.2." not in version:
            raise NoReference(f"{version} does not take -accel qtest: {why}")
        env["QEMU_MODULE_DIR"] = str(_module(path))
        why = _try(path, env)
        if why:
            raise NoReference(f"{version} does not take -accel qtest with a module of ours either: {why}")
    return path, env


def main() -> int:
    """The command line."""
    try:
        path, env = reference()
    except NoReference as e:
        print(f"qemu_qtest: {e}", file=sys.stderr)
        return 1
    if len(sys.argv) == 1:
        print(
            path,
            "with its own qtest accelerator"
            if "QEMU_MODULE_DIR" not in env
            else f"with the module in {env['QEMU_MODULE_DIR']}",
        )
        return 0
    os.execve(path, [path, "-accel", "qtest", *sys.argv[1:]], env)


if __name__ == "__main__":
    sys.exit(main())
