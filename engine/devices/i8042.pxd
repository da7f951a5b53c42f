"""Keyboard controller 8042 with PS/2 keyboard and mouse, and port 92h.

Names: IBM Personal System/2 Hardware Interface Technical Reference (S84F-9808-00), "Keyboard and Auxiliary Device
Controller", "Keyboards", "Auxiliary devices", "System Control Port A".
"""
from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                  # regions
    REGION_DATA = 0         # 60h  read: output buffer; write: parameter of a controller command, else to the keyboard
    REGION_CMD = 1          # 64h  read: status; write: controller command
    REGION_PORT92 = 2       # 92h  system control port A

cdef enum:                  # output pins
    PIN_KBD_IRQ = 0
    PIN_AUX_IRQ = 1
    PIN_A20 = 2
    PIN_RESET = 3

cdef enum:                  # status register
    STS_OBF = 0x01          # output buffer full
    STS_IBF = 0x02          # input buffer full (never seen: commands finish at once)
    STS_SYS = 0x04          # self test passed
    STS_CMD = 0x08          # last write was a command
    STS_UNLOCKED = 0x10     # keyboard not inhibited
    STS_AUX_OBF = 0x20      # the output buffer's byte is the mouse's
    STS_RESET = STS_CMD | STS_UNLOCKED

cdef enum:                  # controller command byte ("mode")
    MODE_KBD_INT = 0x01     # keyboard byte interrupts (IRQ 1)
    MODE_AUX_INT = 0x02     # mouse byte interrupts (IRQ 12)
    MODE_SYS = 0x04
    MODE_KBD_DISABLE = 0x10
    MODE_AUX_DISABLE = 0x20
    MODE_TRANSLATE = 0x40   # scan codes of set 2 become set 1
    MODE_RESET = MODE_KBD_INT | MODE_AUX_INT

cdef enum:                  # output port P2
    OUT_RESET = 0x01        # 0 resets the processor
    OUT_A20 = 0x02
    OUT_KBD_OBF = 0x10
    OUT_AUX_OBF = 0x20
    OUT_ONES = 0xCC         # pins without a function here, high
    OUT_AT_RESET = OUT_RESET | OUT_A20 | OUT_ONES

cdef enum:                  # controller commands
    CC_READ_MODE = 0x20
    CC_WRITE_MODE = 0x60
    CC_AUX_DISABLE = 0xA7
    CC_AUX_ENABLE = 0xA8
    CC_AUX_TEST = 0xA9
    CC_SELF_TEST = 0xAA
    CC_KBD_TEST = 0xAB
    CC_KBD_DISABLE = 0xAD
    CC_KBD_ENABLE = 0xAE
    CC_READ_INPORT = 0xC0
    CC_READ_OUTPORT = 0xD0
    CC_WRITE_OUTPORT = 0xD1
    CC_WRITE_OBUF = 0xD2
    CC_WRITE_AUX_OBUF = 0xD3
    CC_WRITE_AUX = 0xD4
    CC_A20_OFF = 0xDD
    CC_A20_ON = 0xDF
    CC_PULSE = 0xF0         # F0h..FFh: pulse the P2 bits that are 0 in bits 3..0

cdef enum:                  # keyboard commands and answers
    KC_LEDS = 0xED
    KC_ECHO = 0xEE
    KC_SCAN_SET = 0xF0
    KC_ID = 0xF2
    KC_TYPEMATIC = 0xF3
    KC_ENABLE = 0xF4
    KC_DISABLE = 0xF5       # and defaults
    KC_DEFAULTS = 0xF6
    KC_ALL_TYPEMATIC = 0xFA # set 3: all keys make, break, typematic
    KC_KEY_MAKE_BREAK = 0xFC
    KC_RESET = 0xFF
    ANS_ACK = 0xFA
    ANS_BAT = 0xAA          # basic assurance test passed
    ANS_RESEND = 0xFE
    KBD_ID = 0xAB           # followed by 83h, which translation makes 41h
    KBD_ID2 = 0x83
    BREAK_PREFIX = 0xF0

