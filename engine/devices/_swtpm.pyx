"""A software TPM behind a TPM's registers: swtpm's control and data sockets.

swtpm runs apart (`swtpm socket --tpm2 --tpmstate dir=D --ctrl type=unixio,path=SOCKET`) and keeps the TPM's state; this side
connects to its control socket and hands it one end of a socket pair for commands (CMD_SET_DATAFD), as the reference does.
Numbers on the control socket are big endian; each answer begins with a result, 0 for success.  TPM 2.0 Part 1, 18: the header
of commands and responses.

A command is sent when the guest starts it and its response is read when the guest's clock reaches the moment the device has
declared for it; reading waits, with a limit in host time, so that a slow swtpm costs host time and never changes what the
guest sees or when.  Used by the thread that owns the device.
"""
from libc.errno cimport EINTR, errno
from libc.string cimport memcpy, memset

import array
import socket
import stat

from engine.errors import MachineError

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int POLLIN
    int poll(pollfd *fds, unsigned long n, int timeout_ms)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    ssize_t send(int fd, const void *buf, size_t n, int flags)
    ssize_t recv(int fd, void *buf, size_t n, int flags)


CONNECT_S = 10             # for the first answer, in host time


cdef inline void put32(uint8_t *at, uint32_t v) noexcept nogil:
    at[0], at[1], at[2], at[3] = <uint8_t>(v >> 24), <uint8_t>(v >> 16), <uint8_t>(v >> 8), <uint8_t>v


cdef inline uint32_t get32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef uint32_t message_size(const uint8_t *message) noexcept nogil:
    """The size that a command or response says it has."""
    return get32(message + 2)


cdef void fatal_response(uint8_t *response) noexcept nogil:
    """What a TPM that has failed answers: TPM_TAG_RSP_COMMAND, TPM_FAIL."""
    memset(response, 0, TPM_HEADER)
    response[1], response[5], response[9] = 0xC4, TPM_HEADER, 9


cdef int all_of(int fd, uint8_t *buf, uint32_t n, int patience_ms) noexcept nogil:
    """Read n bytes, each part within the patience.  0, or -1."""
    cdef pollfd p
    cdef ssize_t got
    cdef int ready
    cdef uint32_t done = 0
    while done < n:
        p.fd, p.events, p.revents = fd, <short>POLLIN, 0
        ready = poll(&p, 1, patience_ms)
        if ready < 0 and errno == EINTR:
            continue
        if ready <= 0:
            return -1
        got = recv(fd, buf + done, n - done, 0)
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            return -1
        done += <uint32_t>got
    return 0


cdef int whole(int fd, const uint8_t *buf, uint32_t n) noexcept nogil:
    """Write n bytes.  0, or -1."""
    cdef ssize_t put
    cdef uint32_t done = 0
    while done < n:
        put = send(fd, buf + done, n - done, MSG_NOSIGNAL)
        if put < 0 and errno == EINTR:
            continue
        if put <= 0:
            return -1
        done += <uint32_t>put
    return 0


def check(str who, str path):
    """Raises MachineError, in one line, if there is no socket at `path`."""
    import os
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        raise MachineError(f"{who}: swtpm = {path!r}: {e.strerror}; start swtpm with --ctrl type=unixio,path={path}") from None
    if not stat.S_ISSOCK(mode):
        raise MachineError(f"{who}: swtpm = {path!r} is no socket")


