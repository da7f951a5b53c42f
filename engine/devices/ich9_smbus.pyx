"""Intel 82801IB (ICH9), device 31 function 3: SMBus host controller, with serial EEPROMs on its bus.

Document: ICH9 data sheet 316972-004 (August 2008), chapter 20.  Modelled: configuration space, the host registers at their base
address, HOSTC, the interrupt; transactions and EEPROMs are _smbus's.  Not modelled: SMIs instead of interrupts (SMB_SMI_EN is
stored), the memory-mapped copy of the registers, the slave interface, packet error checking.  Called by the owning worker only.
"""
cimport cython

from engine._device cimport IO_NO_REGISTER, IO_OK, RESET_POWER_ON, io_status, reset_kind
from engine.devices._smbus cimport SMB_SIZE, eeproms_reset, smbus_init, smbus_irq, smbus_read, smbus_reset, smbus_write
from engine.pci._config cimport CONFIG_REGION, UNMAPPED
from engine.pci.regs cimport *

from engine.devices._smbus import SMBUS_STATE, spd_contents
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, Register, Space

_S = "316972-004 20."
REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "1 VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x2930, section=_S + "1 DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates, see docs", _S + "1 PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, 0, section=_S + "1 PCISTS", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0x02, section=_S + "1 RID", region=CONFIG_REGION),
    Register("PI", CLASS_CODE, 8, RO, 0x00, section=_S + "1 PI", region=CONFIG_REGION),
    Register("SCC", CLASS_CODE + 1, 8, RO, 0x05, section=_S + "1 SCC", region=CONFIG_REGION),
    Register("BCC", CLASS_CODE + 2, 8, RO, 0x0C, section=_S + "1 BCC", region=CONFIG_REGION),
    Register("SMB_BASE", BAR0 + 4 * SMB_BAR, 32, RW, BAR_IO, 0xFFFFFFC0, "base of the host registers", _S + "1 SMB_BASE", CONFIG_REGION),
    Register("INT_LN", INTERRUPT_LINE, 8, RW, 0, 0xFF, "none", _S + "1 INT_LN", CONFIG_REGION),
    Register("INT_PN", INTERRUPT_PIN, 8, RO, 0x01, section=_S + "1 INT_PN", region=CONFIG_REGION),
    Register("HOSTC", HOSTC, 8, RW, 0, 0xFF & ~SSRESET, "HST_EN lets the host registers answer; I2C_EN; SSRESET resets them", _S + "1 HOSTC",
             CONFIG_REGION),
    Register("HST_STS", 0x00, 8, RW1C, 0, 0, "ends transactions", _S + "2.1", SMB_BAR, w1c=0xFE),
    Register("HST_CNT", 0x02, 8, RW, 0, 0x1F, "START, KILL", _S + "2.2", SMB_BAR),
    Register("HST_CMD", 0x03, 8, RW, 0, 0xFF, "none", _S + "2.3", SMB_BAR),
    Register("XMIT_SLVA", 0x04, 8, RW, 0, 0xFF, "none", _S + "2.4", SMB_BAR),
    Register("HST_D0", 0x05, 8, RW, 0, 0xFF, "none", _S + "2.5", SMB_BAR),
    Register("HST_D1", 0x06, 8, RW, 0, 0xFF, "none", _S + "2.6", SMB_BAR),
    Register("HOST_BLOCK_DB", 0x07, 8, RW, 0, 0, "a window to 32 bytes, which moves on", _S + "2.7", SMB_BAR),
    Register("AUX_CTL", 0x0D, 8, RW, 0, 0x03, "selects the 32-byte buffer", _S + "2.12", SMB_BAR),
)


@cython.final
cdef class Ich9Smbus(PciFunction):
    """The function.  Settings: eeproms: how many serial EEPROMs from 50h on; spd: their contents, in hexadecimal, 256 bytes each,
    zeros after its end."""
    TITLE = "Intel 82801IB (ICH9) SMBus controller"
    REGISTERS = REGISTERS
    CONFIG = {**PCI_CONFIG, "multifunction": True, "eeproms": 8, "spd": ""}
    STATE = PCI_STATE + (("decodes", "u1"), ("irq", "u1")) + SMBUS_STATE

    def __init__(self, str id="ich9-smbus", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.spd = spd_contents(id, self.config["eeproms"], self.config["spd"])
        self.eeproms = self.config["eeproms"]
        self.spd_bytes = self.spd
        self.s = <ich9_smbus_state *>self.pci_alloc(sizeof(ich9_smbus_state))
        self.identify(0x8086, 0x2930, 0x02, 0x0C0500, interrupt_pin=1)
        self.add_bar(SMB_BAR, Space.PIO, SMB_SIZE, name="smbus", accepts=(1, 2, 4), implements=(1, 1))
        self.wmask[HOSTC] = 0xff & ~SSRESET
        self.power_on()

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region != SMB_BAR:
            return IO_NO_REGISTER
        value[0] = smbus_read(&self.s.smb, offset)
        self.update_irq()
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region != SMB_BAR:
            return IO_NO_REGISTER
        smbus_write(&self.s.smb, offset, <uint8_t>value)
        self.update_irq()
        return IO_OK

    cdef void update_irq(self) noexcept nogil:
        """The interrupt request, as each access to the host registers leaves it: SSRESET alone does not move it."""
        cdef bint irq = smbus_irq(&self.s.smb)
        if irq != self.s.irq:
            self.s.irq = irq
            self.set_intx(irq)

    cdef uint64_t bar_address(self, uint32_t n) noexcept nogil:
        """Nowhere while HOSTC.HST_EN is clear."""
        return PciFunction.bar_address(self, n) if self.s.decodes else UNMAPPED

    cdef io_status config_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """SSRESET, which reads as zero, resets the controller."""
        cdef io_status status = PciFunction.config_write(self, offset, size, value)
        if offset <= HOSTC < offset + size:
            self.s.decodes = self.p.config[HOSTC] & HST_EN
            self.s.smb.i2c = self.p.config[HOSTC] & I2C_EN != 0
            if value >> (8 * (HOSTC - offset)) & SSRESET:
                smbus_reset(&self.s.smb)
            self.update_mappings()
        return status

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """HOSTC and the controller keep their state over a bus reset; before HOSTC is first written the registers answer."""
        if kind == RESET_POWER_ON:
            self.s.decodes = 1
            self.s.irq = 0
            smbus_init(&self.s.smb, <uint8_t>((1 << self.eeproms) - 1), <const uint8_t *>self.spd_bytes)
            self.s.smb.auxctl = 0
        else:
            eeproms_reset(&self.s.smb, <const uint8_t *>self.spd_bytes)
        PciFunction.on_reset(self, kind)
