"""Keyboard controller 8042 with a PS/2 keyboard and a PS/2 mouse behind it, and system control port A (92h).

Document: IBM Personal System/2 Hardware Interface Technical Reference, S84F-9808-00 ("PS/2 TR" below), its sections
"Keyboard and Auxiliary Device Controller", "Keyboards (101- and 102-Key)", "Auxiliary Device" (the mouse) and "System
Control Port A"; the wheel mouse: Microsoft IntelliMouse.  Modelled: the controller's commands, both interrupts, A20 and
reset by P2 and by port 92h, all keyboard and mouse commands, scan-code sets 1 to 3 with the translation to set 1, bytes
that wait while the host reads others.  Not modelled: the serial lines' own timing (a byte is there at once; input buffer
full, time-out and parity error are never seen), typematic repeat (the user's keyboard repeats), keyboard lock, password.
Deviations: docs/devices/i8042.md.  Called by the owning worker only.
"""
cimport cython
from libc.string cimport memset

from engine._abi cimport ENGINE_EFFECT_RESET
from engine._device cimport INPUT_AUX, INPUT_KEY, IO_OK, NEVER, RESET_BUS

from engine.types import RO, RW, WO, Region, Register, Space

cdef enum:
    THROTTLE_US = 1000      # with `throttle`: how long the controller listens before it gives the next keyboard byte

# PS/2 TR "Scan Code Translation": set 2 to set 1.  83h (F7) and 84h (Alt+SysRq) are the only ones beyond 7Fh.
cdef uint8_t SET1[128]
SET1[:] = [
    0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
    0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
    0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
    0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
    0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
    0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
]


cdef inline uint8_t translate(uint8_t code) noexcept nogil:
    """The byte of set 1 for a byte of set 2."""
    if code < 0x80:
        return SET1[code]
    if code == 0x83:
        return 0x41
    return 0x54 if code == 0x84 else code


cdef inline int32_t clamp(int32_t v, int32_t limit) noexcept nogil:
    return limit if v > limit else -limit if v < -limit else v


_REGISTERS = (
    Register("OBUF", 0, 8, RO, 0x00, 0, "empties the output buffer, ends its interrupt; the next byte moves up",
             "PS/2 TR: Output Buffer", region=REGION_DATA),
    Register("IBUF", 0, 8, WO, None, 0, "parameter of a controller command, or a byte for the keyboard",
             "PS/2 TR: Input Buffer", region=REGION_DATA),
    Register("STATUS", 0, 8, RO, STS_RESET, 0, "", "PS/2 TR: Status Register", region=REGION_CMD),
    Register("COMMAND", 0, 8, WO, None, 0, "executes a controller command", "PS/2 TR: Controller Commands",
             region=REGION_CMD),
    Register("PORT92", 0, 8, RW, 0x00, 0xFF, "bit 1 is A20; bit 0, when it rises, resets",
             "PS/2 TR: System Control Port A", region=REGION_PORT92),
)


