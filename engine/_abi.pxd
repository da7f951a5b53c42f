"""C view of engine/_abi.h: the structures in shared memory and the constants of their fields."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "_abi.h" nogil:
    const uint32_t ENGINE_ABI_MAGIC
    const uint32_t ENGINE_ABI_VERSION
    const uint64_t ENGINE_CAUSE_TIMER
    ctypedef struct engine_acc:
        uint64_t t_ns, addr, value
        uint16_t vcpu
        uint8_t size, space, dir, flags
        uint16_t region
    ctypedef struct engine_rec:
        uint64_t t_ns, addr, value
        uint32_t region
        uint16_t vcpu
        uint8_t op, more
    ctypedef struct engine_cpl:
        uint64_t value
        uint32_t seq
        uint8_t status, flags
        uint16_t pad
    ctypedef struct engine_next:
        uint64_t t_ns, value
    ctypedef struct engine_next_cpl:
        uint32_t value
        uint8_t status
    ctypedef struct engine_effect:
        uint64_t t_ns, cause, value
        uint32_t addr
        uint16_t device
        uint8_t pin, kind
    ctypedef struct engine_slot:
        uint32_t state, pad0
        engine_rec rec
        uint64_t after, value
        uint32_t status, pad1
    enum:
        ENGINE_PIO
        ENGINE_MMIO
        ENGINE_CONFIG
        ENGINE_FLAG_UNASSIGNED
        ENGINE_FLAG_ERROR
        ENGINE_FLAG_SMM
        ENGINE_FLAG_SPLIT
        ENGINE_FLAG_OTHER_AS
        ENGINE_REC_PIO
        ENGINE_REC_MMIO
        ENGINE_REC_CONFIG
        ENGINE_REC_INTACK
        ENGINE_REC_INPUT
        ENGINE_REC_SETTLE
        ENGINE_REC_MAP
        ENGINE_REC_RESET
        ENGINE_REC_SNAPSHOT
        ENGINE_REC_KIND_MASK
        ENGINE_OP_WRITE
        ENGINE_OP_SIZE_SHIFT
        ENGINE_CPL_CONTENT
        ENGINE_STRING
        ENGINE_CAUSE_NEXT
        ENGINE_EFFECT_LINE
        ENGINE_EFFECT_MESSAGE
        ENGINE_EFFECT_MAP
        ENGINE_EFFECT_RESET
        ENGINE_SLOT_NONE
        ENGINE_SLOT_READY
        ENGINE_SLOT_IN_PROCESS
        ENGINE_SLOT_RESPONSE
    ctypedef struct engine_segment:
        uint32_t magic, version
        uint64_t size
        uint32_t kind, header_size, creator, pad
        char name[32]
    ctypedef struct engine_counters:
        uint64_t full, dropped, stalled, bad
    ctypedef struct engine_stamp:
        uint64_t taken, done
    ctypedef struct engine_link:
        engine_segment segment
        uint32_t n_vcpus, n_units, request_log2, effect_log2
        uint64_t slots_at, requests_at, completions_at, effects_at, deadlines_at, stamps_at
        uint64_t produced, posted, seen, kept
        uint64_t executed, answered
        uint64_t effects_produced, effects_consumed
        uint32_t worker_asleep, router_asleep, stop
        uint64_t heartbeat
        uint32_t worker_pid, worker_state
        engine_counters worker, router
    ctypedef struct engine_ring:
        engine_segment segment
        uint32_t item_size, log2
        uint64_t produced, consumed
        uint32_t consumer_asleep, producer_asleep
        engine_counters producer, consumer
    enum:
        ENGINE_SEGMENT_RAW
        ENGINE_SEGMENT_LINK
        ENGINE_SEGMENT_RING
        ENGINE_SEGMENT_ARENA
        ENGINE_LINK_HEADER
        ENGINE_WORKER_ABSENT
        ENGINE_WORKER_RUNNING
        ENGINE_WORKER_ENDED
        ENGINE_WORKER_FAILED


cdef inline uint64_t acc_possible(const engine_acc *a, uint64_t n, uint32_t spaces) noexcept nogil:
    """How many of n records, from the first on, a guest can make (see first_bad)."""
    cdef uint64_t i, kind, good = ~<uint64_t>0, beyond = 0
    for i in range(n):
        kind = (<const uint64_t *>&a[i])[3] & <uint64_t>0xFFFFFF0000      # size, space, dir
        if kind != good:                               # not of the same kind as the one before
            if (a[i].size == 0 or a[i].size > 8 or a[i].size & (a[i].size - 1) or a[i].space >= spaces or a[i].dir > 1
                    or (a[i].space == ENGINE_PIO and a[i].size > 4)):
                return i
            good = kind
            beyond = ~<uint64_t>0xffff if a[i].space == ENGINE_PIO else 0
        if a[i].addr & beyond or a[i].t_ns >> 63:
            return i
    return n
