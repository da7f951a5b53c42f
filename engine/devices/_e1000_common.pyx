"""What Intel's 82540EM and 82574L have alike, for e1000.pyx and e1000e.pyx: the station's address, PHY and link, the address
filters, the ends of the way of a packet, and how a register's read is carried out.

Documents: as _e1000_common.pxd says.  Called by the controller's owner only.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memmove, memset

from engine._device cimport INPUT_LINE, INPUT_PACKET, NEVER, Arena, Device
from engine.devices._net cimport FRAMES_AT_ONCE, LONGEST_FRAME, NetPort

import re

from engine.devices._net import NET_CONFIG
from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG
from engine.types import RC, WO

cdef enum:
    NEGOTIATION_MS = 500
    WIRE_OVERHEAD = 24          # preamble, FCS and gap

cdef uint8_t MO_SHIFT[4]
MO_SHIFT[:] = [4, 3, 2, 0]      # RCTL's MO: SDM 13.4.22, DS 10.2.5.1

# Words of the registers' tables.
ALL = 0xFFFFFFFF
READ_CLEARS, READ_CLEARS_PAIR = "reading clears it", "reading clears it and its lower half"
SIZES = ("64", "127", "255", "511", "1023", "1522")
FIFO = ("H", "T", "HS", "TS", "PC")
ERRORS = ("CRCERRS", "ALGNERRC", "SYMERRS", "RXERRC", "MPC", "SCC", "ECOL", "MCC", "LATECOL")

# Settings of both controllers, and the fields of tx_context but the last.
E1000_CONFIG = {**PCI_CONFIG, "mac": "52:54:00:12:34:56", **NET_CONFIG}
CONTEXT_STATE = (("paylen", "u4"), ("ipcse", "u2"), ("tucse", "u2"), ("mss", "u2"), ("ipcss", "u1"), ("ipcso", "u1"), ("tucss", "u1"),
                 ("tucso", "u1"), ("hdr_len", "u1"), ("ip", "u1"), ("tcp", "u1"))


def how_read(register):
    """What a read of a register does: ABSENT, PLAIN, CLEARS or CLEARS_PAIR."""
    if register.access == WO:
        return ABSENT
    if register.access != RC:
        return PLAIN
    return CLEARS_PAIR if register.side_effects == READ_CLEARS_PAIR else CLEARS


def rom(image, address):
    """The words of an EEPROM: the image with the station's address at its beginning and the checksum at its end."""
    words = [*(int.from_bytes(address[n:n + 2], "little") for n in (0, 2, 4)), *image[3:]]
    return (*words, (ROM_SUM - sum(words)) & 0xFFFF)


