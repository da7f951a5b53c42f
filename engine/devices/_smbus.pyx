"""SMBus host controller of PIIX4 and the ICHs with serial EEPROMs (SPD) on the bus.

Documents: PIIX4 290562-001 section 7.3, ICH9 316972-004 section 20.2, SMBus 2.0.  A transaction takes no time: it is over when
SMBHSTCNT has been written, or, with interrupts off, when SMBHSTSTS is next read, which itself still shows HOST_BUSY (some
firmware insists on seeing it).  Not modelled: the slave interface, alerts, PEC, the process call (DEV_ERR), arbitration.
Functions over smbus_state, called by the worker that owns the struct only.
"""
from libc.string cimport memcpy, memset

from engine.errors import MachineError

SMBUS_STATE = (
    *((name, "u1") for name in ("smb_sts", "smb_cnt", "smb_cmd", "smb_addr", "smb_dat0", "smb_dat1", "smb_blkdat",
                                "smb_auxctl", "smb_index", "smb_done", "smb_i2c_read", "smb_i2c", "smb_deferred")),
    ("smb_block", "u1", BLOCK_MAX), ("smb_present", "u1"), ("smb_selected", "u1"), ("smb_general", "u1"),
    ("smb_mode", "u1", N_EEPROMS), ("smb_sent", "u1", N_EEPROMS), ("smb_wire", "u1", N_EEPROMS * WIRE_MAX),
    ("smb_at", "u1", N_EEPROMS), ("smb_eeprom", "u1", N_EEPROMS * EEPROM_SIZE))


def spd_contents(id, eeproms, spd):
    """The bytes of all EEPROMs, zeros behind the hexadecimal text.  Raises MachineError for what does not fit."""
    if not 0 <= eeproms <= N_EEPROMS:
        raise MachineError(f"{id}: eeproms = {eeproms}; there is room for {N_EEPROMS}")
    try:
        given = bytes.fromhex(spd)
    except ValueError as e:
        raise MachineError(f"{id}: spd: {e}") from None
    if len(given) > eeproms * EEPROM_SIZE:
        raise MachineError(f"{id}: spd: {len(given)} bytes do not fit {eeproms} EEPROMs of {EEPROM_SIZE}")
    return given.ljust(N_EEPROMS * EEPROM_SIZE, b"\0")


# ---------------------------------------------------------------------- the EEPROMs: SMBus 2.0 chapter 5, byte by byte

cdef void eeprom_take(smbus_state *s, int n) noexcept nogil:
    """Slave n has all bytes of a write: the first sets its address counter, the others are stored."""
    cdef int i
    s.at[n] = s.wire[n * WIRE_MAX]
    for i in range(1, min(s.sent[n], WIRE_MAX)):
        s.eeprom[n * EEPROM_SIZE + s.at[n]] = s.wire[n * WIRE_MAX + i]
        s.at[n] += 1


cdef bint bus_start(smbus_state *s, uint8_t addr, bint read) noexcept nogil:
    """A start condition and an address.  True if a slave acknowledged.  On a busy bus it is a repeated start, which stays
    with the slaves selected by the first one."""
    cdef int n
    if addr == BROADCAST:
        s.general = 1
    if not s.selected:
        if s.general:
            s.selected = s.present
        elif EEPROM_BASE <= addr < EEPROM_BASE + N_EEPROMS:
            s.selected = s.present & <uint8_t>(1 << (addr - EEPROM_BASE))
        if not s.selected:
            return False
    for n in range(N_EEPROMS):
        if not s.selected >> n & 1:
            continue
        if s.mode[n] == SLAVE_IDLE:
            s.mode[n] = SLAVE_READ if read else SLAVE_WRITE
        elif read and s.mode[n] == SLAVE_WRITE and s.sent[n]:
            eeprom_take(s, n)
            s.mode[n] = SLAVE_READ
        else:
            s.mode[n] = SLAVE_CONFUSED
    return True


