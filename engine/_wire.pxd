"""Outputs that drive their wire again at the level that it has, for readers that take each rise that they are told for an edge."""
from libc.stdint cimport uint8_t, uint32_t

from engine._abi cimport ENGINE_EFFECT_LINE
from engine._device cimport Device

cdef enum:
    LINE_AGAIN = 2      # value of an ENGINE_EFFECT_LINE: high, and it was

cdef inline void drive(Device d, uint32_t pin, bint level) noexcept nogil:
    """As set_line; a high output that is driven high once more is told, too."""
    if level and d.line_level(pin):
        d.emit(ENGINE_EFFECT_LINE, <uint8_t>pin, 0, LINE_AGAIN)
    else:
        d.set_line(pin, level)
