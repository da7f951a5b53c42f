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
#define ENGINE_ABI_VERSION 1u
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
    uint8_t status;  /* router: 0 */
} engine_rec;

/* Kind: the low four bits of op. */
enum {
    ENGINE_REC_PIO = 0,
    ENGINE_REC_MMIO = 1,
    ENGINE_REC_CONFIG = 2,
    ENGINE_REC_INTACK = 3,    /* region = device rank << 8; answers the vector, or all ones */
    ENGINE_REC_INPUT = 4,     /* region = device rank << 8 | pin, value, addr = INPUT_* kind */
    ENGINE_REC_RAM_WRITE = 5, /* addr = guest-physical address, value = offset in the arena << 32 | length */
    ENGINE_REC_BULK = 6,      /* string I/O: addr, region as an access; value = offset in the arena << 32 | count */
    ENGINE_REC_SETTLE = 7,    /* region = unit; fires its deadlines up to t_ns */
    ENGINE_REC_MAP = 8,       /* region = id, addr = base, value = size << 32 | device rank << 8 | index */
    ENGINE_REC_RESET = 9,     /* value = reset kind */
    ENGINE_REC_SNAPSHOT = 10, /* value = 0 take, 1 restore */
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

/* What a device did to the world outside itself: a line, a message, a mapping, a reset. */
typedef struct engine_effect {
    uint64_t t_ns;   /* worker: virtual time of the effect (a deadline, or the time of the input that caused it) */
    uint64_t cause;  /* worker: index of the record during which it came; ENGINE_CAUSE_TIMER set if a deadline caused it */
    uint64_t value;  /* worker: level, message data, base of a mapping */
    uint32_t addr;   /* worker: message address (low 32 bits) */
    uint16_t device; /* worker: rank of the source device */
    uint8_t pin;     /* worker: output pin, or region index of a mapping */
    uint8_t kind;    /* worker: ENGINE_EFFECT_* */
} engine_effect;

#define ENGINE_CAUSE_TIMER (1ull << 63)
enum { ENGINE_EFFECT_LINE = 0, ENGINE_EFFECT_MESSAGE = 1, ENGINE_EFFECT_MAP = 2, ENGINE_EFFECT_RESET = 3 };

/* The synchronous slot: one cache line, one outstanding access. */
typedef struct engine_slot {
    uint32_t state;   /* router: 0 -> 1 and 3 -> 0; worker: 1 -> 2 -> 3 */
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
ENGINE_AT(engine_rec, status, 31);
_Static_assert(sizeof(engine_cpl) == 16, "engine_cpl");
ENGINE_AT(engine_cpl, value, 0);
ENGINE_AT(engine_cpl, seq, 8);
ENGINE_AT(engine_cpl, status, 12);
ENGINE_AT(engine_cpl, flags, 13);
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

#endif