cdef class E1000Common(NetController):
    """One port.  Packets come in by INPUT_PACKET (addr, value: pointer and length).  Input "link" is the cable, in after
    power-on."""
    IN = ("link",)
    UNSEEN = ()                 # fields of the state that inspect() leaves out

    def __init__(self, str id, uint32_t rank, arena, dma, **config):
        Device.__init__(self, id, rank, arena if arena is not None else Arena(1 << 18), dma, **config)
        text = self.config["mac"]
        if not re.fullmatch("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text) or int(text[:2], 16) & 1:
            raise MachineError(f"device {id!r}: mac = {text!r} is no station address; write it like 52:54:00:12:34:56")
        for n, byte in enumerate(bytes.fromhex(text.replace(":", ""))):
            self.address[n] = byte
        self.net = NetPort(id, self.config)
        self.frame = <uint8_t *>malloc(LONGEST_FRAME)
        if self.frame == NULL:
            raise MemoryError("no memory for a packet")

    def __dealloc__(self):
        free(self.frame)

    cdef bytes station(self):
        """The station's address."""
        return bytes([self.address[n] for n in range(6)])

    def inspect(self):
        out = NetController.inspect(self)
        mac = out.pop("mac")
        for name in self.UNSEEN:
            del out[name]
        out["registers"] = {r.name: mac[r.offset >> 2] for r in self.REGISTERS if r.offset >> 2 < len(mac) and mac[r.offset >> 2]}
        return out

    cdef void publish(self) noexcept nogil:
        """When the part wants to be called again."""

    cdef void catch_up(self) noexcept nogil:
        """Do what was put off until somebody looks."""

    cdef void add_causes(self, uint32_t causes) noexcept nogil:
        """Causes of interrupts arise."""

    cdef bint ready(self) noexcept nogil:
        """Does the receiver take packets from outside?"""
        return False

    cdef bint receive_packet(self, const uint8_t *p, uint64_t n) noexcept nogil:
        """A packet without FCS.  False if there is no receiver, or no room."""
        return False

    # ------------------------------------------------------------------ inputs

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        self.catch_up()
        if kind == INPUT_LINE:
            self.set_link(value != 0)
        elif kind == INPUT_PACKET:
            return self.arrive(<const uint8_t *>addr, value)
        return ~<uint64_t>0

    def receive(self, bytes packet not None, uint64_t t_ns=0):
        """A packet arrives at t_ns, or at the time of the last access if that is later, between two runs: what INPUT_PACKET
        answers.  An executor that has the device must refresh() afterwards."""
        self.core.now = max(self.core.now, t_ns)
        self.catch_up()
        return bool(self.arrive(<const uint8_t *><char *>packet, len(packet)))

    cdef bint arrive(self, const uint8_t *p, uint64_t n) noexcept nogil:
        """A packet comes in from outside; False if the receiver is not ready, or has no room for it.  One that no wire carries
        is dropped."""
        if n > LONGEST_FRAME:
            return True
        if not self.ready() or not self.receive_packet(p, n):
            return False
        self.net.came(self.core.now, p, <uint32_t>n)
        return True

    cdef void hear(self) noexcept nogil:
        """Take what the network has, as long as there is room."""
        cdef uint32_t k = 0, n = 0
        cdef const uint8_t *p
        while k < FRAMES_AT_ONCE and self.ready():
            p = self.net.take(self.core.now, &n)
            if p == NULL:
                break
            self.arrive(p, n)
            k += 1
        self.net.looked(self.core.now, k)
        self.publish()

    # ------------------------------------------------------------------ PHY and link: SDM 8, 13.4.7; DS 9, 10.2.2.7

    cdef void link_up(self) noexcept nogil:
        self.m[STATUS >> 2] |= STATUS_LU
        self.phy[PSTATUS] |= PSTATUS_LINK

    cdef void link_down(self) noexcept nogil:
        self.m[STATUS >> 2] &= ~<uint32_t>STATUS_LU
        self.phy[PSTATUS] &= ~(PSTATUS_LINK | PSTATUS_AUTONEG_DONE)
        self.phy[LPA] &= ~LPA_ACK

    cdef void negotiate(self) noexcept nogil:
        self.link_down()
        self.autoneg_at[0] = (self.core.now // MS + NEGOTIATION_MS) * MS
        self.publish()

    cdef void negotiated(self) noexcept nogil:
        """The PHY has found its partner."""
        self.link_up()
        self.phy[LPA] |= LPA_ACK
        self.phy[PSTATUS] |= PSTATUS_AUTONEG_DONE

    cdef void set_link(self, bint up) noexcept nogil:
        """The cable is put in or pulled."""
        cdef uint32_t before = self.m[STATUS >> 2]
        if self.link[0] == up:
            return
        self.link[0] = up
        if not up:
            self.link_down()
        elif self.phy[PCTRL] & PCTRL_AUTONEG and not self.phy[PSTATUS] & PSTATUS_AUTONEG_DONE:
            self.negotiate()
        else:
            self.link_up()
        if self.m[STATUS >> 2] != before:
            self.add_causes(ICR_LSC)

    # ------------------------------------------------------------------ filters: SDM 3.2.1, 9.3; DS 7.1.1, 7.5

    cdef void put_address(self) noexcept nogil:
        """The first receive address comes from the EEPROM: SDM 5.6.1, DS 10.2.5.23."""
        cdef uint8_t *a = self.address
        self.m[RA >> 2] = a[0] | <uint32_t>a[1] << 8 | <uint32_t>a[2] << 16 | <uint32_t>a[3] << 24
        self.m[(RA >> 2) + 1] = <uint32_t>RAH_AV | a[4] | <uint32_t>a[5] << 8

    cdef bint in_vlan(self, const uint8_t *p) noexcept nogil:
        """Is a packet of no VLAN, or of one that VFTA names?"""
        cdef uint32_t tag
        if not self.m[RCTL >> 2] & RCTL_VFE or not is_tagged(self.m, p):
            return True
        tag = be16(p + 14)
        return self.m[(VFTA >> 2) + (tag >> 5 & 0x7F)] >> (tag & 31) & 1

    cdef bint has_address(self, const uint8_t *p) noexcept nogil:
        """Is a packet's destination one of the receive addresses?"""
        cdef uint32_t *m = self.m
        cdef uint32_t i
        for i in range(RA >> 2, (RA >> 2) + 32, 2):     # RAL and the low half of RAH: six bytes in the order of the wire
            if m[i + 1] & <uint32_t>RAH_AV and memcmp(p, &m[i], 6) == 0:
                return True
        return False

    cdef bint in_multicast_table(self, const uint8_t *p) noexcept nogil:
        """Does MTA name a packet's destination?"""
        cdef uint32_t hash = (p[5] << 8 | p[4]) >> MO_SHIFT[self.m[RCTL >> 2] >> RCTL_MO_SHIFT & 3] & 0xFFF
        return self.m[(MTA >> 2) + (hash >> 5)] >> (hash & 31) & 1

    # ------------------------------------------------------------------ packets

    cdef const uint8_t *padded(self, const uint8_t *p, uint64_t n) noexcept nogil:
        """A packet of n bytes, fewer than MIN_FRAME, with zeros up to there."""
        memmove(self.frame, p, n)
        memset(self.frame + n, 0, MIN_FRAME - n)
        return self.frame

    cdef const uint8_t *untagged(self, const uint8_t *p, uint64_t n) noexcept nogil:
        """A packet of n bytes and a VLAN tag without the tag: SDM 9.2, DS 7.5."""
        memmove(self.frame + 12, p + 12 + VLAN_TAG, n - 12)
        memmove(self.frame, p, 12)
        return self.frame

    cdef void leave(self, const uint8_t *p, uint32_t n, bint turns) noexcept nogil:
        """A packet leaves by the cable, or turns around before it."""
        self.wire += max(n, <uint32_t>MIN_FRAME) + WIRE_OVERHEAD
        if not turns and not self.net.send(self.core.now, p, n):
            return
        if self.wire > ROUNDS:
            count(self.m, MPC)
        elif turns:
            if self.ready():                    # no overrun where nothing is received
                self.receive_packet(p, n)
        else:
            self.arrive(p, n)
