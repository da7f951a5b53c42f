#!/usr/bin/env python3
"""Give an installed QEMU the qtest accelerator that its package lacks: compile accel_qtest.c for it.

    tools/qemu_qtest.py [--qemu PROGRAM] FOLDER      prints what to put into the environment, or that nothing is missing

Only for QEMU 7.2 (Debian 12), whose structures accel_qtest.c knows; a QEMU that lists qtest under `-accel help` needs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("accel_qtest.c")
VERSION = "7.2."


class QtestError(Exception):
    """Why there is no qtest accelerator, in one line."""


def provide(qemu: str, folder: Path) -> bool:
    """Make sure that `qemu` has the accelerator: False if it has it, True if it finds it with QEMU_MODULE_DIR=folder.  Raises QtestError."""
    program = shutil.which(qemu)
    if not program:
        raise QtestError(f"{qemu}: no such program (Debian: apt install qemu-system-x86)")
    if "qtest" in subprocess.run([program, "-accel", "help"], capture_output=True, text=True, check=False).stdout.split():
        return False
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.partition("version ")[2].split(" ")[0]
    stamp = re.search(rb"qemu_stamp_[0-9a-f]{40}", Path(program).read_bytes())
    if not stamp or not version.startswith(VERSION):
        raise QtestError(f"{qemu} {version.strip()}: no qtest accelerator, and only for {VERSION}x with modules can it be supplied; install a QEMU that "
                         "lists qtest under -accel help")
    module = folder / "accel-qtest-x86_64.so"
    part = folder / f"{module.name}.{os.getpid()}"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", f"-DSTAMP={stamp[0].decode()}", "-o", str(part), str(SOURCE)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise QtestError(f"{SOURCE.name} was not compiled: {(done.stderr.splitlines() or ['no message'])[0]}")
        part.rename(module)
    except OSError as e:
        raise QtestError(f"{compiler}: {e.strerror} (a C compiler makes QEMU's missing module; set CC)") from None
    return True


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qemu", default="qemu-system-x86_64", metavar="PROGRAM")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    try:
        needed = provide(args.qemu, args.folder)
    except QtestError as e:
        print(f"qemu_qtest.py: {e}", file=sys.stderr)
        return 1
    print(f"QEMU_MODULE_DIR={args.folder.absolute()}" if needed else f"{args.qemu} has the qtest accelerator already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
