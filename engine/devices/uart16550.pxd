"""NS16550A.  Names and section numbers: National Semiconductor PC16550D data sheet (June 1995), section 8."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind
from engine.devices._output cimport OutputRing

cdef enum:                  # byte offsets; DLL and DLM replace 0 and 1 while LCR_DLAB is set
    RBR = 0
    THR = 0
    DLL = 0
    IER = 1
    DLM = 1
    IIR = 2                 # read
    FCR = 2                 # write
    LCR = 3
    MCR = 4
    LSR = 5
    MSR = 6
    SCR = 7

cdef enum:                  # interrupt enable (8.7)
    IER_ERBFI = 0x01        # received data available, and character time-out
    IER_ETBEI = 0x02        # transmitter holding register empty
    IER_ELSI = 0x04         # receiver line status
    IER_EDSSI = 0x08        # modem status
    IER_WMASK = 0x0F

cdef enum:                  # interrupt identification (8.6)
    IIR_NONE = 0x01
    IIR_MODEM = 0x00
    IIR_THRE = 0x02
    IIR_DATA = 0x04
    IIR_LINE = 0x06
    IIR_TIMEOUT = 0x0C
    IIR_ID = 0x0F
    IIR_FIFO = 0xC0         # FIFOs on

cdef enum:                  # FIFO control (8.5)
    FCR_ENABLE = 0x01
    FCR_RX_RESET = 0x02     # these two clear themselves
    FCR_TX_RESET = 0x04
    FCR_DMA = 0x08
    FCR_TRIGGER = 0xC0
    FCR_KEPT = FCR_ENABLE | FCR_DMA | FCR_TRIGGER

cdef enum:                  # line control (8.1)
    LCR_WLS = 0x03          # data bits - 5
    LCR_STB = 0x04          # two stop bits
    LCR_PEN = 0x08          # parity
    LCR_BREAK = 0x40
    LCR_DLAB = 0x80

cdef enum:                  # modem control (8.8)
    MCR_DTR = 0x01
    MCR_RTS = 0x02
    MCR_OUT1 = 0x04
    MCR_OUT2 = 0x08
    MCR_LOOP = 0x10
    MCR_WMASK = 0x1F
    MCR_RESET = MCR_OUT2

cdef enum:                  # line status (8.4)
    LSR_DR = 0x01
    LSR_OE = 0x02
    LSR_PE = 0x04
    LSR_FE = 0x08
    LSR_BI = 0x10
    LSR_THRE = 0x20
    LSR_TEMT = 0x40
    LSR_ERRORS = LSR_OE | LSR_PE | LSR_FE | LSR_BI
    LSR_RESET = LSR_THRE | LSR_TEMT

cdef enum:                  # modem status (8.9)
    MSR_DELTAS = 0x0F
    MSR_CTS = 0x10
    MSR_DSR = 0x20
    MSR_RI = 0x40
    MSR_DCD = 0x80
    MSR_RESET = MSR_CTS | MSR_DSR | MSR_DCD

cdef enum:
    FIFO = 16
    DIVISOR_RESET = 12      # 9600 baud
    INPUT_BREAK = 1         # pin of INPUT_PACKET

cdef struct uart_state:
    device_core core
    uint64_t char_ns        # time of one character on the line
    uint16_t divisor
    uint8_t rbr             # receiver buffer without FIFOs
    uint8_t ier
    uint8_t iir
    uint8_t fcr             # FCR_KEPT
    uint8_t lcr
    uint8_t mcr
    uint8_t lsr
    uint8_t msr
    uint8_t scr
    uint8_t thre_pending    # the THRE interrupt is due, or was not yet seen
    uint8_t timeout_pending # characters have waited for four character times
    uint8_t first           # receiver FIFO
    uint8_t count
    uint8_t fifo[16]

cdef class Uart16550(Device):
    cdef uart_state *s
    cdef OutputRing ring
    cdef bint log
    cdef void update_irq(self) noexcept nogil
    cdef void update_line(self) noexcept nogil
    cdef uint8_t read_rbr(self) noexcept nogil
    cdef void write_thr(self, uint8_t v) noexcept nogil
    cdef void write_ier(self, uint8_t v) noexcept nogil
    cdef void write_fcr(self, uint8_t v) noexcept nogil
    cdef uint8_t loop_msr(self) noexcept nogil
    cdef void receive(self, uint8_t v) noexcept nogil
    cdef void receive_break(self) noexcept nogil
    cdef void wait_timeout(self) noexcept nogil
