"""What a part needs to be fuzzed well: settings, and sequences of accesses that make it move data.  Data only.

A sequence is words, which happen one after the other:

    NAME=v       write v to the register NAME of the part, or of a part that stands in one unit with it
    NAME         read it
    [v+n]:s=v    put the s low bytes of a value into RAM, s up to 8
    +n           n nanoseconds pass (decimal)
    packet       a frame arrives from the network

and a value v is one of several, separated by |:

    1F           hexadecimal
    ?            any; ?1F any under this mask
    a b c d      a pointer into RAM or to its edges, the same throughout the sequence; a+10 behind it
    n            a length or count: none, few, all ones, one more than what fits
    >v           the value v, a doubleword with its bytes turned round; >>v a quadword
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Subject:
    """One part."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    sequences: tuple[str, ...] = ()
    disks: tuple[int, ...] = ()  # sizes of the disks in floppy drives
    longest_ns: int = 10**15  # longest jump of time; shorter where work is done at the speed of a wire


def disk(channel: int, unit: int = 0, **more: Any) -> dict[str, Any]:
    return {"channel": channel, "unit": unit, "kind": "disk", "size": 1 << 18, **more}


def disc(channel: int, unit: int = 0, **more: Any) -> dict[str, Any]:
    return {"channel": channel, "unit": unit, "kind": "cdrom", "size": 1 << 18, **more}


ATA = "C8|CA|25|35|20|24|30|34|C4|29|C5|39|EC|A1|A0|EF|E7|EA|C6|06|60|61|F5|F8|27|37|91|10|70|90|E0|E5|B0|08|?FF"
DMA = "C8|CA|25|35|C7"
# Opcode, then twelve bytes, of a packet: READ(10), READ(12), READ CD, TOC, MODE SENSE, INQUIRY and what there is.
CDB = "28|A8|BE|43|5A|12|03|46|51|4A|BD|A4|1B|1E|25|2B|55|?FF"


def nic(queue: str) -> tuple[str, ...]:
    """Rings of one queue: of e1000 ("") and of e1000e."""
    q = queue
    tx = (
        f"PCICMD=7 TDBAL{q}=a|a+8|? TDBAH{q}=0|0|0|1|FFFFFFFF TDLEN{q}=80|80|100|0|10|FFF80|? TDH{q}=0|0|7|8|? "
        "TCTL=2|A|103FA|?"
    )
    rx = (
        f"PCICMD=7 RDBAL{q}=a|a+8|? RDBAH{q}=0|0|0|1|FFFFFFFF RDLEN{q}=80|80|100|0|10|FFF80|? RDH{q}=0|0|7|8|? "
        "RCTL=8002|801A|801E|C2|6802603E|?"
    )
    legacy = (
        "[a]:8=b [a+8]:4=0B000040|0B000000|2B003FFF|4B00FFFF|8B000800|0900FFFF|? [a+C]:4=0|? [a+10]:8=b|d "
        "[a+18]:4=0B000040|? [a+1C]:4=?"
    )
    context = (
        "[a]:4=?3F3F3F3F [a+4]:4=?3FFFFFFF [a+8]:4=20000000|27000040|2F00FFFF|? [a+C]:4=?FFFFFF00 [a+10]:8=b "
        "[a+18]:4=2F100800|2510FFFF|2D100000|? [a+1C]:4=300|? [a+20]:8=c [a+28]:4=2D10FFFF|? [a+2C]:4=?"
    )
    return (
        f"{tx} {legacy} TDT{q}=1|2|3|7|8|0|?FFFF +1000000",
        f"{tx} {context} TDT{q}=2|3|7|8|0|?FFFF +1000000",
        f"{rx} [a]:8=b [a+10]:8=b|d [a+20]:8=a [a+8]:8=0|? RDT{q}=1|2|7|8|?FFFF packet packet packet +1000000",
        f"RCTL=80C2|82C2|? RDT{q}=7|8 TCTL=2 {legacy} TDT{q}=1|2|? +10000000",  # looped back
    )


