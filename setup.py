"""Extensions of ioreq-engine: the list, the one table of compiler directives, and the build modes.

ENGINE_BUILD=release|checked|asan|ubsan|tsan|coverage|annotate chooses how the extensions are compiled.
ENGINE_ONLY=pattern[,pattern] compiles only the modules whose dotted name contains a pattern.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup

MODE = os.environ.get("ENGINE_BUILD", "release")
MODES = {
    "release": ["-O2", "-g0"],
    "checked": ["-O1", "-g", "-DENGINE_DEBUG=1"],
    "asan": ["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"],
    "ubsan": ["-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"],
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
    "coverage": ["-O0", "-g", "-DCYTHON_TRACE_NOGIL=1"],
    "annotate": ["-O2"],
}
if MODE not in MODES:
    sys.exit(f"setup.py: ENGINE_BUILD={MODE} is not a build mode; use one of {', '.join(MODES)}")
if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
    sys.exit(
        f"setup.py: ioreq-engine needs Linux on x86-64 (futexes, sealed memory files, x86 memory order); this is "
        f"{sys.platform} on {platform.machine()}"
    )

FLAGS = [*MODES[MODE], "-std=gnu11", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function", "-Wno-unused-variable"]
LINK = [f for f in MODES[MODE] if f.startswith("-fsanitize")]
CHECKED = MODE in ("checked", "asan", "ubsan")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "initializedcheck": CHECKED,
    "cdivision": True,
    "embedsignature": True,
    "linetrace": MODE == "coverage",
}

ROOT = Path(__file__).parent


def modules():
    only = [p for p in os.environ.get("ENGINE_ONLY", "").split(",") if p]
    for path in sorted((ROOT / "engine").rglob("*.pyx")):
        path = path.relative_to(ROOT)
        name = ".".join(path.with_suffix("").parts)
        if not only or any(p in name for p in only):
            yield Extension(
                name, [str(path)], include_dirs=[str(ROOT / "engine")], extra_compile_args=FLAGS, extra_link_args=LINK
            )


def extensions():
    from Cython.Build import cythonize

    return cythonize(
        list(modules()), compiler_directives=DIRECTIVES, annotate=MODE == "annotate", build_dir=f"build/cython-{MODE}"
    )


setup(ext_modules=extensions())
