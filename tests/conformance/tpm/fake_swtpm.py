"""A stand-in for swtpm: its control protocol, and a TPM that answers each command with the command's last bytes.

A process of its own, as swtpm is: whoever waits for it may hold the interpreter lock.
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

# Control command -> (bytes that follow its number, bytes of its answer)
SIZES = {2: (4, 4), 4: (0, 8), 5: (4, 4), 9: (0, 4), 11: (4, 4), 14: (0, 4), 17: (4, 16)}
SET_DATAFD, SET_BUFFERSIZE, GET_ESTABLISHED, SET_LOCALITY, RESET_ESTABLISHED = 16, 17, 4, 5, 11


class FakeSwtpm:
    """Serves one client.  mute: it answers no command."""

    def __init__(self, folder: Path, mute: bool = False) -> None:
        self.path = str(folder / "swtpm.sock")
        self._said = folder / "said"
        self._said.touch()
        command = [sys.executable, __file__, self.path, str(self._said), str(int(mute))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # it listens

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _rows(self, kind: str) -> list[str]:
        return [line[2:] for line in self._said.read_text().splitlines() if line.startswith(kind)]

    @property
    def log(self) -> list[int]:
        """The control commands, in order."""
        return [int(row.split()[0]) for row in self._rows("c")]

    @property
    def localities(self) -> list[int]:
        """Those that were set."""
        return [int(row.split()[1][:2], 16) for row in self._rows("c") if row.startswith(f"{SET_LOCALITY} ")]

    @property
    def seen(self) -> list[bytes]:
        """The commands on the data channel."""
        return [bytes.fromhex(row) for row in self._rows("d")]


def serve(path: str, said: Path, mute: bool) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    print("ready", flush=True)
    control, _ = listener.accept()
    data: socket.socket | None = None
    with said.open("w", buffering=1) as out:
        while True:
            ready, _, _ = select.select([control] + [data] * (data is not None), [], [])
            if data is not None and data in ready:
                head = data.recv(10, socket.MSG_WAITALL)
                if len(head) < 10:
                    return
                rest = data.recv(struct.unpack(">I", head[2:6])[0] - 10, socket.MSG_WAITALL) if head[5] > 10 else b""
                print("d", (head + rest).hex(), file=out)
                if not mute:
                    data.sendall(b"\x80\x01" + struct.pack(">II", 10 + len(rest), 0) + rest)
                continue
            head, fds, _, _ = socket.recv_fds(control, 4, 1)
            if len(head) < 4:
                return
            (number,) = struct.unpack(">I", head)
            if number == SET_DATAFD:
                data = socket.socket(fileno=fds[0])
                print("c", number, file=out)
                control.sendall(bytes(4))
                continue
            wanted, size = SIZES[number]
            body = control.recv(wanted, socket.MSG_WAITALL) if wanted else b""
            print("c", number, body.hex(), file=out)
            answer = bytes(4)
            if number == SET_BUFFERSIZE:
                answer += body
            elif number == GET_ESTABLISHED:
                answer += b"\1"
            control.sendall(answer.ljust(size, b"\0"))


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "1")
