"""The suites on another build, as the Makefile runs them: `python -m tests.run_build checked|asan|ubsan [options]`.

The extensions are in build/MODE.  The rest of the repository is laid beside them, and the tests run there, so that
every process, workers and commands included, takes the package of that build.  Options are pytest's.  checked runs the
suite; asan and ubsan run what reaches device code in every way there is: contract, conformance and fuzz, and then the
fuzzer for as many accesses to each part as ACCESSES says.  A sanitizer's first report ends its process, and with it
the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODES = ("checked", "asan", "ubsan")
FOLDERS = ("engine", "tests", "perf", "docs", "tools")
SANITIZED = ("tests/contract", "tests/conformance", "tests/fuzz")
ACCESSES = "1000000"
NOT_HERE = (  # of the release build, and of no build
    "tests/typing",
    "tests/unit/test_packaging.py",
    "tests/unit/test_instructions.py",
)


def lay(folder: Path) -> None:
    """The repository but for what is compiled, anew, beside the extensions in `folder`."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix != ".so":
            path.unlink()
    for name in FOLDERS:
        compiled = shutil.ignore_patterns("*.so", "__pycache__", ".*", *(["*.c"] if name == "engine" else []))
        shutil.copytree(ROOT / name, folder / name, symlinks=True, dirs_exist_ok=True, ignore=compiled)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, folder / path.name)


def preload(library: str) -> str:
    """A sanitizer's run-time library, which must come before all others: Python itself is not built with it."""
    command = [os.environ.get("CC", "cc"), f"-print-file-name={library}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment(mode: str, reports: Path) -> dict[str, str]:
    """What the sanitizers do: end the process at the first finding, and write it to a file, as pytest keeps what a
    process says that ends."""
    env = dict(os.environ)
    if mode == "asan":
        env["LD_PRELOAD"] = preload("libasan.so")
        # what Python keeps to its end is no leak
        env["ASAN_OPTIONS"] = f"detect_leaks=0:allocator_may_return_null=1:log_path={reports}"
        env["PYTHONMALLOC"] = "malloc"
    elif mode == "ubsan":
        env["UBSAN_OPTIONS"] = f"print_stacktrace=1:halt_on_error=1:log_path={reports}"
    return env


def main() -> int:
    """Pytest's exit status; 2 if the build is not there."""
    mode, *options = sys.argv[1:] or [""]
    folder = ROOT / "build" / mode
    if mode not in MODES or not any(folder.glob("engine/*.so")):
        print(f"run_build: {mode!r} is not built; use make {', make '.join(MODES)}", file=sys.stderr)
        return 2
    lay(folder)
    reports = folder / "report"
    env = environment(mode, reports)
    command = [sys.executable, "-m", "pytest", "-m", "not stress and not bench", *(f"--ignore={p}" for p in NOT_HERE)]
    named = any(not o.startswith("-") and (ROOT / o.split("::")[0]).exists() for o in options)
    suites = SANITIZED if mode in ("asan", "ubsan") and not named else ()
    status = subprocess.run([*command, *options, *suites], cwd=folder, env=env).returncode
    if not status and suites:
        fuzz = [sys.executable, "-m", "fuzz", "--accesses", os.environ.get("ACCESSES", ACCESSES)]
        status = subprocess.run(fuzz, cwd=folder, env=env | {"PYTHONPATH": str(folder / "tests")}).returncode
    for report in sorted(folder.glob(f"{reports.name}.*")):
        print(f"{report}:\n{report.read_text(errors='replace')}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
