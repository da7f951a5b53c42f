"""A software TPM behind a TPM's registers: swtpm's control and data sockets (swtpm_ioctl(8), "CMD_..." commands)."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:                 # control commands
    CMD_GET_CAPABILITY = 1
    CMD_INIT = 2
    CMD_SHUTDOWN = 3
    CMD_GET_ESTABLISHED = 4
    CMD_SET_LOCALITY = 5
    CMD_CANCEL = 9
    CMD_RESET_ESTABLISHED = 11
    CMD_STOP = 14
    CMD_SET_DATAFD = 16
    CMD_SET_BUFFERSIZE = 17

cdef enum:
    TPM_HEADER = 10        # tag, size, code: big endian
    TPM_BUFFER = 4096

cdef class Swtpm:
    cdef readonly str path
    cdef readonly uint32_t buffer_size
    cdef readonly uint64_t errors      # commands that were not answered
    cdef readonly bint established
    cdef object held                   # the sockets
    cdef int control
    cdef int data
    cdef int patience_ms
    cdef uint8_t locality
    cdef bint busy                     # a command has been sent, its answer not been read
    cdef int command(self, uint32_t number, const uint8_t *body, uint32_t n, uint8_t *answer, uint32_t wanted) noexcept nogil
    cdef int startup(self) noexcept nogil
    cdef int begin(self, uint8_t locality, const uint8_t *request, uint32_t n) noexcept nogil
    cdef int finish(self, uint8_t *response, uint32_t room) noexcept nogil
    cdef void cancel(self) noexcept nogil
    cdef void reset_established(self, uint8_t locality) noexcept nogil

cdef void fatal_response(uint8_t *response) noexcept nogil
cdef uint32_t message_size(const uint8_t *message) noexcept nogil
