"""The PC's interrupt controllers: two 8259A, cascaded at IR2, and the edge/level control registers of the PIIX3.

Documents: Intel 8259A/8259A-2 data sheet, 231468-003; 82371FB/82371SB (PIIX/PIIX3) data sheet, 290550-002, sections
2.5.3 and 3.8.  Modelled: initialisation, priority and its rotation, every kind of end of interrupt, special mask and
special fully nested mode, polling, edge and level requests, spurious requests.  Not modelled: the 8080 call mode,
buffered mode, wirings of the cascade other than the PC's, and LTIM, which the PIIX3 replaces with the ELCRs.  Deviations:
docs/devices/i8259.md.  Called by the owning worker only.
"""
cimport cython

from engine._device cimport INPUT_INTACK, INPUT_LINE, IO_OK, NEVER, RESET_BUS

from engine.types import RO, RW, WO, Region, Register, Space


cdef inline uint32_t first_ir(uint32_t mask, uint32_t top) noexcept nogil:
    """Place of the first set bit of an 8-bit mask, counted from bit `top` upwards and round; NO_IR if there is none."""
    cdef uint32_t place = 0
    if mask == 0:
        return NO_IR
    while not mask >> ((top + place) & 7) & 1:
        place += 1
    return place


_STATE = (("reset_at", "u8"),) + tuple((name, "u1", 2) for name in (
    "irr", "isr", "imr", "sensed", "elcr", "base", "icw1", "icw4", "step", "top", "rotate_aeoi", "smm", "read_isr", "poll"))

_REGISTERS = tuple(
    r for n in (PIC0, PIC1) for r in (
        Register(f"ICW1.{n}", ICW1, 8, WO, None, 0, "starts initialisation, forgets edge requests",
                 "8259A: Initialization Command Words 1 and 2", region=n),
        Register(f"OCW2.{n}", OCW2, 8, WO, None, 0, "ends an interrupt, rotates priorities",
                 "8259A: Operation Control Word 2", region=n),
        Register(f"OCW3.{n}", OCW3, 8, WO, None, 0, "special mask, poll, choice of what offset 0 reads",
                 "8259A: Operation Control Word 3", region=n),
        Register(f"IRR.{n}", IRR, 8, RO, 0x00, 0, "after a poll command it acknowledges",
                 "8259A: Reading the 8259A Status; Poll Command", region=n),
        Register(f"OCW1.{n}", OCW1, 8, RW, 0x00, 0xFF, "after ICW1 the next writes are ICW2 to ICW4",
                 "8259A: Operation Control Word 1", region=n),
    )
) + (
    Register("ELCR1", 0, 8, RW, 0x00, ELCR0_WMASK, "", "290550 2.5.3.9", region=ELCR0),
    Register("ELCR2", 0, 8, RW, 0x00, ELCR1_WMASK, "", "290550 2.5.3.10", region=ELCR1),
)