cdef class Swtpm:
    """`Swtpm(who, path, patience_ms)`: connects and starts the TPM.  Raises MachineError, beginning with `who`."""

    def __cinit__(self):
        self.control = self.data = -1

    def __init__(self, str who, str path, int patience_ms):
        self.path = path
        self.patience_ms = patience_ms
        control = socket.socket(socket.AF_UNIX)
        own, theirs = socket.socketpair(socket.AF_UNIX)
        try:
            control.settimeout(CONNECT_S)
            control.connect(path)
            control.sendmsg([CMD_SET_DATAFD.to_bytes(4, "big")],
                            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
            answer = control.recv(4)
            control.settimeout(None)
        except OSError as e:
            control.close()
            own.close()
            raise MachineError(f"{who}: swtpm at {path}: {e.strerror or e}") from None
        finally:
            theirs.close()
        self.held = (control, own)
        self.control, self.data = control.fileno(), own.fileno()
        if answer != bytes(4):
            raise MachineError(f"{who}: swtpm at {path} takes no data channel")
        if self.startup():
            raise MachineError(f"{who}: swtpm at {path} does not start its TPM")

    cdef int command(self, uint32_t number, const uint8_t *body, uint32_t n, uint8_t *answer, uint32_t wanted) noexcept nogil:
        """A control command and its answer of `wanted` bytes, the result first.  0 for success."""
        cdef uint8_t request[24]
        put32(request, number)
        memcpy(request + 4, body, n)
        if whole(self.control, request, 4 + n) or all_of(self.control, answer, wanted, self.patience_ms):
            self.errors += 1
            return -1
        return 0 if get32(answer) == 0 else -1

    cdef int startup(self) noexcept nogil:
        """As after power-on: the TPM is stopped, its buffer sized, and initialised.  0, or -1."""
        cdef uint8_t body[4]
        cdef uint8_t answer[16]
        cdef uint8_t scrap[TPM_BUFFER]
        if self.busy:
            self.finish(scrap, TPM_BUFFER)          # or its response would be the next command's
        put32(body, 0)
        if self.command(CMD_STOP, body, 0, answer, 4):
            return -1
        put32(body, TPM_BUFFER)
        if self.command(CMD_SET_BUFFERSIZE, body, 4, answer, 16):
            return -1
        self.buffer_size = min(get32(answer + 4), <uint32_t>TPM_BUFFER)
        put32(body, 0)
        if self.command(CMD_INIT, body, 4, answer, 4):
            return -1
        self.locality = 0xFF
        if self.command(CMD_GET_ESTABLISHED, body, 0, answer, 8):
            return -1
        self.established = answer[4] != 0
        return 0

    cdef int begin(self, uint8_t locality, const uint8_t *request, uint32_t n) noexcept nogil:
        """Send a command.  0, or -1."""
        cdef uint8_t body[4]
        cdef uint8_t answer[4]
        if locality != self.locality:
            put32(body, <uint32_t>locality << 24)
            if self.command(CMD_SET_LOCALITY, body, 4, answer, 4):
                return -1
            self.locality = locality
        if whole(self.data, request, n):
            self.errors += 1
            return -1
        self.busy = True
        return 0

    cdef int finish(self, uint8_t *response, uint32_t room) noexcept nogil:
        """Read the response of the command under way.  0, or -1."""
        cdef uint32_t n
        self.busy = False
        if all_of(self.data, response, TPM_HEADER, self.patience_ms):
            self.errors += 1
            return -1
        n = message_size(response)
        if n < TPM_HEADER or n > room or all_of(self.data, response + TPM_HEADER, n - TPM_HEADER, self.patience_ms):
            self.errors += 1
            return -1
        return 0

    cdef void cancel(self) noexcept nogil:
        """Ask for an early end of the command under way."""
        cdef uint8_t answer[4]
        self.command(CMD_CANCEL, answer, 0, answer, 4)

    cdef void reset_established(self, uint8_t locality) noexcept nogil:
        cdef uint8_t body[4]
        cdef uint8_t answer[4]
        put32(body, <uint32_t>locality << 24)
        if self.command(CMD_RESET_ESTABLISHED, body, 4, answer, 4) == 0:
            self.established = False

    def close(self):
        """Let go of swtpm, which keeps running."""
        if self.held is not None:
            for s in self.held:
                s.close()
            self.held, self.control, self.data = None, -1, -1
