"""What the contract tests must know of a part beyond its register map.

How index ports work, which registers do not simply hold their value and why, which state field is behind a
write-one-to-clear register, what survives a power-on reset.  Data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Index:
    """How register number n behind an index port is reached."""

    region: int
    at: int  # offset of the index port
    size: int = 1
    read_at: int | None = None  # offset of the data port for reads, where it differs from the map's
    write_at: int | None = None
    before: tuple[int, int] | None = None  # (region, offset) of a read that makes the next write of the port an index


@dataclass(frozen=True)
class Part:
    """One part.  A register is named as REGISTERS names it; a reason stands beside each that is left out."""

    indexes: Mapping[tuple[int, int], Index] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # settings under which every register is there
    skip: Mapping[str, str] = field(default_factory=dict)  # RW and RW1C registers that do not simply hold their value
    w1c: Mapping[str, tuple[str, int]] = field(
        default_factory=dict
    )  # -> (state field, first element) that holds the bits
    survives: tuple[str, ...] = ()  # state that a power-on reset of a running part leaves alone
    longest_ns: int = 10**15  # longest jump in time; shorter where each period is an effect, and so takes work
    resets: int = 1  # bus resets after which one more changes nothing
    content: tuple[int, ...] = ()  # regions of memory or media, which save() does not hold


TIME = "holds a date, which runs and is kept valid; tests/conformance/mc146818 has it"
DRIVES = [{"channel": n, "unit": u, "kind": "disk", "size": 1 << 20} for n in (0, 1) for u in (0, 1)]

PARTS: dict[str, Part] = {
    "q35-mch": Part(
        skip={
            "EXT_TSEG_MBYTES": "a question, answered with the size",
            "SMRAM": "D_LCK locks it, and is in the patterns",
        },
    ),
    "ich9-lpc": Part(
        w1c={"PM1_STS": ("pmsts", 0), "GPE0_STS": ("gpe", 0)},
        skip={
            "GEN_PMCON_1": "SMI_LOCK locks itself",
            "TCO1_CNT": "TCO_LOCK locks itself",
            "RST_CNT": "bit 2 resets the machine",
        },
    ),
    "ich9-smbus": Part(w1c={"HST_STS": ("smb_sts", 0)}),
    "ich9-ahci": Part(
        w1c={f"P{n}{r}": (f"port{n}_{f}", 0) for n in range(6) for r, f in (("IS", "pxis"), ("SERR", "serr"))},
        skip={"GHC": "HR resets the adapter", "IS": "follows the ports, as in the reference"},
    ),
    "piix3": Part(skip={"RC": "bit 2 resets the machine; tests/conformance/piix3 has bit 1"}),
    "piix3-ide": Part(w1c={"BMIS0": ("bm0_status", 0), "BMIS1": ("bm1_status", 0)}, config={"drives": DRIVES}),
    "piix4-pm": Part(w1c={"PMSTS": ("pmsts", 0), "GPE0_STS": ("gpe", 0), "SMBHSTSTS": ("smb_sts", 0)}),
    "vga": Part(
        indexes={
            (8, 1): Index(8, 0),
            (10, 1): Index(10, 0, write_at=0, before=(9, 0)),
            (10, 5): Index(10, 4),
            (10, 15): Index(10, 14),
            (13, 1): Index(13, 0, size=2),
        },
        content=(0, 6, 14),
    ),
    "pflash": Part(
        indexes={(0, 0): Index(0, 0)},  # a command chooses what is read
        skip={"COMMAND": "each value is another command; tests/conformance/pflash_cfi01 has them"},
    ),
    "tpm-tis": Part(
        skip=dict.fromkeys(
            (
                "TPM_ACCESS",
                "TPM_INT_ENABLE",
                "TPM_INT_STATUS",
                "TPM_STS",
                "TPM_DATA_FIFO",
                "TPM_INTERFACE_ID",
                "TPM_XDATA_FIFO",
            ),
            "of the active locality, or a command; tests/conformance/tpm has it",
        ),
        survives=("buffer", "ppi"),  # memory
    ),
    "tpm-crb": Part(skip={"TPM_CRB_CTRL_START": "a command"}, survives=("buffer", "ppi")),
    "e1000": Part(
        skip={
            "EERD": "a command to the EEPROM",
            "MDIC": "a command to the PHY",
            "ICS": "sets bits of ICR",
            "IMS": "ones set bits of the mask, zeros do nothing",
        },
    ),
    "e1000e": Part(survives=("nvm",)),
    "ioapic": Part(indexes={(0, 0x10): Index(0, 0, size=4)}),
    "lapic": Part(
        survives=("lint",),  # levels of input pins
        skip={"ICR_LOW": "a command; one of the patterns is an INIT of the own vCPU"},
    ),
    "i8254": Part(
        longest_ns=10**7,
        skip={"NMISC": "each read inverts bit 4"},
        resets=2,  # one drives OUT0 as the counter stood before
    ),
    "mc146818": Part(
        indexes={(0, 1): Index(0, 0)},
        survives=("ram", "index", "base_s", "last_set", "offset"),  # the battery
        skip=dict.fromkeys(
            ("SECONDS", "MINUTES", "HOURS", "DAY_OF_WEEK", "DAY_OF_MONTH", "MONTH", "YEAR", "CENTURY"), TIME
        )
        | {"REGISTER_B": "SET clears UIE; tests/conformance/mc146818 has it"},
    ),
    "hpet": Part(
        longest_ns=10**6,
        w1c={"GINTR_STA": ("status", 0)},
        survives=("armed", "armings"),  # running numbers, for the order of equal expiries
    ),
    "port80": Part(survives=("ferr",)),  # the level of an input pin
    "i6300esb": Part(skip={"WDT_LOCK": "WDT_LOCK locks itself; tests/conformance/i6300esb has it"}),
    "pc-testdev": Part(content=(4,)),
    "post-card": Part(survives=("history",)),  # for the person who looks at the card
}
NOTHING = Part()
