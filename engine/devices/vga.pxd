"""QEMU's standard VGA: a VGA with the Bochs display interface, as a PCI function.

Names: IBM VGA/XGA Technical Reference Manual (TRM) for the VGA, the Bochs VBE display API for DISPI, QEMU's
docs/specs/standard-vga for the PCI function.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                # regions; the fixed ones begin at PciFunction's FIRST_FIXED
    FRAMEBUFFER = 0       # BAR0
    MMIO = 2              # BAR2
    ROM = 6
    PORTS = 8             # 8 to 12: the VGA's five ranges of ports
    VBE = 13
    WINDOW = 14

cdef enum:                # ports
    CRTC_INDEX_MONO = 0x3B4
    CRTC_DATA_MONO = 0x3B5
    INPUT_STATUS_1_MONO = 0x3BA   # RO; a write is the feature control register
    ATTRIBUTE = 0x3C0             # RW index and data, in turn
    ATTRIBUTE_DATA = 0x3C1        # RO
    INPUT_STATUS_0 = 0x3C2        # RO; a write is the miscellaneous output register
    SEQ_INDEX = 0x3C4
    SEQ_DATA = 0x3C5
    DAC_MASK = 0x3C6
    DAC_STATE = 0x3C7             # RO; a write is the address of the next read
    DAC_WRITE = 0x3C8             # RW address of the next write
    DAC_DATA = 0x3C9
    FEATURE_CONTROL = 0x3CA       # RO
    MISC_OUTPUT = 0x3CC           # RO
    GFX_INDEX = 0x3CE
    GFX_DATA = 0x3CF
    CRTC_INDEX = 0x3D4
    CRTC_DATA = 0x3D5
    INPUT_STATUS_1 = 0x3DA

cdef enum:                # miscellaneous output
    MISC_COLOR = 0x01     # CRTC and input status 1 at 3Dx rather than 3Bx
    MISC_WMASK = 0xEF
    FEATURE_WMASK = 0x10

cdef enum:                # input status 1
    STATUS_DISPLAY_OFF = 0x01
    STATUS_VERTICAL_RETRACE = 0x08

cdef enum:                # sequencer
    SEQ_RESET = 0
    SEQ_CLOCKING_MODE = 1
    SEQ_MAP_MASK = 2
    SEQ_CHARACTER_MAP = 3
    SEQ_MEMORY_MODE = 4
    SEQ_N = 8
    SEQ_MAP_ALL = 0x0F
    SEQ_CLOCKING_DOUBLE = 0x08
    SEQ_MEMORY_CHAIN4 = 0x08

cdef enum:                # graphics controller
    GFX_SET_RESET = 0
    GFX_ENABLE_SET_RESET = 1
    GFX_COLOR_COMPARE = 2
    GFX_DATA_ROTATE = 3
    GFX_READ_MAP = 4
    GFX_MODE = 5
    GFX_MISC = 6
    GFX_COLOR_DONT_CARE = 7
    GFX_BIT_MASK = 8
    GFX_N = 16
    GFX_ROTATE_COUNT = 0x07
    GFX_FUNCTION_SHIFT = 3        # 0 replace, 1 and, 2 or, 3 exclusive or
    GFX_MODE_WRITE = 0x03
    GFX_MODE_READ = 0x08          # compare colours rather than read a plane
    GFX_MODE_ODD_EVEN = 0x10
    GFX_MODE_SHIFT = 0x60
    GFX_MISC_GRAPHICS = 0x01
    GFX_MISC_MAP = 0x0C           # which part of the window answers
    GFX_MISC_MAP_A0000_64K = 0x04

cdef enum:                # attribute controller
    ATT_MODE = 0x10
    ATT_OVERSCAN = 0x11
    ATT_PLANE_ENABLE = 0x12
    ATT_PANNING = 0x13
    ATT_COLOR_SELECT = 0x14
    ATT_N = 32
    ATT_INDEX_WMASK = 0x3F

cdef enum:                # CRT controller
    CRTC_H_DISPLAY_END = 0x01
    CRTC_OVERFLOW = 0x07
    CRTC_MAX_SCAN = 0x09
    CRTC_START_HIGH = 0x0C
    CRTC_START_LOW = 0x0D
    CRTC_V_RETRACE_END = 0x11
    CRTC_V_DISPLAY_END = 0x12
    CRTC_OFFSET = 0x13
    CRTC_MODE = 0x17
    CRTC_LINE_COMPARE = 0x18
    CRTC_PROTECT = 0x80           # CRTC_V_RETRACE_END: locks registers 0 to 7
    CRTC_OVERFLOW_LINE_COMPARE = 0x10

cdef enum:                # ports of the display interface, from VBE's start
    DISPI_INDEX = 0
    DISPI_DATA = 1
    DISPI_DATA_ALIGNED = 2

cdef enum:                # DISPI registers
    DISPI_ID = 0
    DISPI_XRES = 1
    DISPI_YRES = 2
    DISPI_BPP = 3
    DISPI_ENABLE = 4
    DISPI_BANK = 5
    DISPI_VIRT_WIDTH = 6
    DISPI_VIRT_HEIGHT = 7
    DISPI_X_OFFSET = 8
    DISPI_Y_OFFSET = 9
    DISPI_N = 10
    DISPI_MEMORY_64K = 10         # RO
    DISPI_ID0 = 0xB0C0
    DISPI_ID5 = 0xB0C5
    DISPI_ENABLED = 0x01
    DISPI_GETCAPS = 0x02          # XRES, YRES and BPP read as their limits
    DISPI_8BIT_DAC = 0x20
    DISPI_NOCLEARMEM = 0x80
    DISPI_MAX_XRES = 16000
    DISPI_MAX_YRES = 12000
    DISPI_MAX_BPP = 32

cdef enum:                # offsets in MMIO
    MMIO_EDID = 0x000
    MMIO_EDID_SIZE = 384
    MMIO_PORTS = 0x400            # 3C0h to 3DFh
    MMIO_PORTS_SIZE = 0x20
    MMIO_DISPI = 0x500
    MMIO_DISPI_SIZE = 22
    MMIO_EXTENDED = 0x600
    MMIO_EXTENDED_SIZE = 8
    MMIO_SIZE = 0x1000

cdef enum:                # extended registers
    EXTENDED_SIZE = 0
    EXTENDED_BYTE_ORDER = 4

cdef extern from *:
    """
    #define VGA_BYTE_ORDER_LITTLE 0x1e1e1e1eu
    #define VGA_BYTE_ORDER_BIG 0xbebebebeu
    """
    const uint32_t BYTE_ORDER_LITTLE "VGA_BYTE_ORDER_LITTLE"
    const uint32_t BYTE_ORDER_BIG "VGA_BYTE_ORDER_BIG"

cdef enum:
    WINDOW_SIZE = 0x20000
    ROM_SIZE = 0x10000
    PALETTE_N = 768

cdef struct vga_state:
    pci_state pci
    uint32_t latch                # one byte a plane, plane 0 lowest
    uint32_t bank_offset
    uint32_t line_offset          # DISPI: bytes a line
    uint32_t start_addr           # DISPI: dwords from the start of memory
    uint16_t dispi_index
    uint16_t dispi[10]
    uint8_t seq[8]
    uint8_t seq_dispi[8]          # what stands in for `seq` while DISPI is enabled
    uint8_t gfx[16]
    uint8_t att[32]
    uint8_t crtc[256]
    uint8_t palette[768]
    uint8_t dac_cache[3]
    uint8_t seq_index
    uint8_t gfx_index
    uint8_t att_index
    uint8_t att_data              # the flip-flop: the next write of ATTRIBUTE is data
    uint8_t crtc_index
    uint8_t misc
    uint8_t feature
    uint8_t status1
    uint8_t dac_state
    uint8_t dac_sub               # 0 red, 1 green, 2 blue
    uint8_t dac_read
    uint8_t dac_write
    uint8_t dac_8bit
    uint8_t big_endian

cdef class Vga(PciFunction):
    cdef vga_state *s
    cdef uint8_t *vram
    cdef uint32_t vram_size
    cdef uint8_t edid[384]
    cdef uint32_t edid_size
    cdef uint8_t rom[0x10000]
    cdef bint rom_known
    cdef uint8_t sequencer(self, uint32_t index) noexcept nogil
    cdef uint32_t port_read(self, uint32_t port) noexcept nogil
    cdef void port_write(self, uint32_t port, uint8_t value) noexcept nogil
    cdef void crtc_write(self, uint8_t value) noexcept nogil
    cdef uint16_t dispi_read(self) noexcept nogil
    cdef void dispi_write(self, uint16_t value) noexcept nogil
    cdef void dispi_enable(self, uint16_t value) noexcept nogil
    cdef void dispi_limit(self) noexcept nogil
    cdef void dispi_to_vga(self) noexcept nogil
    cdef uint64_t window_read(self, uint32_t offset, uint32_t size) noexcept nogil
    cdef void window_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef uint8_t planes_read(self, uint32_t at) noexcept nogil
    cdef void planes_write(self, uint32_t at, uint32_t value) noexcept nogil
    cdef uint32_t mmio_read(self, uint32_t offset, uint32_t size) noexcept nogil
    cdef void mmio_write(self, uint32_t offset, uint32_t size, uint32_t value) noexcept nogil
