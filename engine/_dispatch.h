/*
 * The published address map: offsets, no pointers, read-only once published.
 *
 * dispatch_table | for each view: dispatch_entry[], uint32_t slots[], dispatch_node[]
 *
 * As one block it may lie anywhere (Table.to_bytes, Table.over).  In the process that publishes it, each view is a block of
 * its own, which the tables before and after may share: offsets are then differences of addresses, modulo 2^64.
 *
 * A view is one address space as one kind of access sees it.  Its entries are sorted by address and do not overlap.  Over
 * them lies a radix trie: a node cuts its range into 2^shift-byte slots; a slot names the first entry that ends in or
 * behind it, or a finer node where more than DISPATCH_RUN entries meet the slot.  docs/dispatch.md explains it.
 */
#ifndef ENGINE_DISPATCH_H
#define ENGINE_DISPATCH_H

#include <stddef.h>
#include <stdint.h>

#define DISPATCH_MAGIC 0x70616d69u /* "imap" */
#define DISPATCH_ABI 1u

/* Key of a view: the space, and DISPATCH_SMM for accesses made in system management mode (ENGINE_FLAG_SMM's value, so that
   the key of an engine_acc is space | flags & DISPATCH_SMM). */
enum { DISPATCH_SMM = 4, DISPATCH_KEYS = 8 };

/* dispatch_entry.flags */
enum {
    DISPATCH_POSTED = 1,  /* writes may be buffered */
    DISPATCH_BARRIER = 2, /* a write may change what later accesses reach */
    DISPATCH_ALIAS = 4,   /* delta is not 0 */
    DISPATCH_SMM_ONLY = 8,
    DISPATCH_NON_SMM_ONLY = 16,
    DISPATCH_UNALIGNED = 32, /* takes accesses that are not aligned in it whole */
    DISPATCH_ECAM = 64,      /* a window to configuration space: the router looks further there */
    DISPATCH_CLOCK = 128     /* reads may be the time: the router looks further there, too */
};

/* dispatch_hit.status */
enum {
    DISPATCH_OK = 0,
    DISPATCH_UNCLAIMED = 1, /* no byte of the access meets an entry */
    DISPATCH_STRADDLE = 2,  /* its bytes meet more than one entry, or an entry and nothing */
    DISPATCH_REFUSED = 3    /* the entry does not accept this width, or it is none */
};

#define DISPATCH_NODE 0x80000000u /* a slot that names a node */
#define DISPATCH_NO_REGION 0xffffffffu
#define DISPATCH_NO_OWNER 0xffffu

/* A visible piece of a mapped range. */
typedef struct dispatch_entry {
    uint64_t base;
    uint64_t last;
    uint64_t delta;   /* add to an address in the piece to get the address in the region's own range; 0 but for aliases */
    uint32_t region;
    uint16_t owner;
    uint8_t flags;
    uint8_t accepts;  /* or of the accepted widths: 1, 2, 4, 8 */
} dispatch_entry;

typedef struct dispatch_node {
    uint64_t lo;      /* first address, a multiple of 1 << shift */
    uint64_t size;    /* bytes covered */
    uint32_t slots;   /* index of its first slot in the view's slots */
    uint32_t shift;   /* log2 of the bytes a slot covers */
    uint64_t pad;
} dispatch_node;

typedef struct dispatch_view {
    uint64_t lo;      /* the root node; its slots are the first */
    uint64_t size;    /* 0: nothing is mapped */
    uint64_t slots;   /* byte offsets from the table's start, modulo 2^64 */
    uint64_t nodes;
    uint64_t entries;
    uint32_t shift;
    uint32_t n_slots;
    uint32_t n_nodes;
    uint32_t n_entries;
    uint64_t fill;    /* what reads that nobody answers give, before they are cut to size */
} dispatch_view;

typedef struct dispatch_table {
    uint32_t magic;
    uint32_t abi;
    uint64_t bytes;   /* of the whole as one block */
    uint64_t version; /* from 1 */
    uint64_t owners;  /* highest owner + 1 */
    uint64_t pad[4];
    dispatch_view view[DISPATCH_KEYS];
} dispatch_table;

/* Where one access of a batch goes. */
typedef struct dispatch_hit {
    uint64_t addr;    /* the address in the region's own range: aliases are resolved */
    uint32_t region;  /* of the first byte; DISPATCH_NO_REGION if that meets nothing */
    uint16_t owner;   /* DISPATCH_NO_OWNER likewise */
    uint8_t flags;
    uint8_t status;   /* DISPATCH_OK ... */
} dispatch_hit;

/* A piece of an access that meets more than one entry. */
typedef struct dispatch_part {
    dispatch_hit hit;
    uint32_t offset;  /* of the piece within the access */
    uint32_t size;    /* 1, 2 or 4 */
} dispatch_part;

_Static_assert(sizeof(dispatch_entry) == 32, "dispatch_entry");
_Static_assert(offsetof(dispatch_entry, region) == 24, "dispatch_entry.region");
_Static_assert(sizeof(dispatch_node) == 32, "dispatch_node");
_Static_assert(sizeof(dispatch_view) == 64, "dispatch_view");
_Static_assert(sizeof(dispatch_table) == 64 + 64 * DISPATCH_KEYS, "dispatch_table");
_Static_assert(sizeof(dispatch_hit) == 16, "dispatch_hit");

#endif
