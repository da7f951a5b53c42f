"""TPM register interfaces: the FIFO (TIS) and the command response buffer (CRB), in front of a software TPM.

Document: TCG PC Client Platform TPM Profile Specification for TPM 2.0, version 1.05 (PTP); TCG Physical Presence Interface
1.30 for the memory beside them.  Modelled: five localities with request, seize and relinquish, the state machine of the FIFO,
its burst count and interrupts; the CRB with its one locality; commands and responses through swtpm.  Not modelled: the TPM
itself (swtpm is one, and keeps its state: save() holds the registers and the buffer), the hash sequence of locality 4.
Deviations: docs/devices/tpm.md.  Called by the owning worker only.

Virtual time: a command's response is there `latency_us` after the guest has started it, however long swtpm took.
"""
cimport cython
from libc.string cimport memcpy, memset

from engine._device cimport IO_NO_REGISTER, IO_OK, NEVER
from engine.devices._swtpm cimport TPM_HEADER, fatal_response, message_size

from engine.devices._swtpm import check
from engine.errors import MachineError
from engine.types import RO, RW, RW1C, WO, Region, Register, Space

# Read-only values of the reference's parts: PTP, Interface Identifier and Capability registers.
cdef enum:
    INTF_CAPABILITY_2_0 = 0x30000697     # interface 1.3 for TPM 2.0, legacy transfers, dynamic bursts, four interrupts
    INTERFACE_ID_2_0 = 0x00002100        # FIFO, localities 0 to 4
    DID_VID = 0x00011014
    RID = 0x01
    CRB_INTF_ID = 0x00025811
    CRB_INTF_ID_2 = 0x00001014

cdef extern from *:
    """
    #define TPM_CRB_AT 0xFED40000u       /* PTP: the register space of every PC */
    """
    const uint32_t CRB_AT "TPM_CRB_AT"

cdef enum:
    NO_DATA = 0xFF