cdef void bus_send(smbus_state *s, uint8_t byte) noexcept nogil:
    cdef int n
    for n in range(N_EEPROMS):
        if s.selected >> n & 1 and s.mode[n] == SLAVE_WRITE and s.sent[n] < WIRE_MAX:
            s.wire[n * WIRE_MAX + s.sent[n]] = byte
            s.sent[n] += 1


cdef uint8_t bus_recv(smbus_state *s) noexcept nogil:
    """A byte from the one slave selected; ones if the bus floats."""
    cdef int n
    cdef uint8_t byte
    if s.general:
        return 0xff
    for n in range(N_EEPROMS):
        if s.selected >> n & 1:
            if s.mode[n] != SLAVE_READ:
                s.mode[n] = SLAVE_CONFUSED
                return 0xff
            byte = s.eeprom[n * EEPROM_SIZE + s.at[n]]
            s.at[n] += 1
            return byte
    return 0xff


cdef void bus_nack(smbus_state *s) noexcept nogil:
    cdef int n
    for n in range(N_EEPROMS):
        if s.selected >> n & 1 and s.mode[n] != SLAVE_DONE:
            s.mode[n] = SLAVE_DONE if s.mode[n] == SLAVE_READ else SLAVE_CONFUSED


cdef void bus_stop(smbus_state *s) noexcept nogil:
    cdef int n
    for n in range(N_EEPROMS):
        if s.selected >> n & 1:
            if s.mode[n] == SLAVE_WRITE and s.sent[n]:
                eeprom_take(s, n)
            s.mode[n] = SLAVE_IDLE
            s.sent[n] = 0
    s.selected = 0
    s.general = 0


# ---------------------------------------------------------------------- the protocols: SMBus 2.0, 5.5

cdef int write_bytes(smbus_state *s, uint8_t addr, int n, const uint8_t *bytes) noexcept nogil:
    """Start, n bytes, stop.  -1 if nobody acknowledged."""
    cdef int i
    if not bus_start(s, addr, False):
        return -1
    for i in range(n):
        bus_send(s, bytes[i])
    bus_stop(s)
    return 0


cdef int begin_read(smbus_state *s, uint8_t addr, uint8_t command) noexcept nogil:
    """Start, command, repeated start for reading.  -1 if nobody acknowledged."""
    if not bus_start(s, addr, False):
        return -1
    bus_send(s, command)
    if not bus_start(s, addr, True):
        bus_stop(s)
        return -1
    return 0


cdef int write_block(smbus_state *s, uint8_t addr) noexcept nogil:
    """Command, count (unless the bus is I2C), block: 5.5.7."""
    cdef uint8_t bytes[34]
    cdef int i, n = min(s.dat0, BLOCK_MAX), at = 1
    bytes[0] = s.cmd
    if not s.i2c:
        bytes[1] = <uint8_t>n
        at = 2
    for i in range(n):
        bytes[at + i] = s.block[i]
    return write_bytes(s, addr, at + n, bytes)


cdef int read_block(smbus_state *s, uint8_t addr) noexcept nogil:
    """The number of bytes that came, in block[]; -1 if nobody acknowledged.  A count above 32 is taken for none.  On an I2C
    bus no command is sent, and 32 bytes are read."""
    cdef int i, n = BLOCK_MAX
    if not s.i2c:
        if begin_read(s, addr, s.cmd):
            return -1
        n = bus_recv(s)
        if n > BLOCK_MAX:
            n = 0
    elif not bus_start(s, addr, True):
        return -1
    for i in range(n):
        s.block[i] = bus_recv(s)
    bus_nack(s)
    bus_stop(s)
    return n


