/*
 * Every structure that lies in memory shared between processes, defined once.
 *
 * Fixed-width integers, explicit padding, no pointers, no bit fields.  Offsets and sizes are asserted here and compared
 * with the NumPy dtypes of engine._abi by tests/unit/test_abi.py.  Each field names its one writer.
 */
#ifndef ENGINE_ABI_H
#define ENGINE_ABI_H

#include <stddef.h>
#include <stdint.h>

#define ENGINE_ABI_MAGIC 0x71657269u /* "ireq" */
#define ENGINE_ABI_VERSION 3u
#define ENGINE_CACHE_LINE 64

/* One guest access as front-ends and trace files hold it. */
typedef struct engine_acc {
    uint64_t t_ns;   /* virtual time of the access */
    uint64_t addr;   /* port number or guest-physical address */
    uint64_t value;  /* value written, or room for the value read */
    uint16_t vcpu;
    uint8_t size;    /* 1, 2, 4, 8 */
    uint8_t space;   /* ENGINE_PIO, ENGINE_MMIO, ENGINE_CONFIG */
    uint8_t dir;     /* 0 read, 1 write */
    uint8_t flags;   /* ENGINE_FLAG_* */
    uint16_t region; /* the trace's own region index; ignored on input */
} __attribute__((packed)) engine_acc;

enum { ENGINE_PIO = 0, ENGINE_MMIO = 1, ENGINE_CONFIG = 2 };
enum { ENGINE_FLAG_UNASSIGNED = 1, ENGINE_FLAG_ERROR = 2, ENGINE_FLAG_SMM = 4, ENGINE_FLAG_SPLIT = 8, ENGINE_FLAG_OTHER_AS = 16 };

/* One record in a request ring or a synchronous slot. */
typedef struct engine_rec {
    uint64_t t_ns;   /* router: virtual time of the input */
    uint64_t addr;   /* router: address (offset is addr - base of the region), or payload of the kind */
    uint64_t value;  /* router: value written, level of a line, byte of a key, ... */
    uint32_t region; /* router: region id, or device rank << 8 | pin for inputs that reach no region */
    uint16_t vcpu;   /* router */
    uint8_t op;      /* router: ENGINE_OP_* kind | ENGINE_OP_WRITE | log2(size) << 5 */
    uint8_t more;    /* router: an access in a ring: how many engine_next follow; else 0 */
} engine_rec;

/* Kind: the low four bits of op. */
enum {
    ENGINE_REC_PIO = 0,
    ENGINE_REC_MMIO = 1,
    ENGINE_REC_CONFIG = 2,
    ENGINE_REC_INTACK = 3,    /* region = device rank << 8; answers the vector, or all ones */
    ENGINE_REC_INPUT = 4,     /* region = device rank << 8 | pin, value, addr = INPUT_* kind */
    ENGINE_REC_SETTLE = 7,    /* region = rank of a device; fires its unit's deadlines up to t_ns */
    ENGINE_REC_MAP = 8,       /* region = id, addr = base, value = device rank << 8 | its region number */
    ENGINE_REC_RESET = 9,     /* value = reset kind */
    ENGINE_REC_SNAPSHOT = 10, /* the router has put another state into the arena */
    ENGINE_REC_KIND_MASK = 15
};
enum { ENGINE_OP_WRITE = 0x10, ENGINE_OP_SIZE_SHIFT = 5 };

/* Answer to one record, at the same index of the completion ring. */
typedef struct engine_cpl {
    uint64_t value;  /* worker: value read */
    uint32_t seq;    /* worker: low 32 bits of the record's index, for the check */
    uint8_t status;  /* worker: ENGINE_IO_* */
    uint8_t flags;   /* worker: ENGINE_CPL_* */
    uint16_t pad;
} engine_cpl;

enum { ENGINE_CPL_CONTENT = 1 /* the value is content (a file's byte, a disk sector), not device state */ };

/*
 * String I/O: the same access again, at its own time.  These lie in the slots behind their record, two to a slot, all in one
 * block of ENGINE_STRING slots; their answers in the completions of those slots, two to each.
 */
typedef struct engine_next {
    uint64_t t_ns;   /* router */
    uint64_t value;  /* router: value written */
} engine_next;

typedef struct engine_next_cpl {
    uint32_t value;  /* worker: value read */
    uint8_t status;  /* worker: ENGINE_IO_* */
    uint8_t pad[3];
} engine_next_cpl;

enum { ENGINE_STRING = 64 };