_F, _C = "PTP: FIFO interface, ", "PTP: CRB interface, "
_TIS_REGISTERS = (
    Register("TPM_ACCESS", TPM_ACCESS, 8, RW, 0x81, 0, "requests, seizes and gives up the locality", _F + "TPM_ACCESS_x"),
    Register("TPM_INT_ENABLE", TPM_INT_ENABLE, 32, RW, INT_LOW_LEVEL, INT_GLOBAL | INT_POLARITY | INT_SUPPORTED, "", _F + "TPM_INT_ENABLE_x"),
    Register("TPM_INT_VECTOR", TPM_INT_VECTOR, 8, RO, None, 0, "", _F + "TPM_INT_VECTOR_x"),
    Register("TPM_INT_STATUS", TPM_INT_STATUS, 32, RW1C, 0, 0, "the last one drops the interrupt", _F + "TPM_INT_STATUS_x", w1c=INT_SUPPORTED),
    Register("TPM_INTF_CAPABILITY", TPM_INTF_CAPABILITY, 32, RO, INTF_CAPABILITY_2_0, 0, "", _F + "TPM_INTF_CAPABILITY_x"),
    Register("TPM_STS", TPM_STS, 32, RW, 0xFFFFFFFF, 0, "of the active locality only: commandReady, tpmGo, responseRetry", _F + "TPM_STS_x"),
    Register("TPM_DATA_FIFO", TPM_DATA_FIFO, 32, RW, 0xFFFFFFFF, 0, "the next bytes", _F + "TPM_DATA_FIFO_x"),
    Register("TPM_INTERFACE_ID", TPM_INTERFACE_ID, 32, RW, INTERFACE_ID_2_0, 0, "bit 19 locks the choice", _F + "TPM_INTERFACE_ID_x"),
    Register("TPM_XDATA_FIFO", TPM_XDATA_FIFO, 32, RW, 0xFFFFFFFF, 0, "the next bytes, up to BFh", _F + "TPM_XDATA_FIFO_x"),
    Register("TPM_DID_VID", TPM_DID_VID, 32, RO, DID_VID, 0, "", _F + "TPM_DID_VID_x"),
    Register("TPM_RID", TPM_RID, 8, RO, RID, 0, "", _F + "TPM_RID_x"),
)
_CRB_REGISTERS = (
    Register("TPM_LOC_STATE", LOC_STATE, 32, RO, LOC_STATE_VALID | LOC_STATE_ESTABLISHED, 0, "", _C + "TPM_LOC_STATE_x"),
    Register("TPM_LOC_CTRL", LOC_CTRL, 32, WO, None, 0, "requests and gives up the locality", _C + "TPM_LOC_CTRL_x"),
    Register("TPM_LOC_STS", LOC_STS, 32, RO, 0, 0, "", _C + "TPM_LOC_STS_x"),
    Register("TPM_CRB_INTF_ID", INTF_ID, 32, RO, CRB_INTF_ID, 0, "", _C + "TPM_CRB_INTF_ID_x"),
    Register("TPM_CRB_INTF_ID_2", INTF_ID_2, 32, RO, CRB_INTF_ID_2, 0, "", _C + "TPM_CRB_INTF_ID_x"),
    Register("TPM_CRB_CTRL_REQ", CTRL_REQ, 32, WO, None, 0, "to ready and to idle", _C + "TPM_CRB_CTRL_REQ_x"),
    Register("TPM_CRB_CTRL_STS", CTRL_STS, 32, RO, CTRL_STS_IDLE, 0, "", _C + "TPM_CRB_CTRL_STS_x"),
    Register("TPM_CRB_CTRL_CANCEL", CTRL_CANCEL, 32, WO, None, 0, "ends the command early", _C + "TPM_CRB_CTRL_CANCEL_x"),
    Register("TPM_CRB_CTRL_START", CTRL_START, 32, RW, 0, 0, "1 starts the command; it reads 1 while that runs", _C + "TPM_CRB_CTRL_START_x"),
    Register("TPM_CRB_CTRL_CMD_SIZE", CTRL_CMD_SIZE, 32, RO, CRB_BUFFER_SIZE, 0, "", _C + "TPM_CRB_CTRL_CMD_SIZE_x"),
    Register("TPM_CRB_CTRL_CMD_LADDR", CTRL_CMD_LADDR, 32, RO, CRB_AT + CRB_BUFFER, 0, "", _C + "TPM_CRB_CTRL_CMD_LADDR_x"),
    Register("TPM_CRB_CTRL_RSP_SIZE", CTRL_RSP_SIZE, 32, RO, CRB_BUFFER_SIZE, 0, "", _C + "TPM_CRB_CTRL_RSP_SIZE_x"),
    Register("TPM_CRB_CTRL_RSP_ADDR", CTRL_RSP_ADDR, 32, RO, CRB_AT + CRB_BUFFER, 0, "", _C + "TPM_CRB_CTRL_RSP_ADDR_x"),
)


cdef class Tpm(Device):
    """What both interfaces share.  Settings: `swtpm`, the path of swtpm's control socket ("": every command fails);
    `latency_us`, when a response is there (0: at once); `patience_ms`, how long swtpm may take in host time."""
    CONFIG = {"swtpm": "", "latency_us": 1000, "patience_ms": 20000}
    OUT = ("irq",)

    def prepare(self, uint32_t room):
        """Check the settings.  Raises MachineError."""
        for name, least, most in (("latency_us", 0, 10**7), ("patience_ms", 1, 10**6)):
            if not least <= self.config[name] <= most:
                raise MachineError(f"{self.id}: {name} = {self.config[name]}; it is {least} to {most}")
        if self.config["swtpm"]:
            check(self.id, self.config["swtpm"])
        self.latency = self.config["latency_us"] * 1000
        self.buffer_size = room

    def open_backend(self):
        """Connect to swtpm; called once for a device that runs.  Raises MachineError."""
        if self.config["swtpm"] and self.backend is None:
            self.backend = Swtpm(self.id, self.config["swtpm"], self.config["patience_ms"])
            self.buffer_size = min(self.buffer_size, self.backend.buffer_size)

    def close_backend(self):
        """Let go of swtpm."""
        if self.backend is not None:
            self.backend.close()
            self.backend = None

    cdef bint established(self) noexcept nogil:
        return self.backend is not None and self.backend.established

    cdef void start(self, uint8_t locality, const uint8_t *buffer, uint32_t n) noexcept nogil:
        """Hand over the n bytes of a command; its response is there after the latency."""
        self.failed = self.backend is None or n < TPM_HEADER or self.backend.begin(locality, buffer, n) != 0
        if self.latency:
            self.set_deadline(self.core.now + self.latency)
        else:
            self.on_time()

    cdef bint answer(self, uint8_t *buffer) noexcept nogil:
        """Put the response into the buffer.  False if there is none: then it says that the TPM has failed."""
        if self.failed or self.backend is None or not self.backend.busy or self.backend.finish(buffer, self.buffer_size) != 0:
            fatal_response(buffer)
            return False
        return True

    cdef bint overwrite(self, const uint8_t *ppi) noexcept nogil:
        """Clear guest RAM at a reset if software has asked for that: TCG Platform Reset Attack Mitigation; QEMU tpm.rst.
        Was it asked for?"""
        if not ppi[PPI_MOVV] & MOVV_OVERWRITE:
            return False
        if self.dma is not None and self.dma.ram != NULL:
            memset(self.dma.ram, 0, self.dma.below_4g + self.dma.above_4g)
        return True


