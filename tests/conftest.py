"""What every test needs."""

import signal

# A shell's background job starts with Ctrl-C ignored, and every process of it, too: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
