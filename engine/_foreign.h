/*
 * Rings and slots whose layout others defined, byte for byte: Xen's two ioreq pages and KVM's coalesced page.
 *
 * Xen: public/hvm/ioreq.h.  KVM: struct kvm_coalesced_mmio_ring of <linux/kvm.h>.  Written here without bit fields; each
 * field names its one writer (hypervisor or server).
 */
#ifndef ENGINE_FOREIGN_H
#define ENGINE_FOREIGN_H

#include <stddef.h>
#include <stdint.h>

#define FOREIGN_PAGE 4096

/* ---- Xen's synchronous page: one record per vCPU, index = vCPU ---- */
typedef struct xen_ioreq {
    uint64_t addr;    /* hypervisor: port, guest-physical address, or SBDF << 32 | register */
    uint64_t data;    /* hypervisor: value written, or where the data are; server: value read, before state 3 */
    uint32_t count;   /* hypervisor: repeats */
    uint32_t size;    /* hypervisor: bytes of one element */
    uint32_t vp_eport; /* hypervisor: event channel of the vCPU */
    uint16_t pad;
    uint8_t bits;     /* XEN_STATE_MASK: hypervisor 0 -> 1, 3 -> 0, server 1 -> 2 -> 3; XEN_BIT_*: hypervisor */
    uint8_t type;     /* hypervisor: XEN_TYPE_* */
} xen_ioreq;

enum { XEN_VCPUS = FOREIGN_PAGE / 32 };
enum { XEN_STATE_MASK = 0x0F, XEN_BIT_PTR = 0x10, XEN_BIT_READ = 0x20, XEN_BIT_DF = 0x40 };
enum { XEN_STATE_NONE = 0, XEN_STATE_READY = 1, XEN_STATE_IN_PROCESS = 2, XEN_STATE_RESPONSE = 3 };
enum { XEN_TYPE_PIO = 0, XEN_TYPE_MEMORY = 1, XEN_TYPE_CONFIG = 2, XEN_TYPE_TIMEOFFSET = 7, XEN_TYPE_INVALIDATE = 8 };

/* ---- Xen's buffered page ---- */
enum { XEN_SLOTS = 511 };
typedef struct xen_buffered {
    uint32_t read_pointer;  /* server (atomic add); hypervisor too when it renumbers (ATOMIC mode) */
    uint32_t write_pointer; /* hypervisor */
    uint64_t slots[XEN_SLOTS]; /* hypervisor: XEN_SLOT_* in the low half, data in the high half */
} xen_buffered;

#define XEN_SLOT_TYPE(s) ((uint32_t)(s) & 0xFF)
#define XEN_SLOT_READ(s) ((uint32_t)(s) >> 9 & 1)
#define XEN_SLOT_SIZE_CODE(s) ((uint32_t)(s) >> 10 & 3)
#define XEN_SLOT_ADDR(s) ((uint32_t)(s) >> 12)
#define XEN_SLOT_DATA(s) ((uint32_t)((s) >> 32))

/* ---- KVM's coalesced page ---- */
typedef struct kvm_entry {
    uint64_t addr; /* hypervisor, and so on */
    uint32_t len;
    uint32_t pio;
    uint64_t data; /* 8 bytes, the first `len` count */
} kvm_entry;
typedef struct kvm_coalesced {
    uint32_t first; /* server: entry to read next */
    uint32_t last;  /* hypervisor: entry to write next; equal to first: empty */
    kvm_entry entries[];
} kvm_coalesced;
enum { KVM_ENTRIES = (FOREIGN_PAGE - 8) / 24 };

/* The state byte shares its word with bits that must keep their values, so it is read and written as a byte. */
static inline uint8_t foreign_load8(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void foreign_store8(uint8_t *p, uint8_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

#define FOREIGN_AT(type, field, at) _Static_assert(offsetof(type, field) == (at), #type "." #field)
_Static_assert(sizeof(xen_ioreq) == 32, "xen_ioreq");
FOREIGN_AT(xen_ioreq, addr, 0);
FOREIGN_AT(xen_ioreq, data, 8);
FOREIGN_AT(xen_ioreq, count, 16);
FOREIGN_AT(xen_ioreq, size, 20);
FOREIGN_AT(xen_ioreq, vp_eport, 24);
FOREIGN_AT(xen_ioreq, bits, 30);
FOREIGN_AT(xen_ioreq, type, 31);
_Static_assert(sizeof(xen_buffered) == FOREIGN_PAGE, "xen_buffered");
FOREIGN_AT(xen_buffered, read_pointer, 0);
FOREIGN_AT(xen_buffered, write_pointer, 4);
FOREIGN_AT(xen_buffered, slots, 8);
_Static_assert(sizeof(kvm_entry) == 24, "kvm_entry");
FOREIGN_AT(kvm_entry, len, 8);
FOREIGN_AT(kvm_entry, pio, 12);
FOREIGN_AT(kvm_entry, data, 16);
FOREIGN_AT(kvm_coalesced, last, 4);
FOREIGN_AT(kvm_coalesced, entries, 8);

#endif