/* What a device did to the world outside itself: a line, a message, a mapping, a reset. */
typedef struct engine_effect {
    uint64_t t_ns;   /* worker: virtual time of the effect (a deadline, or the time of the input that caused it) */
    uint64_t cause;  /* worker: index of the record during which it came | number of its engine_next << ENGINE_CAUSE_NEXT, from 1;
                        ENGINE_CAUSE_TIMER set if a deadline caused it */
    uint64_t value;  /* worker: level, message data, base of a mapping */
    uint32_t addr;   /* worker: message address (low 32 bits) */
    uint16_t device; /* worker: rank of the source device */
    uint8_t pin;     /* worker: output pin, or region index of a mapping */
    uint8_t kind;    /* worker: ENGINE_EFFECT_* */
} engine_effect;

#define ENGINE_CAUSE_TIMER (1ull << 63)
enum { ENGINE_CAUSE_NEXT = 54 };
enum { ENGINE_EFFECT_LINE = 0, ENGINE_EFFECT_MESSAGE = 1, ENGINE_EFFECT_MAP = 2, ENGINE_EFFECT_RESET = 3 };

/* The synchronous slot: one cache line, one outstanding access. */
typedef struct engine_slot {
    uint32_t state;   /* router: 0 -> 1 and 3 -> 1; worker: 1 -> 2 -> 3 */
    uint32_t pad0;
    engine_rec rec;   /* router, before state becomes 1 */
    uint64_t after;   /* router: ring records that must have executed first */
    uint64_t value;   /* worker, before state becomes 3 */
    uint32_t status;  /* worker, before state becomes 3: ENGINE_IO_* | flags << 8 */
    uint32_t pad1;
} engine_slot;

enum { ENGINE_SLOT_NONE = 0, ENGINE_SLOT_READY = 1, ENGINE_SLOT_IN_PROCESS = 2, ENGINE_SLOT_RESPONSE = 3 };

#define ENGINE_AT(type, field, at) _Static_assert(offsetof(type, field) == (at), #type "." #field)
_Static_assert(sizeof(engine_acc) == 32, "engine_acc");
ENGINE_AT(engine_acc, t_ns, 0);
ENGINE_AT(engine_acc, addr, 8);
ENGINE_AT(engine_acc, value, 16);
ENGINE_AT(engine_acc, vcpu, 24);
ENGINE_AT(engine_acc, size, 26);
ENGINE_AT(engine_acc, space, 27);
ENGINE_AT(engine_acc, dir, 28);
ENGINE_AT(engine_acc, flags, 29);
ENGINE_AT(engine_acc, region, 30);
_Static_assert(sizeof(engine_rec) == 32, "engine_rec");
ENGINE_AT(engine_rec, t_ns, 0);
ENGINE_AT(engine_rec, addr, 8);
ENGINE_AT(engine_rec, value, 16);
ENGINE_AT(engine_rec, region, 24);
ENGINE_AT(engine_rec, vcpu, 28);
ENGINE_AT(engine_rec, op, 30);
ENGINE_AT(engine_rec, more, 31);
_Static_assert(sizeof(engine_cpl) == 16, "engine_cpl");
ENGINE_AT(engine_cpl, value, 0);
ENGINE_AT(engine_cpl, seq, 8);
ENGINE_AT(engine_cpl, status, 12);
ENGINE_AT(engine_cpl, flags, 13);
_Static_assert(sizeof(engine_next) == 16, "engine_next");
ENGINE_AT(engine_next, t_ns, 0);
ENGINE_AT(engine_next, value, 8);
_Static_assert(sizeof(engine_next_cpl) == 8, "engine_next_cpl");
ENGINE_AT(engine_next_cpl, value, 0);
ENGINE_AT(engine_next_cpl, status, 4);
_Static_assert(sizeof(engine_effect) == 32, "engine_effect");
ENGINE_AT(engine_effect, t_ns, 0);
ENGINE_AT(engine_effect, cause, 8);
ENGINE_AT(engine_effect, value, 16);
ENGINE_AT(engine_effect, addr, 24);
ENGINE_AT(engine_effect, device, 28);
ENGINE_AT(engine_effect, pin, 30);
ENGINE_AT(engine_effect, kind, 31);
_Static_assert(sizeof(engine_slot) == 64, "engine_slot");
ENGINE_AT(engine_slot, state, 0);
ENGINE_AT(engine_slot, rec, 8);
ENGINE_AT(engine_slot, after, 40);
ENGINE_AT(engine_slot, value, 48);
ENGINE_AT(engine_slot, status, 56);

