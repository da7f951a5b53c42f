"""One router's sequencer: numbers the inputs, moves time, carries effects along the wires, on every path the same."""
from cpython.ref cimport PyObject
from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine._abi cimport engine_acc, engine_effect, engine_rec, engine_stamp
from engine._dispatch cimport dispatch_entry, dispatch_table
from engine._device cimport effect_queue
from engine._executor cimport Executor, region_entry, unit_entry
from engine._ring cimport link_view
from engine.workers._wait cimport waiter

# An input that is no access, as a front-end hands it over (INPUT dtype): before access `index`, at its own time.
cdef packed struct seq_input:
    uint64_t t_ns
    uint64_t index         # the access it comes before
    uint64_t addr          # INPUT_MESSAGE: address; SEQ_RAM: guest-physical address
    uint64_t value         # what the device gets; SEQ_RAM: offset in the RAM bytes << 32 | length
    uint32_t kind          # INPUT_* of the device contract, or SEQ_RAM
    uint32_t target        # rank << 8 | pin

cdef enum:
    SEQ_RAM = 255          # bytes appear in guest RAM
    SEQ_LOCAL = 0          # paths
    SEQ_SYNC = 1
    SEQ_BUFFERED = 2
    SEQ_BATCHED = 3

# The order of everything: key = index << 21 | place << 1 | phase.  place is the input's number before that access, or
# PLACE_ACCESS for the access itself; phase 0 is "as the clock moved up to it", 1 is "in it".
cdef enum:
    PLACE_ACCESS = (1 << 20) - 1
    KEY_INDEX_SHIFT = 21

cdef struct fx_item:       # one effect on its way to a net
    uint64_t key
    uint64_t t_ns
    uint32_t delta         # length of the chain of effects since the input
    uint32_t n             # counts the effects of its source device
    uint16_t rank
    uint8_t level
    uint8_t pad
    uint32_t addr
    uint64_t value

cdef struct fx_vec:
    fx_item *at
    uint32_t n, cap

cdef struct held_item:     # one record on its way to a unit
    uint64_t key
    uint64_t t_ns
    uint32_t delta
    uint32_t n
    uint32_t aux           # input number, for its answer; NO_AUX
    uint16_t rank
    uint16_t pad
    engine_rec rec

cdef struct held_vec:
    held_item *at
    uint32_t n, cap

cdef struct net_entry:
    uint32_t high          # sources that are high
    int16_t line           # observed line, or -1
    uint16_t level         # after the units of this level - 1
    uint32_t first, n      # sinks
    fx_vec pend

cdef struct sink_entry:
    uint16_t rank
    uint8_t pin

cdef struct line_change:
    uint64_t key
    uint64_t t_ns
    uint16_t line
    uint8_t level

cdef struct map_change:
    uint16_t rank
    uint8_t index
    uint8_t on
    uint64_t base

cdef struct unit_route:
    int link               # which worker, -1: this process
    uint32_t lead          # rank of a member
    uint32_t level
    uint32_t source        # has wires to other units
    uint64_t deadline      # as last published
    uint64_t last          # ring index after its last posted record
    uint32_t touched       # records pushed since the last cut
    uint32_t is_sync       # never buffer its writes
    uint64_t clock_set     # batched: behind this cut a write was sent on its way that may set a member's clock
    held_vec held          # accesses waiting for upstream (batched)
    held_vec pend          # inputs from wires


# Where the last access went: offsets up to `span` from `base` in `space` (255: none) go there too.
cdef struct route:
    uint64_t base, span, delta
    uint32_t space
    uint32_t align         # 0 if accesses need not be aligned there, else all ones
    uint32_t region
    uint32_t unit          # who owns it
    uint32_t flags         # DISPATCH_*
    bint fresh             # it is not the one of the access before

# A register that shows the time: engine.types.Clock.
cdef struct clock_entry:
    uint64_t base          # its address
    uint64_t mask
    uint32_t hz
    uint8_t width          # bytes; 0: the region has none
    uint8_t least          # the narrowest access that its device sees as it is
    # Words of its device's state, in its worker's arena, that say how it runs; NULL: it shows the time
    const uint32_t *runs
    const uint64_t *ahead
    const uint64_t *halted
    uint32_t running       # which bits of `runs`
    uint64_t set_below     # a write below this address may change them

cdef struct seq_link:
    link_view *v
    PyObject *owner        # the Link; kept by Sequencer.links
    uint64_t *meta         # by ring index: key << 6 | delta
    uint32_t *aux          # by ring index
    uint8_t *more          # by ring index of an access: how many follow it, as in the record
    uint64_t *stamp        # by ring index / SAMPLE: TSC when pushed
    uint64_t slot_key
    uint32_t slot_delta
    uint64_t roused        # the worker was woken, if it slept, for the records before this
    uint32_t open          # records reserved and filled, not yet committed
    uint32_t batch         # accesses among them

cdef struct seq_counts:
    uint64_t local, router, sync, buffered, batched, fallback, batches, batch_accesses, inputs, settles, cuts