@cython.final
cdef class I8259(Device):
    """The master and slave 8259A with ELCR1 and ELCR2.  Input ir2 does not exist: the slave has that pin."""
    TITLE = "8259A pair: interrupt controllers with edge/level control"
    IN = ("ir0", "ir1", "ir2", "ir3", "ir4", "ir5", "ir6", "ir7",
          "ir8", "ir9", "ir10", "ir11", "ir12", "ir13", "ir14", "ir15")
    OUT = ("int",)
    STATE = _STATE
    REGISTERS = _REGISTERS

    def __init__(self, str id="pic", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.s = <i8259_state *>self.state_alloc(sizeof(i8259_state))
        self.power_on()

    def regions(self):
        """Both chips' two ports, and each ELCR."""
        return (Region("pic0", Space.PIO, 2, implements=(1, 1), strings=True),
                Region("pic1", Space.PIO, 2, implements=(1, 1), strings=True),
                Region("elcr0", Space.PIO, 1, implements=(1, 1)), Region("elcr1", Space.PIO, 1, implements=(1, 1)))

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region >= ELCR0:
            value[0] = self.s.elcr[region - ELCR0]
        elif self.s.poll[region]:
            value[0] = self.poll_byte(region)
        elif offset:                     # OCW1; behind the second port too, as wide accesses reach it
            value[0] = self.s.imr[region]
        elif self.s.read_isr[region]:
            value[0] = self.s.isr[region]
        else:
            value[0] = self.s.irr[region]
        return IO_OK

    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil:
        return 0 if write or region < ELCR0 and self.s.poll[region] else NEVER

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint8_t v = <uint8_t>value
        if region >= ELCR0:
            # Takes effect at the next change of each line, as in the reference; 290550 2.5.3.9 does not say.
            self.s.elcr[region - ELCR0] = v & (ELCR0_WMASK if region == ELCR0 else ELCR1_WMASK)
        elif offset:
            self.write_data(region, v)
        elif v & ICW1_SELECT:
            self.write_icw1(region, v)
        elif v & OCW3_SELECT:
            self.write_ocw3(region, v)
        else:
            self.write_ocw2(region, v)
        return IO_OK

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_INTACK:
            return self.acknowledge()
        if kind == INPUT_LINE and pin < 16 and pin != CASCADE:
            self.sense(pin >> 3, pin & 7, value != 0)
            self.update_irq(pin >> 3)
        return ~<uint64_t>0

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        # 290550 3.8: the ELCRs become 00h.  The rest is undefined until ICW1; here it is as after one.
        self.s.elcr[0] = self.s.elcr[1] = 0
        self.s.reset_at = self.core.now if kind == RESET_BUS else NEVER
        self.initialise(1)
        self.initialise(0)

    # ------------------------------------------------------------------ requests and priority

    cdef uint32_t request(self, uint32_t chip) noexcept nogil:
        """The IR that the priority resolver lets through, or NO_IR."""
        cdef i8259_state *s = self.s
        cdef uint32_t serving = s.isr[chip], place = first_ir(s.irr[chip] & ~s.imr[chip], s.top[chip])
        if s.smm[chip]:
            serving &= ~<uint32_t>s.imr[chip]
        if chip == 0 and s.icw4[0] & ICW4_SFNM:
            serving &= ~<uint32_t>(1 << CASCADE)
        if place < first_ir(serving, s.top[chip]):
            return (place + s.top[chip]) & 7
        return NO_IR

    cdef void sense(self, uint32_t chip, uint32_t ir, bint level) noexcept nogil:
        """The level of one request input, latched as its edge or level detector does.  An edge that a reset makes in other
        parts is none: this one is under the same reset."""
        cdef i8259_state *s = self.s
        cdef uint8_t bit = <uint8_t>(1 << ir)
        if level:
            if s.elcr[chip] & bit or not (s.sensed[chip] & bit or self.core.now == s.reset_at):
                s.irr[chip] |= bit
            s.sensed[chip] |= bit
        else:
            if s.elcr[chip] & bit:
                s.irr[chip] &= ~bit
            s.sensed[chip] &= ~bit

    cdef void update_irq(self, uint32_t chip) noexcept nogil:
        """INT of the chip, and of the master behind a slave."""
        if chip:
            self.sense(0, CASCADE, self.request(1) != NO_IR)
        self.set_line(0, self.request(0) != NO_IR)

    cdef void take(self, uint32_t chip, uint32_t ir) noexcept nogil:
        """The first INTA pulse: the request becomes an interrupt in service.  A level request stays in the IRR."""
        cdef i8259_state *s = self.s
        if not s.icw4[chip] & ICW4_AEOI:
            s.isr[chip] |= <uint8_t>(1 << ir)
        elif s.rotate_aeoi[chip]:
            s.top[chip] = (ir + 1) & 7
        if not s.elcr[chip] >> ir & 1:
            s.irr[chip] &= ~<uint8_t>(1 << ir)
        self.update_irq(chip)

    cdef uint32_t acknowledge(self) noexcept nogil:
        """Both INTA pulses of the pair; the vector.  8259A: Interrupt Sequence."""
        cdef uint32_t ir = self.request(0), chip = 0, at = ir
        if ir == NO_IR:
            return self.s.base[0] + DEFAULT_IR
        if ir == CASCADE:
            chip = 1
            at = self.request(1)
            if at == NO_IR:
                at = DEFAULT_IR
            else:
                self.take(1, at)
        self.take(0, ir)
        return self.s.base[chip] + at

    cdef uint8_t poll_byte(self, uint32_t chip) noexcept nogil:
        """The read that follows a poll command: acknowledges this chip alone.  8259A: Poll Command."""
        cdef uint32_t ir = self.request(chip)
        self.s.poll[chip] = 0
        if ir == NO_IR:
            return 0
        self.take(chip, ir)
        return <uint8_t>(0x80 | ir)

    # ------------------------------------------------------------------ command words

    cdef void initialise(self, uint32_t chip) noexcept nogil:
        """8259A: Initialization Command Words: what happens by itself.  Level requests that are still there remain."""
        cdef i8259_state *s = self.s
        s.irr[chip] &= s.elcr[chip]
        s.isr[chip] = s.imr[chip] = s.sensed[chip] = s.base[chip] = s.icw1[chip] = s.icw4[chip] = 0
        s.step[chip] = s.top[chip] = s.rotate_aeoi[chip] = s.smm[chip] = s.read_isr[chip] = s.poll[chip] = 0
        self.update_irq(chip)

    cdef void write_icw1(self, uint32_t chip, uint8_t value) noexcept nogil:
        self.initialise(chip)
        self.s.icw1[chip] = value & (ICW1_IC4 | ICW1_SNGL)
        self.s.step[chip] = STEP_ICW2

    cdef void write_ocw2(self, uint32_t chip, uint8_t value) noexcept nogil:
        cdef i8259_state *s = self.s
        cdef uint32_t command = value >> OCW2_SHIFT, ir = value & OCW2_LEVEL, place
        if command == EOI or command == ROTATE_EOI:
            place = first_ir(s.isr[chip], s.top[chip])
            if place == NO_IR:
                return
            ir = (place + s.top[chip]) & 7
        if command == CLEAR_ROTATE_AEOI or command == SET_ROTATE_AEOI:
            s.rotate_aeoi[chip] = command == SET_ROTATE_AEOI
            return
        if command == NO_OPERATION:
            return
        if command != SET_PRIORITY:
            s.isr[chip] &= ~<uint8_t>(1 << ir)
        if command == ROTATE_EOI or command == ROTATE_SPECIFIC_EOI or command == SET_PRIORITY:
            s.top[chip] = (ir + 1) & 7
        self.update_irq(chip)

    cdef void write_ocw3(self, uint32_t chip, uint8_t value) noexcept nogil:
        cdef i8259_state *s = self.s
        if value & OCW3_P:
            s.poll[chip] = 1
        if value & OCW3_RR:
            s.read_isr[chip] = value & OCW3_RIS
        if value & OCW3_ESMM:        # INT follows at the chip's next event, as in the reference
            s.smm[chip] = value & OCW3_SMM != 0

    cdef void write_data(self, uint32_t chip, uint8_t value) noexcept nogil:
        """OCW1, or the initialisation command word that is next."""
        cdef i8259_state *s = self.s
        cdef uint8_t step = s.step[chip]
        cdef uint8_t after_icw3 = STEP_ICW4 if s.icw1[chip] & ICW1_IC4 else STEP_OCW1
        if step == STEP_OCW1:
            s.imr[chip] = value
            self.update_irq(chip)
        elif step == STEP_ICW2:
            s.base[chip] = value & ICW2_BASE
            s.step[chip] = after_icw3 if s.icw1[chip] & ICW1_SNGL else STEP_ICW3
        elif step == STEP_ICW3:      # the cascade is wired: its value changes nothing
            s.step[chip] = after_icw3
        else:
            s.icw4[chip] = value & ICW4_KEPT
            s.step[chip] = STEP_OCW1