/* ---- Segments: sealed memory files.  The first line of each, written once by its creator, before anyone attaches. ---- */
typedef struct engine_segment {
    uint32_t magic;       /* ENGINE_ABI_MAGIC */
    uint32_t version;     /* ENGINE_ABI_VERSION */
    uint64_t size;        /* bytes of the whole file */
    uint32_t kind;        /* ENGINE_SEGMENT_* */
    uint32_t header_size; /* bytes before the first item */
    uint32_t creator;     /* process id, for people */
    uint32_t pad;
    char name[32];        /* for people; always ends in 0 */
} engine_segment;

enum { ENGINE_SEGMENT_RAW = 0 /* no header */, ENGINE_SEGMENT_LINK = 1, ENGINE_SEGMENT_RING = 2, ENGINE_SEGMENT_ARENA = 3 };

/* Events of one side, for tools; the side's own count is private and this is a copy of it. */
typedef struct engine_counters {
    uint64_t full;    /* a reserve got less than it asked for */
    uint64_t dropped; /* items given up by their producer (never by a ring) */
    uint64_t stalled; /* waits for the other side that outlasted one slice */
    uint64_t bad;     /* impossible words found in shared memory */
} engine_counters;

/* TSC stamps of one record, at the record's index; the synchronous slot of vCPU n has entry capacity + n. */
typedef struct engine_stamp {
    uint64_t taken; /* worker: after it copied the record */
    uint64_t done;  /* worker: before it published the answer */
} engine_stamp;

/*
 * A link: what one router and one worker share.  Indices run free and are masked on use.  Lines written by different
 * sides are 128 bytes apart, because the adjacent-line prefetcher moves pairs of lines.
 */
typedef struct engine_link {
    engine_segment segment;      /* creator */
    uint32_t n_vcpus;            /* creator, and so on to stamps_at: geometry, read once and checked when attaching */
    uint32_t n_units;
    uint32_t request_log2;       /* log2 of the capacity of the request and completion rings */
    uint32_t effect_log2;
    uint64_t slots_at;           /* engine_slot[n_vcpus] */
    uint64_t requests_at;        /* engine_rec[] */
    uint64_t completions_at;     /* engine_cpl[] */
    uint64_t effects_at;         /* engine_effect[] */
    uint64_t deadlines_at;       /* uint64_t[n_units]; worker, before it publishes executed or answered */
    uint64_t stamps_at;          /* engine_stamp[], or 0: not stamped */
    uint8_t pad0[128];
    uint64_t produced;           /* 256 router: records before this index are in the request ring */
    uint64_t posted;             /* router: synchronous accesses posted, over all slots */
    uint64_t seen;               /* router: completions before this index have been read */
    uint64_t kept;               /* router: records before this index are needed no more and may be overwritten */
    uint8_t pad1[96];
    uint64_t executed;           /* 384 worker: records before this index have executed, their completions are valid */
    uint64_t answered;           /* worker: synchronous accesses answered, over all slots */
    uint8_t pad2[112];
    uint64_t effects_produced;   /* 512 worker */
    uint8_t pad3[120];
    uint64_t effects_consumed;   /* 640 router */
    uint8_t pad4[120];
    uint32_t worker_asleep;      /* 768 futex: worker 0 -> 1 before it sleeps; either side -> 0 */
    uint32_t pad5;
    uint64_t worker_woken;       /* router: when it woke the worker, CLOCK_MONOTONIC ns */
    uint8_t pad6[112];
    uint32_t router_asleep;      /* 896 futex: router 0 -> 1 before it sleeps; either side -> 0 */
    uint32_t pad7;
    uint64_t router_woken;       /* worker: when it woke the router, likewise */
    uint8_t pad8[112];
    uint32_t stop;               /* 1024 router or supervisor: not 0 asks the worker to leave its loop; 1 to end, 2 for the control socket */
    uint8_t pad9[124];
    uint64_t heartbeat;          /* 1152 worker: moves at least each 50 ms while the loop runs */
    uint32_t worker_pid;         /* worker */
    uint32_t worker_state;       /* worker: 0 not started, 1 running, 2 ended in order, 3 ended by an error */
    engine_counters worker;      /* worker */
    uint8_t pad10[80];
    engine_counters router;      /* 1280 router */
    uint8_t pad11[96];
} engine_link;

