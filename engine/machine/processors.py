"""What firmware is told of the processor that `-cpu` names: CPUID leaf 1, and the range that AMD's keep free.

Signatures and features as the reference has them under TCG.  Document: Intel SDM volume 2, CPUID.
"""

from __future__ import annotations

import re

APIC = 1 << 9
USUAL = 0x078BFBFD  # EDX of qemu64, and of most others
# EAX by model; versions and variants of a model are as the model unless they stand here, too.
SIGNATURES = {
    "486": 0x480, "athlon": 0x623, "Broadwell": 0x306D2, "Cascadelake-Server": 0x50656, "Conroe": 0x6F3,
    "Cooperlake": 0x5065A, "core2duo": 0x6FB, "coreduo": 0x6E8, "Denverton": 0x506F1, "Dhyana": 0x900F01,
    "EPYC": 0x800F12, "EPYC-Milan": 0xA00F11, "EPYC-Rome": 0x830F10, "Haswell": 0x306C4, "Haswell-noTSX": 0x306C1,
    "Haswell-noTSX-IBRS": 0x306C1, "Haswell-v2": 0x306C1, "Haswell-v4": 0x306C1, "Icelake-Server": 0x80660,
    "Icelake-Server-v4": 0x606A0, "Icelake-Server-v5": 0x606A0, "Icelake-Server-v6": 0x606A0, "IvyBridge": 0x306A9,
    "KnightsMill": 0x80650, "kvm32": 0xF61, "kvm64": 0xF61, "max": 0x60FB1, "n270": 0x106C2, "Nehalem": 0x106A3,
    "Opteron_G1": 0xF61, "Opteron_G2": 0xF61, "Opteron_G3": 0x100F23, "Opteron_G4": 0x600F12,
    "Opteron_G5": 0x600F20, "Penryn": 0x10673, "pentium": 0x543, "pentium2": 0x652, "pentium3": 0x673,
    "phenom": 0x100F23, "qemu32": 0x663, "qemu64": 0x60FB1, "SandyBridge": 0x206A1, "Skylake-Client": 0x506E3,
    "Skylake-Server": 0x50654, "Snowridge": 0x80661, "Westmere": 0x206C1,
}  # fmt: skip
FEATURES = {
    "486": 0x9, "KnightsMill": 0xF8BFBFD, "athlon": 0x783FBFD, "core2duo": 0xFCBFBFD, "coreduo": 0xFC9FBFD,
    "max": 0xFCBFBFD, "n270": 0xFC9FBFD, "pentium": 0x8003BD, "pentium2": 0x183FBFD,
    "pentium3": 0x383FBFD, "qemu32": 0x781ABFD,
}  # fmt: skip
AMD_40_BITS = ("EPYC", "Opteron", "max", "phenom", "qemu64")  # whose addresses reach the range
_variant = re.compile(r"(-noTSX)?(-IBRS|-IBPB)?(-v\d+)?$")


def processor(name: str) -> tuple[int, int, bool] | None:
    """(EAX, EDX of CPUID leaf 1, whether the HyperTransport range is reserved); None for a name that is not known."""
    model = name if name in SIGNATURES else _variant.sub("", name)
    if model not in SIGNATURES:
        return None
    return SIGNATURES[model], FEATURES.get(model, USUAL), model.startswith(AMD_40_BITS)