# ---------------------------------------------------------------------- the FIFO


@cython.final
cdef class TpmTis(Tpm):
    """The FIFO interface.  `irq`: the number of its interrupt, which the guest reads."""
    TITLE = "TPM, FIFO interface (TIS)"
    REGISTERS = _TIS_REGISTERS
    CONFIG = {**Tpm.CONFIG, "irq": 5}
    STATE = (("sts", "u4", LOCALITIES), ("inte", "u4", LOCALITIES), ("ints", "u4", LOCALITIES), ("interface", "u4", LOCALITIES),
             ("offset", "u4"), ("access", "u1", LOCALITIES), ("state", "u1", LOCALITIES), ("active", "u1"), ("aborting", "u1"),
             ("next", "u1"), ("running", "u1"), ("ppi", "u1", PPI_SIZE), ("buffer", "u1", TPM_BUFFER))

    def __init__(self, str id="tpm-tis", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.prepare(TPM_BUFFER)
        if not 0 <= self.config["irq"] <= 15:
            raise MachineError(f"{id}: irq = {self.config['irq']}; it is 0 to 15")
        self.interrupt = self.config["irq"]
        self.s = <tis_state *>self.state_alloc(sizeof(tis_state))
        self.power_on()

    def regions(self):
        return (Region("tpm-tis-mmio", Space.MMIO, LOCALITIES << LOCALITY_SHIFT, (1, 2, 4, 8), (1, 4)),
                Region("tpm-ppi", Space.MMIO, PPI_SIZE, (1, 2, 4, 8), (1, 8)))

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef tis_state *s = self.s
        cdef uint32_t locality = offset >> LOCALITY_SHIFT, shift = (offset & 3) * 8, at = offset & 0xFFC, v = 0xFFFFFFFFu, room, i
        value[0] = 0
        if region == PPI_REGION:
            if offset + size > PPI_SIZE:
                return IO_NO_REGISTER
            memcpy(value, s.ppi + offset, size)
            return IO_OK
        if locality >= LOCALITIES:
            return IO_NO_REGISTER
        if at == TPM_ACCESS:
            v = s.access[locality] & ~<uint32_t>ACCESS_SEIZE | (0 if self.established() else ACCESS_ESTABLISHMENT)
            if self.wanted_by_another(locality):
                v |= ACCESS_PENDING
        elif at == TPM_INT_ENABLE:
            v = s.inte[locality]
        elif at == TPM_INT_VECTOR:
            v = self.interrupt
        elif at == TPM_INT_STATUS:
            v = s.ints[locality]
        elif at == TPM_INTF_CAPABILITY:
            v = INTF_CAPABILITY_2_0
        elif at == TPM_STS:
            if s.active == locality:
                if s.sts[locality] & STS_DATA_AVAILABLE:
                    room = min(message_size(s.buffer), self.buffer_size) - s.offset
                else:
                    room = self.buffer_size - s.offset
                    if size == 1 and room > 0xFF:
                        room = 0xFF                         # a byte of it must not read as zero
                v = (room & 0xFFFF) << STS_BURST_SHIFT | s.sts[locality]
        elif at == TPM_DATA_FIFO or TPM_XDATA_FIFO <= at <= TPM_XDATA_FIFO_LAST:
            if s.active == locality:
                v = 0
                for i in range(min(size, 4 - (offset & 3))):
                    v |= <uint32_t>(self.fifo_read(locality) if s.state[locality] == STATE_COMPLETION else <uint8_t>NO_DATA) << (8 * i)
                shift = 0
        elif at == TPM_INTERFACE_ID:
            v = s.interface[locality]
        elif at == TPM_DID_VID:
            v = DID_VID
        elif at == TPM_RID:
            v = RID
        value[0] = v >> shift
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef tis_state *s = self.s
        cdef uint32_t locality = offset >> LOCALITY_SHIFT, shift = (offset & 3) * 8, at = offset & 0xFFC, i
        cdef uint32_t bits = 0xFFFFFFFFu >> (32 - 8 * min(size, <uint32_t>4)), v = <uint32_t>value & bits
        if region == PPI_REGION:
            if offset + size > PPI_SIZE:
                return IO_NO_REGISTER
            memcpy(s.ppi + offset, &value, size)
            return IO_OK
        if locality >= LOCALITIES:
            return IO_NO_REGISTER
        if locality == LOCALITIES - 1:
            return IO_OK                                    # locality 4 is the hardware's
        if at == TPM_DATA_FIFO or TPM_XDATA_FIFO <= at <= TPM_XDATA_FIFO_LAST:
            if s.active == locality:
                self.fifo_write(locality, v, min(size, 4 - (offset & 3)))
            return IO_OK
        v <<= shift
        bits <<= shift
        if at == TPM_ACCESS:
            self.access_write(locality, v)
        elif at == TPM_INTERFACE_ID:
            if v & INTERFACE_SELECT_LOCK:
                for i in range(<uint32_t>LOCALITIES):
                    s.interface[i] |= INTERFACE_SELECT_LOCK
        elif s.active != locality:
            return IO_OK                                    # the rest is the active locality's
        elif at == TPM_INT_ENABLE:
            s.inte[locality] = s.inte[locality] & ~bits | v & (INT_GLOBAL | INT_POLARITY | INT_SUPPORTED)
        elif at == TPM_INT_STATUS:
            if v & s.ints[locality] & INT_SUPPORTED and not s.ints[locality] & ~v:
                self.set_line(0, False)
            s.ints[locality] &= ~(v & INT_SUPPORTED)
        elif at == TPM_STS:
            self.status_write(locality, v)
        return IO_OK

    # ------------------------------------------------------------------ localities

    cdef bint wanted_by_another(self, uint32_t locality) noexcept nogil:
        cdef uint32_t i
        for i in range(<uint32_t>LOCALITIES):
            if i != locality and self.s.access[i] & ACCESS_REQUEST_USE:
                return True
        return False

    cdef void access_write(self, uint32_t locality, uint32_t value) noexcept nogil:
        """PTP, TPM_ACCESS_x: give up, seize or request the locality."""
        cdef tis_state *s = self.s
        cdef uint8_t active = s.active, wanting = NO_LOCALITY
        cdef uint32_t i
        cdef bint settled = False
        if value & ACCESS_SEIZE:
            value &= ~<uint32_t>(ACCESS_REQUEST_USE | ACCESS_ACTIVE)
        if value & ACCESS_ACTIVE:
            if s.active == locality:
                for i in range(<uint32_t>LOCALITIES):       # the highest one that waits
                    if s.access[i] & ACCESS_REQUEST_USE:
                        wanting = <uint8_t>i
                if wanting != NO_LOCALITY:
                    settled = True
                    self.prepare_abort(<uint8_t>locality, wanting)
                else:
                    active = NO_LOCALITY
            else:
                s.access[locality] &= ~<uint8_t>ACCESS_REQUEST_USE
        if value & ACCESS_BEEN_SEIZED:
            s.access[locality] &= ~<uint8_t>ACCESS_BEEN_SEIZED
        if value & ACCESS_SEIZE and (s.active == NO_LOCALITY or locality > s.active):
            for i in range(locality, <uint32_t>LOCALITIES):
                if s.access[i] & ACCESS_SEIZE:
                    break                                   # this one or a higher one is at it already
            else:
                for i in range(locality):
                    s.access[i] &= ~<uint8_t>ACCESS_SEIZE
                s.access[locality] |= ACCESS_SEIZE
                settled = True
                self.prepare_abort(s.active, <uint8_t>locality)
        if value & ACCESS_REQUEST_USE and s.active != locality:
            if s.active != NO_LOCALITY:
                s.access[locality] |= ACCESS_REQUEST_USE
            else:
                active = <uint8_t>locality
        if not settled:
            self.activate(active)

    cdef void activate(self, uint8_t locality) noexcept nogil:
        """Make a locality, or none, the active one."""
        cdef tis_state *s = self.s
        cdef bint change = s.active != locality, seize
        if change and s.active != NO_LOCALITY:
            seize = locality != NO_LOCALITY and s.access[locality] & ACCESS_SEIZE
            s.access[s.active] &= ~<uint8_t>(ACCESS_ACTIVE if seize else ACCESS_ACTIVE | ACCESS_REQUEST_USE)
            if seize:
                s.access[s.active] |= ACCESS_BEEN_SEIZED
        s.active = locality
        if locality != NO_LOCALITY:
            s.access[locality] |= ACCESS_ACTIVE
            s.access[locality] &= ~<uint8_t>(ACCESS_REQUEST_USE | ACCESS_SEIZE)
        if change:
            self.interrupt_for(locality, INT_LOCALITY_CHANGE)

    cdef void prepare_abort(self, uint8_t locality, uint8_t then) noexcept nogil:
        """End what is under way for `locality`, after which `then` is active: at once, or when the TPM has answered."""
        cdef tis_state *s = self.s
        s.aborting = locality
        s.next = then
        if s.running != NO_LOCALITY:
            if self.backend is not None:
                self.backend.cancel()
            return
        self.abort()

    cdef void abort(self) noexcept nogil:
        cdef tis_state *s = self.s
        s.offset = 0
        if s.aborting == s.next and s.aborting != NO_LOCALITY:
            s.state[s.aborting] = STATE_READY
            self.set_status(s.aborting, STS_COMMAND_READY)
            self.interrupt_for(s.aborting, INT_COMMAND_READY)
        self.activate(s.next)
        s.aborting = s.next = NO_LOCALITY

    cdef void interrupt_for(self, uint32_t locality, uint32_t what) noexcept nogil:
        cdef tis_state *s = self.s
        if locality < LOCALITIES and s.inte[locality] & INT_GLOBAL and s.inte[locality] & what:
            self.set_line(0, True)
            s.ints[locality] |= what

    # ------------------------------------------------------------------ the state machine

    cdef void set_status(self, uint32_t locality, uint32_t flags) noexcept nogil:
        self.s.sts[locality] = self.s.sts[locality] & (STS_SELFTEST_DONE | STS_FAMILY_MASK) | flags

    cdef void status_write(self, uint32_t locality, uint32_t value) noexcept nogil:
        """PTP, TPM_STS_x; the state transition table of the FIFO."""
        cdef tis_state *s = self.s
        cdef uint8_t state = s.state[locality]
        if value & STS_CANCEL and state == STATE_EXECUTION and self.backend is not None:
            self.backend.cancel()
        if value & STS_RESET_ESTABLISHMENT and locality == 3 and self.backend is not None:
            self.backend.reset_established(<uint8_t>locality)
        value &= STS_COMMAND_READY | STS_GO | STS_RESPONSE_RETRY
        if value == STS_COMMAND_READY:
            if state == STATE_READY:
                s.offset = 0
            elif state == STATE_IDLE:
                self.set_status(locality, STS_COMMAND_READY)
                s.state[locality] = STATE_READY
                self.interrupt_for(locality, INT_COMMAND_READY)
            elif state == STATE_COMPLETION:
                s.offset = 0
                s.state[locality] = STATE_READY
                if not s.sts[locality] & STS_COMMAND_READY:
                    self.set_status(locality, STS_COMMAND_READY)
                    self.interrupt_for(locality, INT_COMMAND_READY)
                s.sts[locality] &= ~<uint32_t>STS_DATA_AVAILABLE
            else:
                self.prepare_abort(<uint8_t>locality, <uint8_t>locality)
        elif value == STS_GO:
            if state == STATE_RECEPTION and not s.sts[locality] & STS_EXPECT:
                s.state[locality] = STATE_EXECUTION
                s.running = <uint8_t>locality
                self.start(<uint8_t>locality, s.buffer, s.offset)
        elif value == STS_RESPONSE_RETRY and state == STATE_COMPLETION:
            s.offset = 0
            self.set_status(locality, STS_VALID | STS_DATA_AVAILABLE)

    cdef uint8_t fifo_read(self, uint32_t locality) noexcept nogil:
        cdef tis_state *s = self.s
        cdef uint8_t byte
        if not s.sts[locality] & STS_DATA_AVAILABLE or s.offset >= TPM_BUFFER:
            return NO_DATA
        byte = s.buffer[s.offset]
        s.offset += 1
        if s.offset >= min(message_size(s.buffer), self.buffer_size):
            self.set_status(locality, STS_VALID)            # that was the last one
            self.interrupt_for(locality, INT_STS_VALID)
        return byte

    cdef void fifo_write(self, uint32_t locality, uint32_t value, uint32_t size) noexcept nogil:
        """Bytes of a command, until there are as many as its header says."""
        cdef tis_state *s = self.s
        cdef bint pending
        if s.state[locality] == STATE_READY:
            s.state[locality] = STATE_RECEPTION
            self.set_status(locality, STS_EXPECT | STS_VALID)
        elif s.state[locality] != STATE_RECEPTION:
            return
        while s.sts[locality] & STS_EXPECT and size:
            if s.offset < self.buffer_size:
                s.buffer[s.offset] = <uint8_t>value
                s.offset += 1
                value >>= 8
                size -= 1
            else:
                self.set_status(locality, STS_VALID)
        if s.offset > 5 and s.sts[locality] & STS_EXPECT:
            pending = not s.sts[locality] & STS_VALID
            self.set_status(locality, STS_EXPECT | STS_VALID if (message_size(s.buffer) & 0xFFFF) > s.offset else STS_VALID)
            if pending:
                self.interrupt_for(locality, INT_STS_VALID)

    cdef void on_time(self) noexcept nogil:
        """The command that `running` started has been executed."""
        cdef tis_state *s = self.s
        cdef uint8_t locality = s.running
        s.running = NO_LOCALITY
        if locality >= LOCALITIES:
            return
        self.answer(s.buffer)
        self.set_status(locality, STS_VALID | STS_DATA_AVAILABLE)
        s.state[locality] = STATE_COMPLETION
        s.offset = 0
        if s.next != NO_LOCALITY:
            self.abort()
        self.interrupt_for(locality, INT_DATA_AVAILABLE | INT_STS_VALID)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """PTP, TPM_INIT: no locality is active, and the TPM starts anew.  The buffer keeps its bytes."""
        cdef tis_state *s = self.s
        cdef uint32_t i
        self.overwrite(s.ppi)
        self.failed = self.backend is not None and self.backend.startup() != 0
        s.active = s.aborting = s.next = s.running = NO_LOCALITY
        for i in range(<uint32_t>LOCALITIES):
            s.access[i] = ACCESS_VALID
            s.sts[i] = STS_FAMILY_2_0
            s.inte[i] = INT_LOW_LEVEL
            s.ints[i] = 0
            s.state[i] = STATE_IDLE
            s.interface[i] = INTERFACE_ID_2_0
        s.offset = 0
        self.core.deadline = NEVER
        self.set_line(0, False)

    def on_restore(self):
        """Every index inside its table, whatever was restored; a command under way then fails."""
        s = self.s
        s.offset = min(s.offset, TPM_BUFFER)
        s.active = s.active if s.active < LOCALITIES else NO_LOCALITY
        s.aborting = s.aborting if s.aborting < LOCALITIES else NO_LOCALITY
        s.next = s.next if s.next < LOCALITIES else NO_LOCALITY
        s.running = s.running if s.running < LOCALITIES else NO_LOCALITY


# ---------------------------------------------------------------------- the command response buffer


@cython.final
cdef class TpmCrb(Tpm):
    """The command response buffer interface, at FED40000h."""
    TITLE = "TPM, command response buffer interface (CRB)"
    REGISTERS = _CRB_REGISTERS
    OUT = ()
    STATE = (("regs", "u4", 32), ("ppi", "u1", PPI_SIZE), ("buffer", "u1", CRB_BUFFER_SIZE))

    def __init__(self, str id="tpm-crb", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.prepare(CRB_BUFFER_SIZE)
        self.s = <crb_state *>self.state_alloc(sizeof(crb_state))
        self.power_on()

    def regions(self):
        return (Region("tpm-crb", Space.MMIO, CRB_SIZE, (1, 2, 4, 8), (1, 4)),
                Region("tpm-ppi", Space.MMIO, PPI_SIZE, (1, 2, 4, 8), (1, 8)))

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef crb_state *s = self.s
        cdef uint32_t v
        value[0] = 0
        if region == PPI_REGION:
            if offset + size > PPI_SIZE:
                return IO_NO_REGISTER
            memcpy(value, s.ppi + offset, size)
        elif offset + size > CRB_SIZE:
            return IO_NO_REGISTER
        elif offset >= CRB_BUFFER:
            memcpy(value, s.buffer + offset - CRB_BUFFER, size)
        else:
            v = s.regs[offset >> 2] >> (8 * (offset & 3))
            if offset == LOC_STATE and not self.established():
                v |= LOC_STATE_ESTABLISHED
            value[0] = v
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """PTP, CRB interface; a register takes a write that begins at it, of any width."""
        cdef crb_state *s = self.s
        cdef uint32_t v = <uint32_t>value
        if region == PPI_REGION:
            if offset + size > PPI_SIZE:
                return IO_NO_REGISTER
            memcpy(s.ppi + offset, &value, size)
        elif offset + size > CRB_SIZE:
            return IO_NO_REGISTER
        elif offset >= CRB_BUFFER:
            memcpy(s.buffer + offset - CRB_BUFFER, &value, size)
        elif offset == CTRL_REQ:
            if v == REQ_COMMAND_READY:
                s.regs[CTRL_STS >> 2] &= ~<uint32_t>CTRL_STS_IDLE
            elif v == REQ_GO_IDLE:
                s.regs[CTRL_STS >> 2] |= CTRL_STS_IDLE
        elif offset == CTRL_CANCEL:
            if v == CANCEL and s.regs[CTRL_START >> 2] & START and self.backend is not None:
                self.backend.cancel()
        elif offset == CTRL_START:
            if v == START and not s.regs[CTRL_START >> 2] & START and s.regs[LOC_STATE >> 2] & LOC_STATE_ASSIGNED:
                s.regs[CTRL_START >> 2] |= START
                self.start(0, s.buffer, min(message_size(s.buffer), self.buffer_size))
        elif offset == LOC_CTRL:
            if v == LOC_CTRL_RELINQUISH:
                s.regs[LOC_STATE >> 2] &= ~<uint32_t>LOC_STATE_ASSIGNED
                s.regs[LOC_STS >> 2] &= ~<uint32_t>LOC_STS_GRANTED
            elif v == LOC_CTRL_REQUEST:
                s.regs[LOC_STS >> 2] = s.regs[LOC_STS >> 2] & ~<uint32_t>LOC_STS_BEEN_SEIZED | LOC_STS_GRANTED
                s.regs[LOC_STATE >> 2] |= LOC_STATE_ASSIGNED
        return IO_OK

    cdef void on_time(self) noexcept nogil:
        """The command has been executed."""
        self.s.regs[CTRL_START >> 2] &= ~<uint32_t>START
        if not self.answer(self.s.buffer):
            self.s.regs[CTRL_STS >> 2] |= CTRL_STS_FATAL

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """PTP, TPM_INIT.  The buffer is memory and keeps its bytes, or is overwritten with the rest of it."""
        cdef uint32_t *r = self.s.regs
        if self.overwrite(self.s.ppi):
            memset(self.s.buffer, 0, sizeof(self.s.buffer))
        self.failed = self.backend is not None and self.backend.startup() != 0
        memset(r, 0, sizeof(self.s.regs))
        r[LOC_STATE >> 2] = LOC_STATE_VALID
        r[CTRL_STS >> 2] = CTRL_STS_IDLE
        r[INTF_ID >> 2] = CRB_INTF_ID
        r[INTF_ID_2 >> 2] = CRB_INTF_ID_2
        r[CTRL_CMD_SIZE >> 2] = r[CTRL_RSP_SIZE >> 2] = CRB_BUFFER_SIZE
        r[CTRL_CMD_LADDR >> 2] = r[CTRL_RSP_ADDR >> 2] = CRB_AT + CRB_BUFFER
        self.core.deadline = NEVER
