"""An SMBus host controller as PIIX4 and ICHs have it, and the serial EEPROMs on its bus: functions over one struct.

Names and section numbers: 82371AB (PIIX4) data sheet 290562-001, section 7.3; what later ICHs added (AUXCTL, the block
buffer) from 82801IB (ICH9) 316972-004, section 20.2.  System Management Bus Specification 2.0 for the protocols.
"""
from libc.stdint cimport uint8_t, uint32_t

cdef enum:                    # registers, 7.3
    SMBHSTSTS = 0x00          # host status
    SMBSLVSTS = 0x01          # slave status
    SMBHSTCNT = 0x02          # host control
    SMBHSTCMD = 0x03          # host command
    SMBHSTADD = 0x04          # host address
    SMBHSTDAT0 = 0x05         # host data 0
    SMBHSTDAT1 = 0x06         # host data 1
    SMBBLKDAT = 0x07          # block data
    SMBAUXCTL = 0x0D          # ICH9 20.2.12 auxiliary control
    SMB_SIZE = 0x40

cdef enum:                    # SMBHSTSTS
    STS_HOST_BUSY = 0x01
    STS_INTR = 0x02
    STS_DEV_ERR = 0x04
    STS_BUS_ERR = 0x08
    STS_FAILED = 0x10
    STS_BYTE_DONE = 0x80      # ICH9 20.2.1

cdef enum:                    # SMBHSTCNT
    CNT_INTREN = 0x01
    CNT_KILL = 0x02
    CNT_PROT = 0x1C           # protocol, bits 4-2
    CNT_LAST_BYTE = 0x20      # ICH9 20.2.2
    CNT_START = 0x40
    CNT_READ = 0x1F           # what a read returns

cdef enum:                    # protocols
    PROT_QUICK = 0
    PROT_BYTE = 1
    PROT_BYTE_DATA = 2
    PROT_WORD_DATA = 3
    PROT_PROC_CALL = 4
    PROT_BLOCK_DATA = 5
    PROT_I2C_READ = 6

cdef enum:                    # SMBAUXCTL
    AUX_E32B = 0x02           # SMBBLKDAT is a window to a buffer of 32 bytes
    AUX_WMASK = 0x03

cdef enum:
    BLOCK_MAX = 32            # SMBus 2.0, 5.5.7
    N_EEPROMS = 8             # at 50h to 57h
    EEPROM_BASE = 0x50
    EEPROM_SIZE = 256
    WIRE_MAX = 34             # command, count and a block
    BROADCAST = 0x00          # the general call address

cdef enum:                    # what a slave is in the middle of
    SLAVE_IDLE = 0
    SLAVE_WRITE = 1
    SLAVE_READ = 2
    SLAVE_DONE = 3
    SLAVE_CONFUSED = 4

# Bytes only, so that it fits anywhere in a state struct.  SMBUS_STATE describes the fields.
cdef struct smbus_state:
    uint8_t sts, cnt, cmd, addr, dat0, dat1, blkdat, auxctl
    uint8_t index             # place in block[]
    uint8_t done              # no block transfer is under way
    uint8_t i2c_read          # an I2C read is: the bytes come from the slave one by one
    uint8_t i2c               # I2C_EN (ICH9 20.1 HOSTC): blocks go without command and count
    uint8_t deferred          # a started transaction waits for a read of SMBHSTSTS
    uint8_t block[32]
    uint8_t present           # bit n: there is an EEPROM at 50h + n
    uint8_t selected          # bit n: EEPROM n takes part in the transfer on the wires
    uint8_t general           # the transfer is a general call
    uint8_t mode[8]
    uint8_t sent[8]           # bytes of wire[] that came in
    uint8_t wire[272]         # 8 slaves * WIRE_MAX
    uint8_t at[8]             # each EEPROM's address counter
    uint8_t eeprom[2048]

cdef void smbus_init(smbus_state *s, uint8_t present, const uint8_t *contents) noexcept nogil
cdef void eeproms_reset(smbus_state *s, const uint8_t *contents) noexcept nogil
cdef void smbus_reset(smbus_state *s) noexcept nogil
cdef uint8_t smbus_read(smbus_state *s, uint32_t offset) noexcept nogil
cdef void smbus_write(smbus_state *s, uint32_t offset, uint8_t value) noexcept nogil
cdef bint smbus_irq(const smbus_state *s) noexcept nogil
