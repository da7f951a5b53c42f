"""Devices that fail in their worker and not in the process that plans the machine."""

import os
import signal
import time
from typing import ClassVar

from engine import PyDevice, Region, Space


class Faulty(PyDevice):
    """`how` happens when a worker makes the device, `on_write` when it is written, `on_inspect` when inspected."""

    CONFIG: ClassVar = {"parent": 0, "how": "", "on_write": "", "on_inspect": ""}

    def setup(self):
        if os.getpid() != self.config["parent"]:
            self.fail("how")

    def regions(self):
        return (Region("port", Space.PIO, 4, posted=True),)

    def read(self, region, offset, size):
        return self.value

    def write(self, region, offset, size, value):
        self.value = value
        self.fail("on_write")

    def inspect(self):
        self.fail("on_inspect")
        return super().inspect()

    def on_reset(self, kind):
        self.value = 0

    def fail(self, when):
        what = self.config[when]
        if what == "raise":
            raise FileNotFoundError("disk.img: no such file")
        if what == "exit":
            os._exit(7)
        if what == "leave":
            raise SystemExit("a device does not decide this")
        if what == "interrupt":  # the user presses Ctrl-C while the device is busy
            os.kill(self.config["parent"], signal.SIGINT)
        if what in ("hang", "interrupt"):
            time.sleep(60)