cdef enum:                  # mouse commands
    MC_SCALE_1 = 0xE6
    MC_SCALE_2 = 0xE7
    MC_RESOLUTION = 0xE8
    MC_STATUS = 0xE9
    MC_STREAM = 0xEA
    MC_READ = 0xEB
    MC_UNWRAP = 0xEC
    MC_WRAP = 0xEE
    MC_REMOTE = 0xF0
    MC_TYPE = 0xF2
    MC_RATE = 0xF3
    MC_ENABLE = 0xF4
    MC_DISABLE = 0xF5
    MC_DEFAULTS = 0xF6
    MC_RESET = 0xFF
    MST_SCALE_2 = 0x10      # status byte
    MST_ENABLED = 0x20
    MST_REMOTE = 0x40
    MOUSE_PS2 = 0           # device type
    MOUSE_WHEEL = 3         # IntelliMouse
    MOUSE_BUTTONS = 4       # IntelliMouse Explorer

cdef enum:                  # who has a byte for the output buffer; KBD and AUX are the bits that disable them in the mode
    SRC_CTRL = 0x04         # the controller's answer
    SRC_CTRL_AUX = 0x08     # the same, seen as the mouse's byte (D3h)
    SRC_KBD = MODE_KBD_DISABLE
    SRC_AUX = MODE_AUX_DISABLE

cdef enum:                  # the two serial ports
    KBD = 0
    AUX = 1
    QUEUE = 256             # bytes of storage each
    QUEUE_LIMIT = 16        # bytes a device holds before it drops; answers of the keyboard may stand before them

cdef enum:                  # pins of INPUT_KEY and INPUT_AUX
    INPUT_RAW = 0           # value = a byte exactly as the host shall read it
    INPUT_USER = 1          # key: a byte of the current scan-code set; mouse: a motion (see I8042)

cdef struct i8042_state:
    device_core core
    int32_t mouse_dx        # motion not yet reported
    int32_t mouse_dy
    int32_t mouse_dz
    uint16_t count[2]       # bytes in each queue
    uint8_t first[2]        # place of the first one
    uint8_t answers[2]      # how many at the front answer a command; the next command drops them
    uint8_t expects[2]      # command that waits for its parameter; 0: none
    uint8_t queue[512]
    uint8_t command         # controller command that waits for its byte at 60h; 0: none
    uint8_t status
    uint8_t mode
    uint8_t outport
    uint8_t pending         # SRC_*
    uint8_t source          # SRC_*: whose byte the output buffer holds
    uint8_t obuf            # last byte read
    uint8_t answer          # the controller's own byte
    uint8_t port92
    uint8_t scanning
    uint8_t scan_set
    uint8_t leds
    uint8_t break_next      # the break prefix came: translation sets bit 7 of the next byte
    uint8_t mouse_status
    uint8_t mouse_resolution
    uint8_t mouse_rate
    uint8_t mouse_wrap
    uint8_t mouse_type
    uint8_t mouse_knock     # how much of the IntelliMouse sequence of sample rates has been seen
    uint8_t mouse_buttons

cdef class I8042(Device):
    cdef i8042_state *s
    cdef bint throttle
    cdef void update_irq(self) noexcept nogil
    cdef uint8_t ready(self) noexcept nogil
    cdef void fill(self) noexcept nogil
    cdef void offer(self) noexcept nogil
    cdef uint8_t read_data(self) noexcept nogil
    cdef void write_data(self, uint8_t v) noexcept nogil
    cdef void write_command(self, uint8_t v) noexcept nogil
    cdef void write_outport(self, uint8_t v) noexcept nogil
    cdef void write_port92(self, uint8_t v) noexcept nogil
    cdef void say(self, uint8_t v, bint aux) noexcept nogil
    cdef void put(self, int port, uint8_t v) noexcept nogil
    cdef void send(self, int port, uint8_t v) noexcept nogil
    cdef void has_data(self, int port, bint level) noexcept nogil
    cdef uint8_t take(self, int port) noexcept nogil
    cdef void clear_queue(self, int port) noexcept nogil
    cdef void reply(self, uint32_t n, uint8_t a, uint8_t b, uint8_t c) noexcept nogil
    cdef void kbd_defaults(self) noexcept nogil
    cdef void kbd_write(self, uint8_t v) noexcept nogil
    cdef void kbd_parameter(self, uint8_t v) noexcept nogil
    cdef void key(self, uint8_t v) noexcept nogil
    cdef void mouse_defaults(self) noexcept nogil
    cdef void mouse_write(self, uint8_t v) noexcept nogil
    cdef void mouse_parameter(self, uint8_t v) noexcept nogil
    cdef bint mouse_packet(self) noexcept nogil
    cdef void motion(self, uint64_t v) noexcept nogil
