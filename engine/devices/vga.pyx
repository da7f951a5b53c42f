"""QEMU's standard VGA, PCI 1234:1111: a VGA, the Bochs display interface, a linear frame buffer, a monitor's EDID.

Documents: IBM VGA/XGA Technical Reference Manual, May 1992 (TRM), VGA function; Bochs VBE display API (DISPI); QEMU's
docs/specs/standard-vga (PCI).  Modelled: every register of the five register groups, the memory window with its four
maps, three addressings (chain-4, odd/even, planes), write modes 0 to 3 and read modes 0 and 1, DISPI with its limits,
the memory-mapped copy of the ports, the EDID, the picture (engine/screen.py draws it when it is asked for).  Not modelled:
retrace times, the light pen, interrupts (the part has none).  Deviations: docs/devices/vga.md.
Called by the owning worker only.

Video memory is memory, not device state: it lies outside the state struct, and memory() gives it.
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from engine._device cimport IO_BAD_SIZE, IO_CONTENT, IO_NO_REGISTER, IO_OK, RESET_POWER_ON

from engine.devices.edid import edid
from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.screen import draw
from engine.types import RO, RW, WO, Region, Register, Space

# Writable bits: TRM, each register's figure.  Unused bits of a byte read as zero.
SEQ_WMASK = (0x03, 0x3D, 0x0F, 0x3F, 0x0E, 0x00, 0x00, 0xFF)
GFX_WMASK = (0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF, 0, 0, 0, 0, 0, 0, 0)
ATT_WMASK = (0x3F,) * 16 + (0xEF, 0xFF, 0x3F, 0x0F, 0x0F) + (0x00,) * 11

cdef uint8_t seq_wmask[SEQ_N]
cdef uint8_t gfx_wmask[GFX_N]
cdef uint8_t att_wmask[ATT_N]
for _i in range(SEQ_N):
    seq_wmask[_i] = SEQ_WMASK[_i]
for _i in range(GFX_N):
    gfx_wmask[_i] = GFX_WMASK[_i]
for _i in range(ATT_N):
    att_wmask[_i] = ATT_WMASK[_i]

# First port and length of regions PORTS to PORTS + 4.
RANGES = ((CRTC_INDEX_MONO, 2), (INPUT_STATUS_1_MONO, 1), (ATTRIBUTE, 16), (CRTC_INDEX, 2), (INPUT_STATUS_1, 1))
cdef uint32_t first_port[5]
for _i in range(5):
    first_port[_i] = RANGES[_i][0]

# GFX_MISC_MAP 0 to 3: where in the window, and how much of it, answers.
cdef uint32_t map_start[4]
cdef uint32_t map_size[4]
map_start[:] = [0x00000, 0x00000, 0x10000, 0x18000]
map_size[:] = [0x20000, 0x10000, 0x08000, 0x08000]


cdef inline uint32_t planes(uint32_t four) noexcept nogil:
    """One bit a plane -> one byte a plane."""
    return ((four & 1) | (four & 2) << 7 | (four & 4) << 14 | (four & 8) << 21) * 0xFF


cdef inline uint32_t four_times(uint32_t byte) noexcept nogil:
    return byte * 0x01010101u


cdef inline uint32_t rotate(uint32_t byte, uint32_t count) noexcept nogil:
    """The byte rotated right."""
    return (byte >> count | byte << (8 - count)) & 0xFF


cdef inline uint32_t mmio_part(uint32_t offset, uint32_t size) noexcept nogil:
    """How much of an access to BAR2 its ranges take at once: aligned, and at most 4 bytes."""
    cdef uint32_t n = 4
    while n > size or offset & (n - 1):
        n >>= 1
    return n


# The indexed registers: group, names, section.
SEQUENCER = ("RESET", "CLOCKING_MODE", "MAP_MASK", "CHARACTER_MAP", "MEMORY_MODE")
GRAPHICS = ("SET_RESET", "ENABLE_SET_RESET", "COLOR_COMPARE", "DATA_ROTATE", "READ_MAP", "MODE", "MISC",
            "COLOR_DONT_CARE", "BIT_MASK")
ATTRIBUTES = (*(f"PALETTE_{n}" for n in range(16)), "MODE", "OVERSCAN", "PLANE_ENABLE", "PANNING", "COLOR_SELECT")
CRT = ("H_TOTAL", "H_DISPLAY_END", "H_BLANK_START", "H_BLANK_END", "H_RETRACE_START", "H_RETRACE_END", "V_TOTAL",
       "OVERFLOW", "PRESET_ROW", "MAX_SCAN", "CURSOR_START", "CURSOR_END", "START_HIGH", "START_LOW", "CURSOR_HIGH",
       "CURSOR_LOW", "V_RETRACE_START", "V_RETRACE_END", "V_DISPLAY_END", "OFFSET", "UNDERLINE", "V_BLANK_START",
       "V_BLANK_END", "MODE", "LINE_COMPARE")
DISPI = ("ID", "XRES", "YRES", "BPP", "ENABLE", "BANK", "VIRT_WIDTH", "VIRT_HEIGHT", "X_OFFSET", "Y_OFFSET",
         "MEMORY_64K")


def _registers():
    """The register table: a row for every register that has a name."""
    at, ports, general, dac = ATTRIBUTE, PORTS + 2, "TRM: General Registers", "TRM: Video Digital-to-Analog Converter"
    rows = [
        Register("CRTC_INDEX", 0, 8, RW, 0, 0xFF, "", "TRM: CRT Controller, Address", PORTS),
        Register("INPUT_STATUS_1", 0, 8, RO, None, 0, "next write of ATTRIBUTE is an index; two bits toggle", general,
                 PORTS + 1),
        Register("ATTRIBUTE", ATTRIBUTE - at, 8, RW, 0, 0, "writes are index and data in turn",
                 "TRM: Attribute Controller, Address", ports),
        Register("INPUT_STATUS_0", INPUT_STATUS_0 - at, 8, RO, 0, 0, "a write is MISC_OUTPUT", general, ports),
        Register("SEQ_INDEX", SEQ_INDEX - at, 8, RW, 0, SEQ_N - 1, "", "TRM: Sequencer, Address", ports),
        Register("DAC_STATE", DAC_STATE - at, 8, RO, 0, 0, "a write is the read address", dac, ports),
        Register("DAC_WRITE", DAC_WRITE - at, 8, RW, 0, 0xFF, "the next data is red", dac, ports),
        Register("DAC_DATA", DAC_DATA - at, 8, RW, 0, 0, "goes to the next colour", dac, ports),
        Register("FEATURE_CONTROL", FEATURE_CONTROL - at, 8, RO, 0, 0, "", general, ports),
        Register("MISC_OUTPUT", MISC_OUTPUT - at, 8, RO, 0, 0, "", general, ports),
        Register("GFX_INDEX", GFX_INDEX - at, 8, RW, 0, GFX_N - 1, "", "TRM: Graphics Controller, Address", ports),
        Register("EXTENDED_SIZE", MMIO_EXTENDED + EXTENDED_SIZE, 32, RO, MMIO_EXTENDED_SIZE, 0, "",
                 "standard-vga: PCI spec, 0600", MMIO),
        Register("EXTENDED_BYTE_ORDER", MMIO_EXTENDED + EXTENDED_BYTE_ORDER, 32, RW, BYTE_ORDER_LITTLE, 0,
                 "takes one of two values", "standard-vga: PCI spec, 0604", MMIO),
    ]
    for group, names, port, region, masks, section in (
        ("SEQ", SEQUENCER, SEQ_DATA - at, ports, SEQ_WMASK, "TRM: Sequencer Registers"),
        ("GFX", GRAPHICS, GFX_DATA - at, ports, GFX_WMASK, "TRM: Graphics Controller Registers"),
        ("ATT", ATTRIBUTES, ATTRIBUTE_DATA - at, ports, ATT_WMASK, "TRM: Attribute Controller Registers"),
        ("CRTC", CRT, 1, PORTS, (0xFF,) * len(CRT), "TRM: CRT Controller Registers"),
    ):
        for n, name in enumerate(names):
            rows.append(Register(f"{group}_{name}", port, 8, RW, 0, masks[n], "", section, region, n))
    read_only, reset = (DISPI_VIRT_HEIGHT, DISPI_MEMORY_64K), {DISPI_ID: DISPI_ID5, DISPI_MEMORY_64K: None}
    for n, name in enumerate(DISPI):
        wmask = 0 if n in (DISPI_ID, DISPI_BANK, *read_only) else 0xFFFF
        rows.append(Register(f"DISPI_{name}", DISPI_DATA, 16, RO if n in read_only else RW, reset.get(n, 0), wmask,
                             "limits the others while DISPI is enabled", "DISPI API", VBE, n))
    return tuple(rows)


@cython.final
cdef class Vga(PciFunction):
    """The adapter.  Settings: `vgamem_mb`, a power of two; `edid` and the monitor's preferred and greatest picture (0:
    no limit) with its refresh rate in mHz."""
    TITLE = "QEMU standard VGA (1234:1111)"
    REGISTERS = _registers()
    CONFIG = {**PCI_CONFIG, "vgamem_mb": 16, "edid": True, "xres": 1280, "yres": 800, "xmax": 0, "ymax": 0,
              "refresh_rate": 75000}
    STATE = PCI_STATE + (
        ("latch", "u4"), ("bank_offset", "u4"), ("line_offset", "u4"), ("start_addr", "u4"), ("dispi_index", "u2"),
        ("dispi", "u2", DISPI_N), ("seq", "u1", SEQ_N), ("seq_dispi", "u1", SEQ_N), ("gfx", "u1", GFX_N),
        ("att", "u1", ATT_N), ("crtc", "u1", 256), ("palette", "u1", PALETTE_N), ("dac_cache", "u1", 3),
        ("seq_index", "u1"), ("gfx_index", "u1"), ("att_index", "u1"), ("att_data", "u1"), ("crtc_index", "u1"),
        ("misc", "u1"), ("feature", "u1"), ("status1", "u1"), ("dac_state", "u1"), ("dac_sub", "u1"),
        ("dac_read", "u1"), ("dac_write", "u1"), ("dac_8bit", "u1"), ("big_endian", "u1"))

    def __init__(self, str id="vga", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        cdef uint32_t megabytes = min(max(0, self.config["vgamem_mb"]), 1024)
        if not 1 <= megabytes <= 512 or megabytes & (megabytes - 1):
            raise MachineError(f"device {id!r}: vgamem_mb = {self.config['vgamem_mb']} is no power of two up to 512")
        self.vram_size = megabytes << 20
        self.vram = <uint8_t *>calloc(self.vram_size, 1)
        if self.vram == NULL:
            raise MemoryError(f"no {megabytes} MiB of video memory")
        if self.config["edid"]:
            c = self.config
            data = edid(c["xres"], c["yres"], c["xmax"], c["ymax"], c["refresh_rate"])
            memcpy(self.edid, <const char *>(<bytes>data), MMIO_EDID_SIZE)
            self.edid_size = MMIO_EDID_SIZE
        self.s = <vga_state *>self.pci_alloc(sizeof(vga_state))
        self.identify(0x1234, 0x1111, 2, 0x030000)
        wide = (1, 2, 4, 8)
        self.add_bar(FRAMEBUFFER, Space.MMIO, self.vram_size, True, False, "vga.vram", wide, (1, 8), True)
        self.add_bar(MMIO, Space.MMIO, MMIO_SIZE, False, False, "vga.mmio", wide, (1, 8))
        self.add_rom(ROM_SIZE, "vga.rom")
        self.power_on()

    def __dealloc__(self):
        free(self.vram)

    def fixed_regions(self):
        """The legacy ranges: five of ports, the display interface's, the window at A0000h."""
        ports = tuple(Region(f"vga-{port:x}", Space.PIO, n, ports=True) for port, n in RANGES)
        return (*ports, Region("vbe", Space.PIO, 4, unaligned=True),
                Region("vga-lowmem", Space.MMIO, WINDOW_SIZE, (1, 2, 4, 8), (1, 8), posted=True, unaligned=True))

    # ------------------------------------------------------------------ accesses

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef uint32_t n, done = 0
        value[0] = 0
        if region == WINDOW:
            value[0] = self.window_read(offset, size)
        elif region == FRAMEBUFFER:
            if offset + size > self.vram_size:
                return IO_NO_REGISTER
            memcpy(value, self.vram + offset, size)
        elif region == VBE:
            if size != 2:
                return IO_BAD_SIZE
            elif offset == DISPI_INDEX:
                value[0] = self.s.dispi_index
            elif offset == DISPI_DATA or offset == DISPI_DATA_ALIGNED:
                value[0] = self.dispi_read()
            else:
                return IO_NO_REGISTER
        elif region == MMIO:
            while done < size:
                n = mmio_part(offset + done, size - done)
                value[0] |= <uint64_t>self.mmio_read(offset + done, n) << (8 * done)
                done += n
        elif region == ROM:
            if offset + size > ROM_SIZE:
                return IO_NO_REGISTER
            memcpy(value, self.rom + offset, size)
            return <io_status>(IO_OK | IO_CONTENT)
        elif region >= PORTS and region < VBE:
            value[0] = self.port_read(first_port[region - PORTS] + offset)
        else:
            return IO_NO_REGISTER
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint32_t n, done = 0
        if region == WINDOW:
            self.window_write(offset, size, value)
        elif region == FRAMEBUFFER:
            if offset + size > self.vram_size:
                return IO_NO_REGISTER
            memcpy(self.vram + offset, &value, size)
        elif region == VBE:
            if size != 2:
                return IO_BAD_SIZE
            elif offset == DISPI_INDEX:
                self.s.dispi_index = <uint16_t>value
            elif offset == DISPI_DATA or offset == DISPI_DATA_ALIGNED:
                self.dispi_write(<uint16_t>value)
            else:
                return IO_NO_REGISTER
        elif region == MMIO:
            while done < size:
                n = mmio_part(offset + done, size - done)
                self.mmio_write(offset + done, n, <uint32_t>(value >> (8 * done)))
                done += n
        elif region >= PORTS and region < VBE:
            self.port_write(first_port[region - PORTS] + offset, <uint8_t>value)
        elif region != ROM:
            return IO_NO_REGISTER
        return IO_OK

    cdef void learn(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == ROM and offset + size <= ROM_SIZE:
            memcpy(self.rom + offset, &value, size)
            self.rom_known = True

    # ------------------------------------------------------------------ ports

    cdef uint8_t sequencer(self, uint32_t index) noexcept nogil:
        """The sequencer register that is in force."""
        return self.s.seq_dispi[index] if self.s.dispi[DISPI_ENABLE] & DISPI_ENABLED else self.s.seq[index]

    cdef uint32_t port_read(self, uint32_t port) noexcept nogil:
        """TRM, General Registers: the CRT controller and input status 1 are at 3Bx or at 3Dx."""
        cdef vga_state *s = self.s
        cdef uint8_t v
        if port & 0xFFF0 == (0x3B0 if s.misc & MISC_COLOR else 0x3D0):
            return 0xFF
        if port == ATTRIBUTE:
            return 0 if s.att_data else s.att_index
        elif port == ATTRIBUTE_DATA:
            return s.att[s.att_index & (ATT_N - 1)]
        elif port == SEQ_INDEX:
            return s.seq_index
        elif port == SEQ_DATA:
            return s.seq[s.seq_index]
        elif port == DAC_STATE:
            return s.dac_state
        elif port == DAC_WRITE:
            return s.dac_write
        elif port == DAC_DATA:
            v = s.palette[s.dac_read * 3 + s.dac_sub]
            s.dac_sub += 1
            if s.dac_sub == 3:
                s.dac_sub = 0
                s.dac_read += 1
            return v
        elif port == FEATURE_CONTROL:
            return s.feature
        elif port == MISC_OUTPUT:
            return s.misc
        elif port == GFX_INDEX:
            return s.gfx_index
        elif port == GFX_DATA:
            return s.gfx[s.gfx_index]
        elif port == CRTC_INDEX or port == CRTC_INDEX_MONO:
            return s.crtc_index
        elif port == CRTC_DATA or port == CRTC_DATA_MONO:
            return s.crtc[s.crtc_index]
        elif port == INPUT_STATUS_1 or port == INPUT_STATUS_1_MONO:
            # No beam: each read sees the other phase, so that whoever waits for one gets it.
            s.status1 ^= STATUS_DISPLAY_OFF | STATUS_VERTICAL_RETRACE
            s.att_data = 0
            return s.status1
        return 0

    cdef void port_write(self, uint32_t port, uint8_t value) noexcept nogil:
        cdef vga_state *s = self.s
        cdef uint8_t index
        if port & 0xFFF0 == (0x3B0 if s.misc & MISC_COLOR else 0x3D0):
            return
        if port == ATTRIBUTE:
            if s.att_data:
                index = s.att_index & (ATT_N - 1)
                s.att[index] = value & att_wmask[index]
            else:
                s.att_index = value & ATT_INDEX_WMASK
            s.att_data ^= 1
        elif port == INPUT_STATUS_0:
            s.misc = value & MISC_WMASK
        elif port == SEQ_INDEX:
            s.seq_index = value & (SEQ_N - 1)
        elif port == SEQ_DATA:
            s.seq[s.seq_index] = value & seq_wmask[s.seq_index]
        elif port == DAC_STATE:
            s.dac_read = value
            s.dac_sub = 0
            s.dac_state = 3
        elif port == DAC_WRITE:
            s.dac_write = value
            s.dac_sub = 0
            s.dac_state = 0
        elif port == DAC_DATA:
            s.dac_cache[s.dac_sub] = value
            s.dac_sub += 1
            if s.dac_sub == 3:
                memcpy(s.palette + s.dac_write * 3, s.dac_cache, 3)
                s.dac_sub = 0
                s.dac_write += 1
        elif port == GFX_INDEX:
            s.gfx_index = value & (GFX_N - 1)
        elif port == GFX_DATA:
            s.gfx[s.gfx_index] = value & gfx_wmask[s.gfx_index]
            self.dispi_to_vga()
        elif port == CRTC_INDEX or port == CRTC_INDEX_MONO:
            s.crtc_index = value
        elif port == CRTC_DATA or port == CRTC_DATA_MONO:
            self.crtc_write(value)
        elif port == INPUT_STATUS_1 or port == INPUT_STATUS_1_MONO:
            s.feature = value & FEATURE_WMASK

    cdef void crtc_write(self, uint8_t value) noexcept nogil:
        """TRM, Vertical Retrace End: its protect bit locks registers 0 to 7, but for the line compare bit."""
        cdef vga_state *s = self.s
        if s.crtc[CRTC_V_RETRACE_END] & CRTC_PROTECT and s.crtc_index <= CRTC_OVERFLOW:
            if s.crtc_index != CRTC_OVERFLOW:
                return
            value = s.crtc[CRTC_OVERFLOW] & ~CRTC_OVERFLOW_LINE_COMPARE | value & CRTC_OVERFLOW_LINE_COMPARE
        s.crtc[s.crtc_index] = value
        self.dispi_to_vga()

    # ------------------------------------------------------------------ display interface

    cdef uint16_t dispi_read(self) noexcept nogil:
        cdef vga_state *s = self.s
        if s.dispi_index == DISPI_MEMORY_64K:
            return <uint16_t>(self.vram_size >> 16)
        if s.dispi_index >= DISPI_N:
            return 0
        if s.dispi[DISPI_ENABLE] & DISPI_GETCAPS:
            if s.dispi_index == DISPI_XRES:
                return DISPI_MAX_XRES
            elif s.dispi_index == DISPI_YRES:
                return DISPI_MAX_YRES
            elif s.dispi_index == DISPI_BPP:
                return DISPI_MAX_BPP
        return s.dispi[s.dispi_index]

    cdef void dispi_write(self, uint16_t value) noexcept nogil:
        cdef vga_state *s = self.s
        cdef uint16_t index = s.dispi_index
        if index == DISPI_ID:
            if DISPI_ID0 <= value <= DISPI_ID5:
                s.dispi[DISPI_ID] = value
        elif index == DISPI_BANK:
            s.dispi[DISPI_BANK] = <uint16_t>(value & ((self.vram_size >> 16) - 1))
            s.bank_offset = <uint32_t>s.dispi[DISPI_BANK] << 16
        elif index == DISPI_ENABLE:
            self.dispi_enable(value)
        elif index < DISPI_N and index != DISPI_VIRT_HEIGHT:
            s.dispi[index] = value
            self.dispi_limit()
            self.dispi_to_vga()

    cdef void dispi_enable(self, uint16_t value) noexcept nogil:
        """Switching on starts with a clean screen at the origin, unless DISPI_NOCLEARMEM is set."""
        cdef vga_state *s = self.s
        if value & DISPI_ENABLED and not s.dispi[DISPI_ENABLE] & DISPI_ENABLED:
            s.dispi[DISPI_VIRT_WIDTH] = 0
            s.dispi[DISPI_X_OFFSET] = 0
            s.dispi[DISPI_Y_OFFSET] = 0
            s.dispi[DISPI_ENABLE] |= DISPI_ENABLED
            self.dispi_limit()
            self.dispi_to_vga()
            if not value & DISPI_NOCLEARMEM:
                memset(self.vram, 0, min(self.vram_size, s.dispi[DISPI_YRES] * s.line_offset))
        else:
            s.bank_offset = 0
        s.dac_8bit = value & DISPI_8BIT_DAC != 0
        s.dispi[DISPI_ENABLE] = value

    cdef void dispi_limit(self) noexcept nogil:
        """Make the picture fit its limits and the memory."""
        cdef uint16_t *r = self.s.dispi
        cdef uint32_t bits, line, most, offset
        if not r[DISPI_ENABLE] & DISPI_ENABLED:
            return
        bits = r[DISPI_BPP]
        if bits == 15:
            bits = 16
        elif bits != 4 and bits != 8 and bits != 16 and bits != 24 and bits != 32:
            bits = 8
            r[DISPI_BPP] = 8
        r[DISPI_XRES] = min(max(r[DISPI_XRES] & 0xFFF8, 8), DISPI_MAX_XRES)
        r[DISPI_VIRT_WIDTH] = max(min(r[DISPI_VIRT_WIDTH] & 0xFFF8, DISPI_MAX_XRES), r[DISPI_XRES])
        line = r[DISPI_VIRT_WIDTH] * bits / 8
        most = self.vram_size / line
        r[DISPI_YRES] = <uint16_t>min(min(max(r[DISPI_YRES], 1), DISPI_MAX_YRES), most)
        r[DISPI_X_OFFSET] = min(r[DISPI_X_OFFSET], DISPI_MAX_XRES)
        r[DISPI_Y_OFFSET] = min(r[DISPI_Y_OFFSET], DISPI_MAX_YRES)
        offset = r[DISPI_X_OFFSET] * bits / 8 + r[DISPI_Y_OFFSET] * line
        if offset + r[DISPI_YRES] * line > self.vram_size:
            r[DISPI_Y_OFFSET] = 0
            offset = r[DISPI_X_OFFSET] * bits / 8
            if offset + r[DISPI_YRES] * line > self.vram_size:
                r[DISPI_X_OFFSET] = 0
                offset = 0
        r[DISPI_VIRT_HEIGHT] = <uint16_t>most
        self.s.line_offset = line
        self.s.start_addr = offset / 4

    cdef void dispi_to_vga(self) noexcept nogil:
        """While DISPI is enabled, the VGA's registers describe its picture, whatever is written to them."""
        cdef vga_state *s = self.s
        cdef uint32_t last
        if not s.dispi[DISPI_ENABLE] & DISPI_ENABLED:
            return
        s.gfx[GFX_MISC] = s.gfx[GFX_MISC] & ~GFX_MISC_MAP | GFX_MISC_MAP_A0000_64K | GFX_MISC_GRAPHICS
        s.crtc[CRTC_MODE] |= 0x03         # no CGA or Hercules addressing
        s.crtc[CRTC_OFFSET] = <uint8_t>(s.line_offset >> 3)
        s.crtc[CRTC_H_DISPLAY_END] = <uint8_t>((s.dispi[DISPI_XRES] >> 3) - 1)
        last = s.dispi[DISPI_YRES] - 1    # bits 8 and 9 are in OVERFLOW; a higher one has no place
        s.crtc[CRTC_V_DISPLAY_END] = <uint8_t>last
        s.crtc[CRTC_OVERFLOW] = s.crtc[CRTC_OVERFLOW] & ~0x42 | last >> 7 & 0x02 | last >> 3 & 0x40
        s.crtc[CRTC_LINE_COMPARE] = 0xFF  # 1023: never
        s.crtc[CRTC_OVERFLOW] |= CRTC_OVERFLOW_LINE_COMPARE
        s.crtc[CRTC_MAX_SCAN] = (s.crtc[CRTC_MAX_SCAN] | 0x40) & ~0x9F
        if s.dispi[DISPI_BPP] == 4:
            s.gfx[GFX_MODE] &= ~GFX_MODE_SHIFT
            s.seq_dispi[SEQ_CLOCKING_MODE] &= ~SEQ_CLOCKING_DOUBLE
        else:
            s.gfx[GFX_MODE] = s.gfx[GFX_MODE] & ~GFX_MODE_SHIFT | 0x40
            s.seq_dispi[SEQ_MEMORY_MODE] |= SEQ_MEMORY_CHAIN4
            s.seq_dispi[SEQ_MAP_MASK] |= SEQ_MAP_ALL

    # ------------------------------------------------------------------ the window at A0000h

    cdef uint64_t window_read(self, uint32_t offset, uint32_t size) noexcept nogil:
        """TRM, VGA Memory; each byte by itself, low address first.  What the map leaves out reads as ones."""
        cdef vga_state *s = self.s
        cdef uint32_t map = (s.gfx[GFX_MISC] & GFX_MISC_MAP) >> 2, at, i
        cdef uint32_t start = map_start[map], length = map_size[map]
        cdef uint32_t bank = s.bank_offset if map == 1 else 0
        cdef bint chain4 = self.sequencer(SEQ_MEMORY_MODE) & SEQ_MEMORY_CHAIN4 != 0
        cdef uint64_t value = 0, byte
        for i in range(size):
            at = offset + i - start
            byte = 0xFF
            if at < length:
                at += bank
                if chain4:
                    if at < self.vram_size:
                        byte = self.vram[at]
                elif s.gfx[GFX_MODE] & GFX_MODE_ODD_EVEN:
                    at = (at & ~1u) << 1 | s.gfx[GFX_READ_MAP] & 2 | at & 1
                    if at < self.vram_size:
                        byte = self.vram[at]
                else:
                    byte = self.planes_read(at)
            value |= byte << (8 * i)
        return value

    cdef void window_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef vga_state *s = self.s
        cdef uint32_t map = (s.gfx[GFX_MISC] & GFX_MISC_MAP) >> 2, at, i, plane
        cdef uint32_t start = map_start[map], length = map_size[map]
        cdef uint32_t bank = s.bank_offset if map == 1 else 0
        cdef uint32_t written = self.sequencer(SEQ_MAP_MASK)
        cdef bint chain4 = self.sequencer(SEQ_MEMORY_MODE) & SEQ_MEMORY_CHAIN4 != 0
        for i in range(size):
            at = offset + i - start
            if at >= length:
                continue
            at += bank
            if chain4:
                if written >> (at & 3) & 1 and at < self.vram_size:
                    self.vram[at] = <uint8_t>(value >> (8 * i))
            elif s.gfx[GFX_MODE] & GFX_MODE_ODD_EVEN:
                plane = s.gfx[GFX_READ_MAP] & 2 | at & 1
                at = (at & ~1u) << 1 | plane
                if written >> plane & 1 and at < self.vram_size:
                    self.vram[at] = <uint8_t>(value >> (8 * i))
            else:
                self.planes_write(at, <uint8_t>(value >> (8 * i)))

    cdef uint8_t planes_read(self, uint32_t at) noexcept nogil:
        """TRM, Graphics Controller: the latches are loaded, then one is read, or all are compared."""
        cdef vga_state *s = self.s
        cdef uint32_t differ
        if at >= self.vram_size / 4:
            return 0xFF
        s.latch = (<uint32_t *>self.vram)[at]
        if not s.gfx[GFX_MODE] & GFX_MODE_READ:
            return <uint8_t>(s.latch >> (8 * s.gfx[GFX_READ_MAP]))
        differ = (s.latch ^ planes(s.gfx[GFX_COLOR_COMPARE])) & planes(s.gfx[GFX_COLOR_DONT_CARE])
        differ |= differ >> 16
        return <uint8_t>~(differ | differ >> 8)

    cdef void planes_write(self, uint32_t at, uint32_t value) noexcept nogil:
        """TRM, Graphics Controller, Write Modes 0 to 3."""
        cdef vga_state *s = self.s
        cdef uint32_t mode = s.gfx[GFX_MODE] & GFX_MODE_WRITE, count = s.gfx[GFX_DATA_ROTATE] & GFX_ROTATE_COUNT
        cdef uint32_t function = s.gfx[GFX_DATA_ROTATE] >> GFX_FUNCTION_SHIFT, bits = s.gfx[GFX_BIT_MASK], set, mask
        cdef uint32_t *cell
        if at >= self.vram_size / 4:
            return
        if mode == 1:
            value = s.latch
        else:
            if mode == 0:
                set = planes(s.gfx[GFX_ENABLE_SET_RESET])
                value = four_times(rotate(value, count)) & ~set | planes(s.gfx[GFX_SET_RESET]) & set
            elif mode == 2:
                value = planes(value)
            else:
                bits &= rotate(value, count)
                value = planes(s.gfx[GFX_SET_RESET])
            if function == 1:
                value &= s.latch
            elif function == 2:
                value |= s.latch
            elif function == 3:
                value ^= s.latch
            mask = four_times(bits)
            value = value & mask | s.latch & ~mask
        mask = planes(self.sequencer(SEQ_MAP_MASK))
        cell = <uint32_t *>self.vram + at
        cell[0] = cell[0] & ~mask | value & mask

    # ------------------------------------------------------------------ BAR2

    cdef uint32_t mmio_read(self, uint32_t offset, uint32_t size) noexcept nogil:
        """`size` bytes, as mmio_part cut them: the range of the first one answers, and between the ranges ones."""
        cdef uint32_t value = 0, i
        if offset < self.edid_size:
            memcpy(&value, self.edid + offset, size)
            return value
        elif MMIO_PORTS <= offset < MMIO_PORTS + MMIO_PORTS_SIZE:
            for i in range(size):
                value |= self.port_read(ATTRIBUTE + offset - MMIO_PORTS + i) << (8 * i)
            return value
        elif MMIO_DISPI <= offset < MMIO_DISPI + MMIO_DISPI_SIZE:
            # A register has 16 bits and no bytes: an odd address reads its low byte too.
            for i in range(0, size, 2):
                self.s.dispi_index = <uint16_t>((offset - MMIO_DISPI + i) >> 1)
                value |= <uint32_t>self.dispi_read() << (8 * i)
            return value & 0xFF if size == 1 else value
        elif MMIO_EXTENDED <= offset < MMIO_EXTENDED + MMIO_EXTENDED_SIZE:
            if size != 4:
                return 0
            if offset == MMIO_EXTENDED + EXTENDED_SIZE:
                return MMIO_EXTENDED_SIZE
            return BYTE_ORDER_BIG if self.s.big_endian else BYTE_ORDER_LITTLE
        return 0xFFFFFFFFu >> (32 - 8 * size)

    cdef void mmio_write(self, uint32_t offset, uint32_t size, uint32_t value) noexcept nogil:
        """The low `size` bytes of value, as mmio_part cut them."""
        cdef uint32_t i
        if MMIO_PORTS <= offset < MMIO_PORTS + MMIO_PORTS_SIZE:
            for i in range(size):
                self.port_write(ATTRIBUTE + offset - MMIO_PORTS + i, <uint8_t>(value >> (8 * i)))
        elif MMIO_DISPI <= offset < MMIO_DISPI + MMIO_DISPI_SIZE:
            if size == 1:
                value &= 0xFF
            for i in range(0, size, 2):
                self.s.dispi_index = <uint16_t>((offset - MMIO_DISPI + i) >> 1)
                self.dispi_write(<uint16_t>(value >> (8 * i)))
        elif offset == MMIO_EXTENDED + EXTENDED_BYTE_ORDER and size == 4:
            if value == BYTE_ORDER_LITTLE:
                self.s.big_endian = 0
            elif value == BYTE_ORDER_BIG:
                self.s.big_endian = 1

    # ------------------------------------------------------------------ reset, and what Python sees

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """Every register is zero, as before the video BIOS runs.  A bus reset leaves memory and the latches alone."""
        cdef vga_state *s = self.s
        cdef uint32_t latch = s.latch
        memset(<uint8_t *>s + sizeof(pci_state), 0, sizeof(vga_state) - sizeof(pci_state))
        if kind != RESET_POWER_ON:
            s.latch = latch
        s.dispi[DISPI_ID] = DISPI_ID5
        PciFunction.on_reset(self, kind)

    def on_restore(self):
        """Keep every index inside its table, whatever was restored."""
        PciFunction.on_restore(self)
        self.s.seq_index &= SEQ_N - 1
        self.s.gfx_index &= GFX_N - 1
        self.s.dac_sub %= 3
        self.s.gfx[GFX_READ_MAP] &= gfx_wmask[GFX_READ_MAP]

    def memory(self):
        """Video memory, writable in place; holds the device."""
        return memoryview(_Memory(self))

    def contents(self):
        """Known content: {"rom": bytes} once the option ROM is known."""
        return {"rom": (<char *>self.rom)[:ROM_SIZE]} if self.rom_known else {}

    def set_contents(self, contents):
        """Supply the option ROM: {"rom": bytes}.  Raises MachineError if it is too long or something else is given."""
        for name, data in contents.items():
            if name != "rom" or len(data) > ROM_SIZE:
                raise MachineError(f"device {self.id!r}: {len(data)} bytes for {name!r}; 'rom' has {ROM_SIZE}")
            memset(self.rom, 0, ROM_SIZE)
            memcpy(self.rom, <const char *>(<bytes>data), len(data))
            self.rom_known = True

    def values(self):
        """The registers by the names of REGISTERS, as they are in force, and what else decides the picture."""
        cdef vga_state *s = self.s
        cdef uint32_t n
        out = {"ATT_INDEX": s.att_index, "DAC_8BIT": s.dac_8bit, "BIG_ENDIAN": s.big_endian, "LINE_OFFSET": s.line_offset,
               "START_ADDR": s.start_addr}
        for n, name in enumerate(SEQUENCER):
            out[f"SEQ_{name}"] = self.sequencer(n)
        for n, name in enumerate(GRAPHICS):
            out[f"GFX_{name}"] = s.gfx[n]
        for n, name in enumerate(ATTRIBUTES):
            out[f"ATT_{name}"] = s.att[n]
        for n, name in enumerate(CRT):
            out[f"CRTC_{name}"] = s.crtc[n]
        for n in range(DISPI_N):
            out[f"DISPI_{DISPI[n]}"] = s.dispi[n]
        return out

    def picture(self, bint cursor=True, blink=None):
        """What a monitor shows now: (width, height, three bytes a pixel).  The options: engine.screen.draw."""
        return tuple(draw(self.values(), (<char *>self.s.palette)[:PALETTE_N], self.memory(), cursor=cursor, blink=blink))

    def text(self):
        """The text screen as lines, or None in a graphics mode."""
        cdef vga_state *s = self.s
        cdef uint32_t row, column, at, start, rows, last
        if s.gfx[GFX_MISC] & GFX_MISC_GRAPHICS or s.dispi[DISPI_ENABLE] & DISPI_ENABLED:
            return None
        last = s.crtc[CRTC_V_DISPLAY_END] | (s.crtc[CRTC_OVERFLOW] & 0x02) << 7 | (s.crtc[CRTC_OVERFLOW] & 0x40) << 3
        rows = (last + 1) // ((s.crtc[CRTC_MAX_SCAN] & 0x1F) + 1)
        start = s.crtc[CRTC_START_HIGH] << 8 | s.crtc[CRTC_START_LOW]
        lines = []
        for row in range(rows):
            cells = bytearray()
            for column in range(s.crtc[CRTC_H_DISPLAY_END] + 1):
                at = start * 4 + row * (s.crtc[CRTC_OFFSET] << 3) + column * 4
                cells.append(self.vram[at & (self.vram_size - 1)] or 0x20)
            lines.append(cells.decode("cp437").rstrip())
        return lines


cdef class _Memory:
    """The buffer behind Vga.memory()."""
    cdef Vga vga
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

    def __init__(self, Vga vga not None):
        self.vga = vga
        self.shape[0] = vga.vram_size
        self.strides[0] = 1

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.buf = self.vga.vram
        buffer.format = b"B"
        buffer.internal = NULL
        buffer.itemsize = 1
        buffer.len = self.shape[0]
        buffer.ndim = 1
        buffer.obj = self
        buffer.readonly = 0
        buffer.shape = self.shape
        buffer.strides = self.strides
        buffer.suboffsets = NULL