SUBJECTS: dict[str, Subject] = {
    "e1000": Subject(longest_ns=10**9, sequences=(*nic(""), "ICS=? IMS=? ITR=?FFFF TADV=?FFFF RADV=?FFFF +10000000")),
    "e1000e": Subject(
        longest_ns=10**9,
        sequences=(
            *nic(""),
            *nic("1"),
            "RCTL=8C02|? PSRCTL=?3F3F3F7F|0|? RFCTL=8000|? RDBAL=a RDLEN=80|100 RDBAH=0 RDH=0 [a]:8=b [a+8]:8=c "
            "[a+10]:8=d "
            "[a+18]:8=a RDT=1|2|7|8 packet packet +1000000",
            "MRQC=?3 RXCSUM=? CTRL_EXT=? IVAR=? EIAC=? ICS=? IMS=? EITR0=?FFFF +10000000",
        )
    ),
    "edu": Subject(
        settings={"dma_mask": (1 << 52) - 1},
        sequences=(
            "PCICMD=7 DMA_SOURCE=a|40000|40FFF|3FFFF|? DMA_DESTINATION=40000|40FFF|a|? DMA_COUNT=10|1000|FFF|1001|n "
            "DMA_COMMAND=1|3|5|7|? +200000000",
            "FACTORIAL=?F|? STATUS=80|0 +1000000 FACTORIAL",
        ),
    ),
    "fw-cfg": Subject(
        settings={"items": ((5, bytes(range(256)), 256, False, False), ("opt/w", bytes(64), 64, False, True))},
        sequences=(
            "[a]:4=>?FFFF001F|>0005000A|>2|>4|>10|>0000000A [a+4]:4=>n [a+8]:8=>>b|? DMA_HIGH=>0|>1|>0|? DMA_LOW=>a",
            "SELECTOR=?3F|19|5|? DATA DATA DATA",
        )
    ),
    "ich9-ahci": Subject(
        settings={"drives": [disk(0), disc(1), {"channel": 2, "kind": "cdrom"}, disk(3, readonly=True)]},
        sequences=tuple(
            f"PCICMD=7 GHC=80000002 P{n}CMD=0|0|0|1|? P{n}CLB=a P{n}CLBU=0|0|0|1 P{n}FB=b "
            f"P{n}FBU=0|0|0|FFFFFFFF P{n}CMD=17|17|17|? "
            f"[a]:4={flags} [a+4]:4=0|? [a+8]:8=c [c]:4=2780{0:02X}|?FF8027 [c]:1=27 [c+1]:1=80|80|80|0|? "
            f"[c+2]:1={op} "
            f"[c+4]:4=0|1|1FF|200|?FFFF|? [c+7]:1=40|E0 [c+8]:4=0|0|? [c+C]:2=0|1|8|FFFF|? "
            f"[c+40]:1={CDB} [c+41]:8=0|? [c+47]:2=0100|? [c+80]:8=d [c+8C]:4=1FF|7FF|0|3FFFFF|n [c+90]:8=b|a "
            f"[c+9C]:4=1FF|n "
            f"P{n}SACT=0|1|? P{n}CI=1|3|FFFFFFFF|? +1000000 P{n}IS"
            for n, op, flags in (
                (0, ATA, "00010005|00020045|00000005|FFFF0005|?"),
                (0, DMA, "00020005|00020045"),
                (0, "60|61", "00010005|00020045|FFFF0005"),
                (1, "A0|A1|?FF", "00010025|00020065|00000025|FFFF0025|?"),
                (2, "A0", "00010025|?"),
                (3, ATA, "00010005|00020045|?"),
            )
        )
        + tuple(f"P{n}SCTL=1|301 +1000000 P{n}SCTL=0|300 P{n}SERR=FFFFFFFF" for n in (0, 1)),
    ),
    "piix3-ide": Subject(
        settings={"drives": [disk(0), disk(0, 1, readonly=True), disc(1), {"channel": 1, "unit": 1, "kind": "cdrom"}]},
        sequences=tuple(
            f"PCICMD=7 DEVICE_CONTROL{c}=4|4|0 DEVICE_CONTROL{c}=0|0|2 BMIC{c}=0|0|? BMIDTP{c}=a|a|a|? "
            f"[a]:4=b|? [a+4]:4=200|80000200|80000200|80001000|80000000|8000FFFE|0|1|? "
            f"[a+8]:4=d|b|? [a+C]:4=80000200|80000000|? DEVICE{c}=E0|E0|E0|F0|40|50|? "
            f"SECTOR_COUNT{c}=1|1|8|0|FF|? LBA_LOW{c}=?FF LBA_MID{c}=0|0|1|2|? "
            f"LBA_HIGH{c}=0|0|0|? FEATURES{c}=0|1|2|3|? COMMAND{c}={ops} BMIC{c}=1|9|9|9|8|? +1000000 "
            f"BMIS{c}=6|? STATUS{c} BMIC{c}=0"
            for c, ops in ((0, ATA), (0, DMA), (1, ATA))
        )
        + tuple(
            f"DEVICE_CONTROL{c}=4|0 DEVICE_CONTROL{c}=0|2 DEVICE{c}=A0|B0|E0 FEATURES{c}=0|1|2 "
            f"LBA_MID{c}=0|FE|?FF LBA_HIGH{c}=0|FF|? COMMAND{c}=A0 "
            f"DATA{c}={CDB} DATA{c}=0|? DATA{c}=0|? DATA{c}=0|?FF DATA{c}=0|100|? DATA{c}=0|? BMIC{c}=9|1 "
            f"+1000000 DATA{c} DATA{c} STATUS{c}"
            for c in (0, 1)
        )
        + ("COMMAND0=20|30|C5|C4|EC DATA0=? DATA0=? DATA0 DATA0 STATUS0 DEVICE_CONTROL0=4|0|6|? DEVICE_CONTROL0=0",),
    ),
    "fdc": Subject(
        settings={"drives": 2},
        disks=(1474560, 163840),
        sequences=(
            "CLEAR_POINTER.0=0 MODE.0=46|46|4A|42|56|5A|? ADDRESS2.0=?FF ADDRESS2.0=?FF COUNT2.0=FF|?FF "
            "COUNT2.0=1|0|FF|? "
            "PAGE2=0|F|FF|? SINGLE_MASK.0=2 DOR=18 DOR=1C|1C|1D|3C|? CCR=0|0|? +1000000 FIFO=8 FIFO FIFO "
            "FIFO=E6|E6|C6|46|E5|C5|66|42|4D|F1|F6|? FIFO=0|0|1|4|? FIFO=0|0|?FF FIFO=0|0|1|? FIFO=1|1|1|? "
            "FIFO=2|2|2|? FIFO=12|12|12|? FIFO=1B FIFO=FF|FF|? "
            "+30000000 FIFO FIFO FIFO FIFO FIFO FIFO FIFO",
            "DOR=C|1C|8|? +1000000 FIFO=8 FIFO FIFO MSR",
            "DOR=14|1C FIFO=E6|C5|4D|? FIFO=0|? FIFO=0|? FIFO=0|? FIFO=1|? FIFO=2|? FIFO=12|? FIFO=1B FIFO=FF "
            "FIFO FIFO FIFO=? FIFO=? MSR",
            "FIFO=8E FIFO=?FF FIFO=?FF FIFO=?FF FIFO=?FF FIFO=?FF FIFO=?FF",
        ),
    ),
    "i8237": Subject(
        disks=(1474560,),
        sequences=(
            "MODE.0=42|46|5A|? ADDRESS2.0=FF ADDRESS2.0=FF COUNT2.0=FF COUNT2.0=FF|1|0 PAGE2=FF|F|B SINGLE_MASK.0=2 "
            "DOR=1C FIFO=E6|C5 FIFO=0 FIFO=0 FIFO=0 FIFO=1 FIFO=2 FIFO=12 FIFO=1B FIFO=FF +30000000 FIFO FIFO",
        ),
    ),
    "hpet": Subject(
        sequences=(
            "GEN_CONF=0 MAIN_CNT=0|? MAIN_CNT_H=0|FFFFFFFF T0_CONF=4|C|4C|4044|400C|? "
            "T0_CMP=1000|0|FFFFFFFF|? "
            "T0_CMP=2000|1000|0|? "
            "T0_FSB=? T0_FSB_H=FEE00000|FEEFFFFC|? GEN_CONF=1|3|? +1000000 GINTR_STA=FFFFFFFF",
        ),
    ),
    "tpm-tis": Subject(sequences=("TPM_ACCESS=2 TPM_STS=40 TPM_DATA_FIFO=80 TPM_DATA_FIFO=1 TPM_DATA_FIFO=? "
    "TPM_STS=20 TPM_DATA_FIFO",)),
}  # fmt: skip
NOTHING = Subject()