cdef int transact(smbus_state *s) noexcept nogil:
    """The transaction that SMBHSTCNT describes.  Sets the data and status registers; -1: DEV_ERR is due."""
    cdef int protocol = (s.cnt & CNT_PROT) >> 2, got
    cdef uint8_t addr = s.addr >> 1
    cdef bint read = s.addr & 1
    cdef uint8_t bytes[3]
    bytes[0] = s.cmd
    bytes[1] = s.dat0
    bytes[2] = s.dat1
    if protocol == PROT_QUICK:
        if not bus_start(s, addr, read):
            return -1
        bus_stop(s)
    elif protocol == PROT_BYTE and read:
        if not bus_start(s, addr, True):
            return -1
        s.dat0 = bus_recv(s)
        bus_nack(s)
        bus_stop(s)
    elif protocol == PROT_BYTE:
        if write_bytes(s, addr, 1, bytes):
            return -1
    elif protocol == PROT_BYTE_DATA or protocol == PROT_WORD_DATA:
        if not read:
            if write_bytes(s, addr, protocol, bytes):
                return -1
        else:
            if begin_read(s, addr, s.cmd):
                return -1
            s.dat0 = bus_recv(s)
            if protocol == PROT_WORD_DATA:
                s.dat1 = bus_recv(s)
            bus_nack(s)
            bus_stop(s)
    elif protocol == PROT_I2C_READ:         # ICH9 5.20.1.1: the byte to send is in DAT1; bit 0 of the address is ignored
        if not bus_start(s, addr, False):
            return -1
        bus_send(s, s.dat1)
        if not bus_start(s, addr, True):
            return -1
        s.i2c_read = 1
        s.blkdat = bus_recv(s)
        s.done = 0
        s.sts |= STS_HOST_BUSY | STS_BYTE_DONE
        return 0
    elif protocol == PROT_BLOCK_DATA and read:
        got = read_block(s, addr)
        if got < 0:
            return -1
        s.index = 0
        s.done = 0
        s.dat0 = <uint8_t>got
        if s.auxctl & AUX_E32B:
            s.sts |= STS_INTR
        else:
            s.blkdat = s.block[0]
            s.sts |= STS_HOST_BUSY | STS_BYTE_DONE
        return 0
    elif protocol == PROT_BLOCK_DATA and s.auxctl & AUX_E32B:
        got = s.index
        s.index = 0
        if got != s.dat0 or write_block(s, addr):
            return -1
        s.done = 1
        s.sts = s.sts & ~STS_HOST_BUSY | STS_INTR
        return 0
    elif protocol == PROT_BLOCK_DATA:
        s.done = 0
        s.sts |= STS_HOST_BUSY | STS_BYTE_DONE
        s.block[0] = s.blkdat
        s.index = 0
        return 0
    else:
        return -1
    s.sts |= STS_INTR
    return 0


cdef void run(smbus_state *s) noexcept nogil:
    """DEV_ERR left from before stops a transaction, too."""
    if s.sts & STS_DEV_ERR or transact(s):
        s.sts |= STS_DEV_ERR


# ---------------------------------------------------------------------- the registers

cdef void next_byte(smbus_state *s) noexcept nogil:
    """BYTE_DONE was cleared in the middle of a block that goes byte by byte: ICH9 20.2.1."""
    cdef bint read = s.addr & 1 or s.i2c_read
    s.index = (s.index + 1) % BLOCK_MAX
    if not read and s.index == s.dat0:
        if (s.cnt & CNT_PROT) >> 2 == PROT_I2C_READ or write_block(s, s.addr >> 1):
            s.sts |= STS_DEV_ERR
            return
        s.done = 1
        s.sts = s.sts & ~STS_HOST_BUSY | STS_INTR
    elif not read:
        s.block[s.index] = s.blkdat
        s.sts |= STS_BYTE_DONE
    elif s.cnt & CNT_LAST_BYTE:
        s.done = 1
        if s.i2c_read:
            s.i2c_read = 0
            s.blkdat = bus_recv(s)
            bus_nack(s)
            bus_stop(s)
        else:
            s.blkdat = s.block[s.index]
        s.index = 0
        s.sts = s.sts & ~STS_HOST_BUSY | STS_INTR
    else:
        s.blkdat = bus_recv(s) if s.i2c_read else s.block[s.index]
        s.sts |= STS_BYTE_DONE