@cython.final
cdef class I8042(Device):
    """The controller and both of its devices.

    Inputs, each with pin 0 or 1: KEY pin 0 gives the host `value` as the keyboard's next byte; pin 1 is a byte of the
    current scan-code set as the key sends it: not taken while scanning is off, and translated if the command byte says
    so.  AUX pin 0 gives the host `value` as the mouse's next byte; pin 1 is a motion: dx in bits 15..0, dy (up is
    positive) in 31..16, dz in 47..32, all signed, and the buttons (left, right, middle, 4, 5) in 55..48.
    """
    TITLE = "8042: keyboard controller with PS/2 keyboard and mouse, port 92h"
    OUT = ("kbd_irq", "aux_irq", "a20", "reset")
    CONFIG = {"throttle": False}
    REGISTERS = _REGISTERS
    STATE = (
        ("mouse_dx", "i4"), ("mouse_dy", "i4"), ("mouse_dz", "i4"), ("count", "u2", 2), ("first", "u1", 2),
        ("answers", "u1", 2), ("expects", "u1", 2), ("queue", "u1", 512), ("command", "u1"), ("status", "u1"),
        ("mode", "u1"), ("outport", "u1"), ("pending", "u1"), ("source", "u1"), ("obuf", "u1"), ("answer", "u1"),
        ("port92", "u1"), ("scanning", "u1"), ("scan_set", "u1"), ("leds", "u1"), ("break_next", "u1"),
        ("mouse_status", "u1"), ("mouse_resolution", "u1"), ("mouse_rate", "u1"), ("mouse_wrap", "u1"),
        ("mouse_type", "u1"), ("mouse_knock", "u1"), ("mouse_buttons", "u1"))

    def __init__(self, str id="kbc", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.throttle = self.config["throttle"]
        self.s = <i8042_state *>self.state_alloc(sizeof(i8042_state))
        self.power_on()

    def regions(self):
        """Data (the output port is written through it), status and command, port 92h: each can reset and move A20."""
        return (Region("i8042-data", Space.PIO, 1, implements=(1, 1), barrier=True),
                Region("i8042-cmd", Space.PIO, 1, implements=(1, 1), barrier=True),
                Region("port92", Space.PIO, 1, implements=(1, 1), barrier=True))

    def on_restore(self):
        """Hold what counts queue bytes in range."""
        for port in range(2):
            self.s.count[port] = min(self.s.count[port], QUEUE - 1)
            self.s.answers[port] = min(self.s.answers[port], self.s.count[port])

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region == REGION_DATA:
            value[0] = self.read_data()
        elif region == REGION_CMD:
            value[0] = self.s.status
        else:
            value[0] = self.s.port92
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == REGION_DATA:
            self.write_data(<uint8_t>value)
        elif region == REGION_CMD:
            self.write_command(<uint8_t>value)
        else:
            self.write_port92(<uint8_t>value)
        return IO_OK

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_KEY:
            if pin == INPUT_RAW:
                self.send(KBD, <uint8_t>value)
            elif self.s.scanning:
                self.key(<uint8_t>value)
        elif kind == INPUT_AUX:
            if pin == INPUT_RAW:
                self.send(AUX, <uint8_t>value)
            elif self.s.mouse_status & MST_ENABLED:
                self.motion(value)
        return 0

    cdef void on_time(self) noexcept nogil:
        # The throttle's pause is over.
        if self.ready():
            self.fill()

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        # Both devices run their self tests with the controller; the answers (AAh, AAh 00h) are gone before a host asks.
        # Of port 92h a bus reset clears bit 0 alone, as in the reference.
        cdef uint8_t port92 = self.s.port92 & 0xFE if kind == RESET_BUS else 0
        memset(<uint8_t *>self.s + sizeof(device_core), 0, sizeof(i8042_state) - sizeof(device_core))
        self.s.mode = MODE_RESET
        self.s.status = STS_RESET
        self.s.outport = OUT_AT_RESET
        self.s.scanning = 1
        self.s.scan_set = 2
        self.s.port92 = port92
        self.core.deadline = NEVER
        self.update_irq()
        self.set_line(PIN_A20, True)

    # ------------------------------------------------------------------ output buffer and interrupts

    cdef void update_irq(self) noexcept nogil:
        """A full output buffer interrupts for the device that it came from.  The keyboard's interrupt also waits until
        its interface is enabled."""
        cdef uint8_t status = self.s.status, mode = self.s.mode
        self.set_line(PIN_KBD_IRQ, (status & (STS_OBF | STS_AUX_OBF)) == STS_OBF and
                      (mode & (MODE_KBD_INT | MODE_KBD_DISABLE)) == MODE_KBD_INT)
        self.set_line(PIN_AUX_IRQ, (status & (STS_OBF | STS_AUX_OBF)) == STS_OBF | STS_AUX_OBF and
                      (mode & MODE_AUX_INT) != 0)

    cdef uint8_t ready(self) noexcept nogil:
        """The sources that have a byte and whose interface is enabled."""
        return self.s.pending & ~(self.s.mode & (MODE_KBD_DISABLE | MODE_AUX_DISABLE))

    cdef void fill(self) noexcept nogil:
        """Fill the output buffer from the first of: controller, keyboard, mouse; empty it if none is ready."""
        cdef uint8_t ready = self.ready()
        self.s.status &= ~(STS_OBF | STS_AUX_OBF)
        self.s.outport &= ~(OUT_KBD_OBF | OUT_AUX_OBF)
        if ready:
            self.s.source = (SRC_CTRL if ready & SRC_CTRL else SRC_CTRL_AUX if ready & SRC_CTRL_AUX else
                             SRC_KBD if ready & SRC_KBD else SRC_AUX)
            self.s.status |= STS_OBF
            self.s.outport |= OUT_KBD_OBF
            if self.s.source & (SRC_CTRL_AUX | SRC_AUX):
                self.s.status |= STS_AUX_OBF
                self.s.outport |= OUT_AUX_OBF
        self.update_irq()

    cdef void offer(self) noexcept nogil:
        """Fill the output buffer if it is free and no pause runs: a byte in it is never replaced."""
        if not self.s.status & STS_OBF and self.core.deadline == NEVER and self.ready():
            self.fill()

    cdef uint8_t read_data(self) noexcept nogil:
        if self.s.status & STS_OBF:
            self.s.status &= ~(STS_OBF | STS_AUX_OBF)
            self.s.outport &= ~(OUT_KBD_OBF | OUT_AUX_OBF)
            self.update_irq()
            if self.s.source == SRC_KBD:
                if self.throttle:
                    self.set_deadline((self.core.now // 1000 + THROTTLE_US) * 1000)
                self.s.obuf = self.take(KBD)
            elif self.s.source == SRC_AUX:
                self.s.obuf = self.take(AUX)
            else:
                self.s.obuf = self.s.answer
                self.s.pending &= ~(SRC_CTRL | SRC_CTRL_AUX)
                if self.ready():
                    self.fill()
        return self.s.obuf

    # ------------------------------------------------------------------ controller commands

    cdef void write_command(self, uint8_t v) noexcept nogil:
        if v >= CC_PULSE:
            if not v & OUT_RESET:         # the other three outputs have nothing behind them
                self.emit(ENGINE_EFFECT_RESET, PIN_RESET, 0, RESET_BUS)
        elif v == CC_READ_MODE:
            self.say(self.s.mode, False)
        elif v in (CC_WRITE_MODE, CC_WRITE_OUTPORT, CC_WRITE_OBUF, CC_WRITE_AUX_OBUF, CC_WRITE_AUX):
            self.s.command = v
        elif v == CC_AUX_DISABLE:
            self.s.mode |= MODE_AUX_DISABLE
        elif v == CC_AUX_ENABLE:
            self.s.mode &= ~MODE_AUX_DISABLE
            self.offer()
        elif v == CC_SELF_TEST:
            self.s.status |= STS_SYS
            self.say(0x55, False)
        elif v == CC_AUX_TEST or v == CC_KBD_TEST:
            self.say(0x00, False)         # no error on either interface
        elif v == CC_KBD_DISABLE:
            self.s.mode |= MODE_KBD_DISABLE
        elif v == CC_KBD_ENABLE:
            self.s.mode &= ~MODE_KBD_DISABLE
            self.offer()
        elif v == CC_READ_INPORT:
            self.say(0x80, False)         # keyboard not locked
        elif v == CC_READ_OUTPORT:
            self.say(self.s.outport, False)
        elif v == CC_A20_OFF:
            self.s.outport &= ~OUT_A20
            self.set_line(PIN_A20, False)
        elif v == CC_A20_ON:
            self.s.outport |= OUT_A20
            self.set_line(PIN_A20, True)

    cdef void write_data(self, uint8_t v) noexcept nogil:
        cdef uint8_t command = self.s.command
        self.s.command = 0
        if command == 0:
            self.kbd_write(v)
            self.s.mode &= ~MODE_KBD_DISABLE      # a byte for the keyboard enables its interface
            self.offer()
        elif command == CC_WRITE_AUX:
            self.mouse_write(v)
            self.s.mode &= ~MODE_AUX_DISABLE
            self.offer()
        elif command == CC_WRITE_MODE:
            self.s.mode = v
            self.update_irq()
            self.offer()
        elif command == CC_WRITE_OUTPORT:
            self.write_outport(v)
        else:
            self.say(v, command == CC_WRITE_AUX_OBUF)

    cdef void write_outport(self, uint8_t v) noexcept nogil:
        self.s.outport = v
        self.set_line(PIN_A20, (v & OUT_A20) != 0)
        if not v & OUT_RESET:
            self.emit(ENGINE_EFFECT_RESET, PIN_RESET, 0, RESET_BUS)

    cdef void write_port92(self, uint8_t v) noexcept nogil:
        cdef bint reset = (v & ~self.s.port92 & 1) != 0
        self.s.port92 = v
        self.set_line(PIN_A20, v >> 1 & 1)
        if reset:
            self.emit(ENGINE_EFFECT_RESET, PIN_RESET, 0, RESET_BUS)

    cdef void say(self, uint8_t v, bint aux) noexcept nogil:
        """Make v the controller's answer; it replaces one that was not read."""
        self.s.answer = v
        self.s.pending = self.s.pending & ~(SRC_CTRL | SRC_CTRL_AUX) | (SRC_CTRL_AUX if aux else SRC_CTRL)
        self.offer()

    # ------------------------------------------------------------------ queues of the two devices

    cdef void has_data(self, int port, bint level) noexcept nogil:
        cdef uint8_t bit = SRC_KBD if port == KBD else SRC_AUX
        self.s.pending = self.s.pending | bit if level else self.s.pending & ~bit
        self.offer()

    cdef void put(self, int port, uint8_t v) noexcept nogil:
        """Append a byte; a full device drops it."""
        if self.s.count[port] < QUEUE_LIMIT:
            self.s.queue[port * QUEUE + ((self.s.first[port] + self.s.count[port]) & (QUEUE - 1))] = v
            self.s.count[port] += 1

    cdef void send(self, int port, uint8_t v) noexcept nogil:
        if self.s.count[port] < QUEUE_LIMIT:
            self.put(port, v)
            self.has_data(port, True)

    cdef uint8_t take(self, int port) noexcept nogil:
        """The device's next byte.  Its request drops for a moment, in which the other device may get the buffer."""
        cdef uint8_t v
        if self.s.count[port] == 0:
            return self.s.queue[port * QUEUE + <uint8_t>(self.s.first[port] - 1)]
        v = self.s.queue[port * QUEUE + self.s.first[port]]
        self.s.first[port] += 1
        self.s.count[port] -= 1
        if self.s.answers[port]:
            self.s.answers[port] -= 1
        self.has_data(port, False)
        if self.s.count[port]:
            self.has_data(port, True)
        return v

    cdef void clear_queue(self, int port) noexcept nogil:
        self.s.count[port] = self.s.answers[port] = 0

    # ------------------------------------------------------------------ keyboard

    cdef void reply(self, uint32_t n, uint8_t a, uint8_t b, uint8_t c) noexcept nogil:
        """The keyboard answers with n bytes, ahead of the scan codes that wait."""
        cdef uint8_t *q = &self.s.queue[KBD * QUEUE]
        cdef uint8_t at = <uint8_t>(self.s.first[KBD] - n)
        self.s.first[KBD] = at
        q[at] = a
        if n > 1:
            q[<uint8_t>(at + 1)] = b
        if n > 2:
            q[<uint8_t>(at + 2)] = c
        self.s.count[KBD] += n
        self.s.answers[KBD] = n
        self.has_data(KBD, True)

    cdef void kbd_defaults(self) noexcept nogil:
        self.s.scanning = 1
        self.s.scan_set = 2
        self.s.leds = 0
        self.clear_queue(KBD)

    cdef void kbd_write(self, uint8_t v) noexcept nogil:
        # What is left of the previous answer is dropped (PS/2 TR "Keyboard Commands": a command may interrupt output).
        self.s.first[KBD] += self.s.answers[KBD]
        self.s.count[KBD] -= self.s.answers[KBD]
        self.s.answers[KBD] = 0
        if self.s.expects[KBD]:
            self.kbd_parameter(v)
        elif v in (KC_LEDS, KC_SCAN_SET, KC_TYPEMATIC, KC_KEY_MAKE_BREAK):
            self.s.expects[KBD] = v
            self.reply(1, ANS_ACK, 0, 0)
        elif v == KC_ECHO:
            self.reply(1, KC_ECHO, 0, 0)
        elif v == KC_ID:
            self.reply(3, ANS_ACK, KBD_ID, translate(KBD_ID2) if self.s.mode & MODE_TRANSLATE else KBD_ID2)
        elif v == KC_ENABLE:
            self.s.scanning = 1
            self.reply(1, ANS_ACK, 0, 0)
        elif v == KC_DISABLE or v == KC_DEFAULTS:
            self.kbd_defaults()
            self.s.scanning = v == KC_DEFAULTS
            self.reply(1, ANS_ACK, 0, 0)
        elif v == KC_RESET:
            self.kbd_defaults()
            self.reply(2, ANS_ACK, ANS_BAT, 0)
        elif v == KC_ALL_TYPEMATIC or v == 0x00:      # 00h: no command; guests that probe get an acknowledge
            self.reply(1, ANS_ACK, 0, 0)
        else:
            self.reply(1, ANS_RESEND, 0, 0)

    cdef void kbd_parameter(self, uint8_t v) noexcept nogil:
        cdef uint8_t command = self.s.expects[KBD], scan_set = self.s.scan_set
        self.s.expects[KBD] = 0
        if command == KC_LEDS:
            self.s.leds = v
        elif command == KC_SCAN_SET:
            if v == 0:
                self.reply(2, ANS_ACK, translate(scan_set) if self.s.mode & MODE_TRANSLATE else scan_set, 0)
                return
            if v > 3:
                self.reply(1, ANS_RESEND, 0, 0)
                return
            self.s.scan_set = v
        self.reply(1, ANS_ACK, 0, 0)

    cdef void key(self, uint8_t v) noexcept nogil:
        """One byte of a key's scan code on its way through the controller."""
        if not self.s.mode & MODE_TRANSLATE:
            self.send(KBD, v)
        elif v == BREAK_PREFIX:
            self.s.break_next = 1
        else:
            self.send(KBD, translate(v) | self.s.break_next << 7)
            self.s.break_next = 0

    # ------------------------------------------------------------------ mouse

    cdef void mouse_defaults(self) noexcept nogil:
        self.s.mouse_rate = 100
        self.s.mouse_resolution = 2               # 4 counts a millimetre
        self.s.mouse_status = 0                   # stream mode, disabled, scaling 1:1

    cdef void mouse_write(self, uint8_t v) noexcept nogil:
        if self.s.expects[AUX]:
            self.mouse_parameter(v)
            return
        if self.s.mouse_wrap and v != MC_RESET:
            if v == MC_UNWRAP:
                self.s.mouse_wrap = 0
                v = ANS_ACK
            self.send(AUX, v)
            return
        if v == MC_SCALE_1:
            self.s.mouse_status &= ~MST_SCALE_2
        elif v == MC_SCALE_2:
            self.s.mouse_status |= MST_SCALE_2
        elif v == MC_STREAM:
            self.s.mouse_status &= ~MST_REMOTE
        elif v == MC_REMOTE:
            self.s.mouse_status |= MST_REMOTE
        elif v == MC_ENABLE:
            self.s.mouse_status |= MST_ENABLED
        elif v == MC_DISABLE:
            self.s.mouse_status &= ~MST_ENABLED
        elif v == MC_WRAP:
            self.s.mouse_wrap = 1
        elif v == MC_RESOLUTION or v == MC_RATE:
            self.s.expects[AUX] = v
        elif v == MC_DEFAULTS:
            self.mouse_defaults()
        elif v == MC_RESET:
            self.mouse_defaults()
            self.s.mouse_type = MOUSE_PS2
            self.clear_queue(AUX)
        elif v not in (MC_STATUS, MC_READ, MC_TYPE):
            return                                # unknown: the reference says nothing, a real mouse FEh
        # An answer comes whole or not at all.
        if v == MC_RESET or v == MC_TYPE or v == MC_STATUS:
            if self.s.count[AUX] + (4 if v == MC_STATUS else 3 if v == MC_RESET else 2) > QUEUE_LIMIT:
                return
        self.put(AUX, ANS_ACK)
        if v == MC_RESET:
            self.put(AUX, ANS_BAT)
            self.put(AUX, self.s.mouse_type)
        elif v == MC_TYPE:
            self.put(AUX, self.s.mouse_type)
        elif v == MC_STATUS:
            self.put(AUX, self.s.mouse_status)
            self.put(AUX, self.s.mouse_resolution)
            self.put(AUX, self.s.mouse_rate)
        self.has_data(AUX, True)
        if v == MC_READ:
            self.mouse_packet()

    cdef void mouse_parameter(self, uint8_t v) noexcept nogil:
        if self.s.expects[AUX] == MC_RESOLUTION:
            self.s.mouse_resolution = v
        else:
            # Rates 200, 100, 80 in a row make a wheel mouse of it; 200, 200, 80 one with five buttons.
            self.s.mouse_rate = v
            if self.s.mouse_knock == 0:
                self.s.mouse_knock = v == 200
            elif self.s.mouse_knock == 1:
                self.s.mouse_knock = 2 if v == 100 else 3 if v == 200 else 0
            else:
                if v == 80:
                    self.s.mouse_type = MOUSE_WHEEL if self.s.mouse_knock == 2 else MOUSE_BUTTONS
                self.s.mouse_knock = 0
        self.s.expects[AUX] = 0
        self.send(AUX, ANS_ACK)

    cdef bint mouse_packet(self) noexcept nogil:
        """Report what moved, as far as one packet holds it.  False if the queue has no room for a packet."""
        cdef int32_t dx = clamp(self.s.mouse_dx, 127), dy = clamp(self.s.mouse_dy, 127), dz = 0
        if self.s.count[AUX] + (4 if self.s.mouse_type else 3) > QUEUE_LIMIT:
            return False
        self.put(AUX, 0x08 | (dx < 0) << 4 | (dy < 0) << 5 | self.s.mouse_buttons & 7)
        self.put(AUX, <uint8_t>dx)
        self.put(AUX, <uint8_t>dy)
        if self.s.mouse_type == MOUSE_WHEEL:
            dz = clamp(self.s.mouse_dz, 127)
            self.put(AUX, <uint8_t>dz)
        elif self.s.mouse_type == MOUSE_BUTTONS:
            dz = clamp(self.s.mouse_dz, 7)
            self.put(AUX, dz & 0x0F | (self.s.mouse_buttons & 0x18) << 1)
        else:
            dz = self.s.mouse_dz                  # there is no wheel
        self.s.mouse_dx -= dx
        self.s.mouse_dy -= dy
        self.s.mouse_dz -= dz
        self.has_data(AUX, True)
        return True

    cdef void motion(self, uint64_t v) noexcept nogil:
        """The user moved or clicked: add it up; in stream mode, report all of it that fits."""
        self.s.mouse_dx = clamp(self.s.mouse_dx + <int16_t>(v & 0xFFFF), 1 << 24)
        self.s.mouse_dy = clamp(self.s.mouse_dy + <int16_t>(v >> 16 & 0xFFFF), 1 << 24)
        self.s.mouse_dz = clamp(self.s.mouse_dz + <int16_t>(v >> 32 & 0xFFFF), 1 << 24)
        self.s.mouse_buttons = <uint8_t>(v >> 48 & 0x1F)
        if not self.s.mouse_status & MST_REMOTE:
            while self.mouse_packet() and (self.s.mouse_dx or self.s.mouse_dy or self.s.mouse_dz):
                pass