enum { ENGINE_LINK_HEADER = 4096 /* the header's room: slots begin on a page of their own */ };
enum { ENGINE_WORKER_ABSENT = 0, ENGINE_WORKER_RUNNING = 1, ENGINE_WORKER_ENDED = 2, ENGINE_WORKER_FAILED = 3 };

/* A single ring in a segment of its own, for tools and tests. */
typedef struct engine_ring {
    engine_segment segment;   /* creator */
    uint32_t item_size;       /* creator: a multiple of 8 */
    uint32_t log2;            /* creator: log2 of the capacity */
    uint8_t pad0[56];
    uint64_t produced;        /* 128 producer */
    uint8_t pad1[120];
    uint64_t consumed;        /* 256 consumer */
    uint8_t pad2[120];
    uint32_t consumer_asleep; /* 384 futex, as in engine_link */
    uint32_t pad3;
    uint64_t consumer_woken;  /* producer */
    uint8_t pad4[112];
    uint32_t producer_asleep; /* 512 */
    uint32_t pad5;
    uint64_t producer_woken;  /* consumer */
    uint8_t pad6[112];
    engine_counters producer; /* 640 producer */
    uint8_t pad7[96];
    engine_counters consumer; /* 768 consumer */
    uint8_t pad8[96];
} engine_ring;

_Static_assert(sizeof(engine_segment) == 64, "engine_segment");
ENGINE_AT(engine_segment, magic, 0);
ENGINE_AT(engine_segment, version, 4);
ENGINE_AT(engine_segment, size, 8);
ENGINE_AT(engine_segment, kind, 16);
ENGINE_AT(engine_segment, header_size, 20);
ENGINE_AT(engine_segment, creator, 24);
ENGINE_AT(engine_segment, name, 32);
_Static_assert(sizeof(engine_counters) == 32, "engine_counters");
ENGINE_AT(engine_counters, full, 0);
ENGINE_AT(engine_counters, dropped, 8);
ENGINE_AT(engine_counters, stalled, 16);
ENGINE_AT(engine_counters, bad, 24);
_Static_assert(sizeof(engine_stamp) == 16, "engine_stamp");
ENGINE_AT(engine_stamp, taken, 0);
ENGINE_AT(engine_stamp, done, 8);
_Static_assert(sizeof(engine_link) == 1408, "engine_link");
ENGINE_AT(engine_link, n_vcpus, 64);
ENGINE_AT(engine_link, n_units, 68);
ENGINE_AT(engine_link, request_log2, 72);
ENGINE_AT(engine_link, effect_log2, 76);
ENGINE_AT(engine_link, slots_at, 80);
ENGINE_AT(engine_link, requests_at, 88);
ENGINE_AT(engine_link, completions_at, 96);
ENGINE_AT(engine_link, effects_at, 104);
ENGINE_AT(engine_link, deadlines_at, 112);
ENGINE_AT(engine_link, stamps_at, 120);
ENGINE_AT(engine_link, produced, 256);
ENGINE_AT(engine_link, posted, 264);
ENGINE_AT(engine_link, seen, 272);
ENGINE_AT(engine_link, kept, 280);
ENGINE_AT(engine_link, executed, 384);
ENGINE_AT(engine_link, answered, 392);
ENGINE_AT(engine_link, effects_produced, 512);
ENGINE_AT(engine_link, effects_consumed, 640);
ENGINE_AT(engine_link, worker_asleep, 768);
ENGINE_AT(engine_link, worker_woken, 776);
ENGINE_AT(engine_link, router_asleep, 896);
ENGINE_AT(engine_link, router_woken, 904);
ENGINE_AT(engine_link, stop, 1024);
ENGINE_AT(engine_link, heartbeat, 1152);
ENGINE_AT(engine_link, worker_pid, 1160);
ENGINE_AT(engine_link, worker_state, 1164);
ENGINE_AT(engine_link, worker, 1168);
ENGINE_AT(engine_link, router, 1280);
_Static_assert(sizeof(engine_ring) == 896, "engine_ring");
ENGINE_AT(engine_ring, item_size, 64);
ENGINE_AT(engine_ring, log2, 68);
ENGINE_AT(engine_ring, produced, 128);
ENGINE_AT(engine_ring, consumed, 256);
ENGINE_AT(engine_ring, consumer_asleep, 384);
ENGINE_AT(engine_ring, consumer_woken, 392);
ENGINE_AT(engine_ring, producer_asleep, 512);
ENGINE_AT(engine_ring, producer_woken, 520);
ENGINE_AT(engine_ring, producer, 640);
ENGINE_AT(engine_ring, consumer, 768);

#endif
