/*
 * Limits for the dispatcher: address look-up with flat tables, in plain C.  Frozen: a change here changes every recorded
 * ratio.
 *
 * What a flat table costs bounds what a radix table can cost: one load finds the entry.  `lookup_flat` gives the very
 * answers of engine._dispatch (entry, bounds, width, 16-byte result) for boards with at most one range in a 4 KiB page below
 * 4 GiB, but for an access that begins where nothing is and reaches into an entry, which is unclaimed here; `lookup_ids` is the bare table, with neither bounds nor widths checked: nothing can be faster.
 */
#include <stddef.h>
#include <stdint.h>

struct acc {
    uint64_t t_ns, addr, value;
    uint16_t vcpu;
    uint8_t size, space, dir, flags;
    uint16_t region;
} __attribute__((packed));

struct entry {
    uint64_t base, last, delta;
    uint32_t region;
    uint16_t owner;
    uint8_t flags, accepts;
};

struct hit {
    uint64_t addr;
    uint32_t region;
    uint16_t owner;
    uint8_t flags, status;
};

/* pio: an entry's index for each port.  mmio: for each page below 4 GiB.  Entry 0 is none: base 1, last 0. */
size_t lookup_flat(const uint32_t *pio, const uint32_t *mmio, const struct entry *entries, const struct acc *acc, size_t n,
                   struct hit *out)
{
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t addr = acc[i].addr;
        uint32_t size = acc[i].size, k = 0;
        if (acc[i].space == 0) {
            if (addr < 65536)
                k = pio[addr];
        } else if (acc[i].space == 1) {
            if (addr >> 32 == 0)
                k = mmio[addr >> 12];
        }
        const struct entry *e = &entries[k];
        if (addr - e->base > e->last - e->base || k == 0) {
            out[i] = (struct hit){addr, 0xffffffffu, 0xffff, 0, 1};
            bad++;
            continue;
        }
        uint8_t status = 0;
        if (size - 1 > e->last - addr)
            status = 2;
        else if (!(e->accepts & size) || size & (size - 1))
            status = 3;
        out[i] = (struct hit){addr + e->delta, e->region, e->owner, e->flags, status};
        bad += status != 0;
    }
    return bad;
}

size_t lookup_ids(const uint32_t *pio, const uint32_t *mmio, const struct acc *acc, size_t n, uint32_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = acc[i].space ? mmio[(acc[i].addr >> 12) & 0xfffff] : pio[acc[i].addr & 0xffff];
    return 0;
}