cdef void smbus_write(smbus_state *s, uint32_t offset, uint8_t value) noexcept nogil:
    """A byte written to a register."""
    cdef bint cleared
    if offset == SMBHSTSTS:
        cleared = s.sts & value & STS_BYTE_DONE
        s.sts &= ~(value & ~<uint8_t>STS_HOST_BUSY)
        if cleared and not s.done and (s.i2c_read or not s.auxctl & AUX_E32B):
            next_byte(s)
    elif offset == SMBHSTCNT:
        s.cnt = value & ~<uint8_t>CNT_START
        if value & CNT_START:
            if not s.done:
                s.index = 0
                s.done = 1
                if s.i2c_read:
                    s.i2c_read = 0
                    bus_stop(s)
            s.deferred = not value & CNT_INTREN
            if s.deferred:
                s.sts |= STS_HOST_BUSY
            else:
                run(s)
        if value & CNT_KILL:
            s.done = 1
            s.index = 0
            s.sts = s.sts & ~STS_HOST_BUSY | STS_FAILED
    elif offset == SMBHSTCMD:
        s.cmd = value
    elif offset == SMBHSTADD:
        s.addr = value
    elif offset == SMBHSTDAT0:
        s.dat0 = value
    elif offset == SMBHSTDAT1:
        s.dat1 = value
    elif offset == SMBBLKDAT:
        if s.index >= BLOCK_MAX:
            s.index = 0
        if s.auxctl & AUX_E32B:
            s.block[s.index] = value
            s.index += 1
        else:
            s.blkdat = value
    elif offset == SMBAUXCTL:
        s.auxctl = value & AUX_WMASK


cdef uint8_t smbus_read(smbus_state *s, uint32_t offset) noexcept nogil:
    """A byte read from a register.  Those that are not there read as zero."""
    cdef uint8_t value
    if offset == SMBHSTSTS:
        value = s.sts
        if s.deferred:
            s.deferred = 0
            s.sts &= ~<uint8_t>STS_HOST_BUSY
            run(s)
        return value
    elif offset == SMBHSTCNT:
        return s.cnt & CNT_READ
    elif offset == SMBHSTCMD:
        return s.cmd
    elif offset == SMBHSTADD:
        return s.addr
    elif offset == SMBHSTDAT0:
        return s.dat0
    elif offset == SMBHSTDAT1:
        return s.dat1
    elif offset == SMBBLKDAT:
        if not s.auxctl & AUX_E32B or s.i2c_read:
            return s.blkdat
        if s.index >= BLOCK_MAX:
            s.index = 0
        value = s.block[s.index]
        s.index += 1
        if not s.done and s.index == s.dat0:
            s.done = 1
            s.index = 0
            s.sts &= ~<uint8_t>STS_HOST_BUSY
        return value
    elif offset == SMBAUXCTL:
        return s.auxctl
    return 0


cdef bint smbus_irq(const smbus_state *s) noexcept nogil:
    """The controller's interrupt request."""
    return s.cnt & CNT_INTREN and s.sts & ~<uint8_t>STS_HOST_BUSY


cdef void smbus_init(smbus_state *s, uint8_t present, const uint8_t *contents) noexcept nogil:
    """As after power-on, with the EEPROMs of the mask `present`; `contents`: all their bytes."""
    memset(s, 0, sizeof(smbus_state))
    s.done = 1
    s.auxctl = AUX_E32B
    s.present = present
    eeproms_reset(s, contents)


cdef void eeproms_reset(smbus_state *s, const uint8_t *contents) noexcept nogil:
    """The slaves as the board's reset leaves them: what was written to them is gone."""
    memset(s.at, 0, sizeof(s.at))
    memcpy(s.eeprom, contents, sizeof(s.eeprom))


cdef void smbus_reset(smbus_state *s) noexcept nogil:
    """The controller's own reset (ICH9's HOSTC.SSRESET)."""
    s.done = 1
    s.index = 0
    s.sts = 0