cdef class Sequencer:
    cdef readonly object plan
    cdef readonly object map           # Dispatcher
    cdef const dispatch_table *table
    cdef Executor local                # devices of this process; None when workers own all
    cdef bint python                   # some device of this process is written in Python
    cdef list links                    # Link objects
    cdef seq_link *link
    cdef uint32_t n_links
    cdef unit_route *units
    cdef uint32_t n_units, n_levels
    cdef uint32_t *unit_of             # by rank
    cdef uint32_t *fx_count            # by rank
    cdef uint32_t n_devices
    cdef net_entry *nets
    cdef uint32_t n_nets
    cdef int *net_of                   # by rank << 6 | pin; -1 none
    cdef sink_entry *sinks
    cdef uint8_t *cone                 # [unit * n_units + v]: v is upstream of unit
    cdef uint8_t *net_cone             # [unit * n_nets + net]: net feeds unit, directly or through others
    cdef uint16_t *message_sinks
    cdef uint32_t n_message_sinks
    cdef uint8_t *speaks               # by rank: may send messages to other units
    cdef uint32_t *banks               # [bank * n_vcpus + vcpu]: that vCPU's own region behind a shared address
    cdef uint32_t n_vcpus
    cdef uint32_t *region_unit         # by region id
    cdef uint32_t *region_bank         # by region id: bank + 1, or 0
    cdef clock_entry *clocks           # by region id
    cdef dict states                   # rank -> (arena, place): where the state of a worker's devices is
    cdef uint32_t n_regions, cap_regions
    cdef dict shapes                   # (rank, index) -> what the map needs to know of a region
    cdef dict region_ids               # (rank, index, base) -> region
    cdef dict regions                  # and back
    cdef list free_regions             # ids without a meaning
    cdef dict mapped                   # (rank, index) -> region, as they came: the last is seen where two overlap
    cdef uint32_t mappings             # of them, since they were last numbered
    cdef object mapping                # the one that is published, for _show
    cdef dict known                    # the last few of them, by the regions mapped
    cdef line_change *lines
    cdef uint64_t n_lines, cap_lines, lines_dropped
    cdef map_change *maps
    cdef uint32_t n_maps, cap_maps
    cdef fx_vec messages               # message-signalled interrupts on their way
    cdef uint64_t now
    cdef uint64_t next_deadline        # local: no device wants the clock before this
    cdef uint64_t key                  # what is being executed (local)
    cdef uint32_t latch                # CONFIG_ADDRESS
    cdef bint cf8
    cdef uint64_t ecam                 # where the window to configuration space is, while it is mapped
    cdef int reset_pending
    cdef uint64_t reset_at             # when it was asked for (local)
    cdef uint64_t timed_reset          # links: no timer resets the machine before this
    cdef uint32_t *resetters           # units whose timers may
    cdef uint32_t n_resetters
    cdef uint64_t resets
    cdef uint32_t nested_resets        # in hand
    cdef seq_counts counts
    cdef uint64_t *hist                # latency histograms of each stage, in TSC ticks
    cdef uint32_t stamped              # a place in STAMPS
    cdef uint64_t odd                  # accesses that were split by the router
    cdef public object check           # called at least each 50 ms while waiting; raises to stop
    cdef public double patience        # seconds that a worker may keep the router waiting without any progress
    cdef uint64_t stuck_at             # that worker's progress when the router last looked, and since when it stands
    cdef uint64_t stuck_since
    cdef uint64_t stretch_end          # links: a cut comes before anything at this time or later
    cdef uint64_t step_at              # links: the earlier of that and timed_reset: _step looks at what comes then
    cdef uint64_t flood                # effects since the last cut
    cdef uint64_t carried              # effects between the last two
    cdef str failed                    # why nothing more can be run; None while all is well
    cdef uint64_t base                 # single accesses before this run whose effects may still be on the way: the run's
    cdef uint64_t *past                # accesses are numbered from here in keys; and their times
    cdef uint64_t line_base            # number of the key's access 0 among those since the last take_lines
    cdef uint32_t message_level        # messages are handed to their sinks before this level runs
    cdef engine_effect *wave           # local: the effects being carried, all of one delta
    cdef uint32_t cap_wave
    # the run in hand
    cdef const engine_acc *acc
    cdef uint64_t n_acc
    cdef const seq_input *inp
    cdef uint64_t n_inp
    cdef uint64_t *value
    cdef uint8_t *status
    cdef int64_t *answers
    cdef const uint8_t *ram_bytes
    cdef uint8_t *ram
    cdef uint64_t ram_size, low_ram
    cdef readonly object ram_owner
    cdef waiter wait
    cdef uint32_t policy
    cdef int posting                   # the link that has posted writes not yet published, or -1
    cdef uint32_t unstamped            # path buffered: accesses until the next one that is timed
    cdef bint looks                    # spin at a slot before the policy is asked
    cdef uint64_t n_held               # accesses held back since the last cut
    cdef uint64_t stretch              # ns between two cuts at most
    cdef int single(self, uint32_t space, uint64_t addr, uint32_t size, bint write, uint64_t *value, uint64_t t_ns) except -1
    cdef int _go(self, int kind) except -1
    cdef int _carry_out(self, int kind) except -1 nogil
    cdef void _let_go(self) noexcept nogil
    cdef uint64_t _row(self, region_entry *r, uint64_t i, uint64_t n, uint64_t addr) noexcept nogil
    cdef int _run_local(self) except -1 nogil
    cdef int _run_batched(self) except -1 nogil
    cdef int _run_waiting(self, bint buffered) except -1 nogil
    cdef int _local_input(self, uint64_t j, uint32_t place) except -1 nogil
    cdef void _due(self, uint32_t unit) noexcept nogil
    cdef int _advance(self, uint64_t t_ns) except -1 nogil
    cdef int _effects(self) except -1 nogil
    cdef int _after(self) except -1 nogil
    cdef int _one_more_reset(self) except -1 nogil
    cdef uint32_t _find(self, const engine_acc *a, uint64_t *addr, uint32_t *op, const dispatch_entry **entry) noexcept nogil
    cdef uint64_t _nobody(self, uint32_t space, uint32_t size) noexcept nogil
    cdef int _line(self, uint64_t key, uint64_t t_ns, int line, uint32_t level) except -1 nogil
    cdef int _map_later(self, uint32_t rank, uint32_t index, bint on, uint64_t base) except -1 nogil
    cdef int _apply_maps(self) except -1
    cdef int _publish(self) except -1
    cdef int _show(self, mapping) except -1
    cdef int _show_rows(self, rows) except -1
    cdef int _ram_write(self, const seq_input *inp) noexcept nogil
    cdef uint32_t _bank(self, uint32_t region, uint32_t vcpu) noexcept nogil
    cdef uint64_t _timer_key(self, uint64_t t_ns) noexcept nogil
    cdef void _sample(self, uint64_t ticks, uint32_t stage=*) noexcept nogil
    cdef const engine_stamp *_slot_stamps(self, uint32_t unit, uint32_t vcpu) noexcept nogil
    cdef void _seen(self, uint64_t produced, const engine_stamp *theirs) noexcept nogil
    cdef int _split_local(self, const engine_acc *a, uint64_t t_ns, uint64_t *value) except -1 nogil
    cdef int _check(self) except -1
    cdef int _silent(self, uint32_t rank) except -1
    # links
    cdef uint64_t _polls(self, const clock_entry *c, uint64_t addr, uint64_t i, uint64_t n) noexcept nogil
    cdef int _push(self, uint32_t unit, const engine_rec *rec, uint64_t key, uint32_t delta, uint32_t aux) except -1 nogil
    cdef int _commit(self, uint32_t k, uint64_t patience=*) except -1 nogil
    cdef int _show_posted(self) except -1 nogil
    cdef int _collect(self, uint32_t k) except -1 nogil
    cdef int _drain(self, uint32_t k) except -1 nogil
    cdef int _finish(self, uint64_t t_ns, bint everything=*) except -1 nogil
    cdef void _timed_resets(self) noexcept nogil
    cdef int _reset_in_time(self, uint64_t t_ns, uint64_t key) except -1 nogil
    cdef int _behind_barrier(self, uint64_t t_ns) except -1 nogil
    cdef int _ended(self) except -1 nogil
    cdef int _stand(self, uint32_t k) except -1
    cdef int _cut(self, uint64_t t_ns=*) except -1
    cdef int _step(self, uint64_t t_ns, uint64_t key) except -1 nogil
    cdef int _wait_link(self, uint32_t k) except -1 nogil
    cdef int _pause(self, uint32_t k) except -1 nogil
    cdef int _room(self, uint32_t k) except -1 nogil
    cdef uint64_t _string(self, seq_link *l, uint64_t i, uint64_t n, uint64_t block) noexcept nogil
    cdef void _answers(self, const uint64_t *answers, uint64_t i, uint64_t n) noexcept nogil
    cdef int _batched_input(self, uint64_t j, uint32_t place) except -1 nogil
    cdef int _waiting_input(self, uint64_t j, uint32_t place) except -1 nogil
    cdef void _input_record(self, const seq_input *inp, engine_rec *rec) noexcept nogil
    cdef int _net(self, uint32_t n) except -1 nogil
    cdef int _messages_out(self, uint32_t level) except -1 nogil
    cdef int _flush_unit(self, uint32_t unit, bint sync) except -1 nogil
    cdef int _bring_up(self, uint32_t unit, uint64_t t_ns) except -1 nogil
    cdef int _sync(self, uint32_t unit, const engine_rec *rec, uint64_t key, uint32_t delta, uint64_t *value,
                   uint32_t *status) except -1 nogil
    cdef int _await(self, uint32_t k, uint32_t vcpu, int got, uint64_t *value, uint32_t *status) except -1 nogil
    cdef int _split_links(self, const engine_acc *a, uint64_t t_ns, uint64_t key, uint64_t *value) except -1 nogil
    cdef int _reset_links(self, uint64_t t_ns, uint32_t kind) except -1 nogil
    cdef int _push_all(self, const engine_rec *rec, uint64_t key, uint32_t delta) except -1 nogil
    cdef int _resume(self, uint64_t now, uint32_t latch) except -1
