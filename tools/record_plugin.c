/*
 * The recorder inside QEMU: a TCG plugin that notes what a guest asks of devices.  record_trace.py, beside this file,
 * compiles and loads it:  -plugin record_plugin.so,out=PREFIX,max=ACCESSES,tmax=NS
 *
 * QEMU's plugin interface shows neither ports nor values, so the plugin stands in the way of some functions that the
 * program exports for its modules:
 *   memory_region_dispatch_read, _write   each access, before it is split to the sizes that a device implements
 *   cpu_get_pic_interrupt                 the vector that a vCPU takes
 *   address_space_read_full, _rw          what a device reads from guest RAM
 * Each of them gets a jump at its start; what the jump overwrites is executed elsewhere.  Which bytes those are is known
 * for one program (Debian 12's QEMU 7.2 on x86-64) and compared; so are the places of the fields used of its structures.
 *
 * Files: PREFIX.acc, .evt, .dma (arrays as in the trace, see docs/traces.md; .dma with the bytes behind each row), .reg
 * (a line "name|owner" for each region).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { SUBPAGE = 0x2a, OWNER = 0x40, OPS = 0x50, CONTAINER = 0x60, BASE = 0x80, ALIAS = 0xa0, ALIAS_BASE = 0xa8, CPU_INDEX = 0x2f0 };
enum { NOBODY = 1, REFUSED = 2, SMM = 4, SHARED = 8, ELSEWHERE = 16, VECTOR = 1, MOST = 4096 };
#define AT(p, offset, type) (*(type *)((char *)(p) + (offset)))

struct access {
    uint64_t t, addr, value;
    uint16_t vcpu;
    uint8_t size, space, dir, flags;
    uint16_t region;
} __attribute__((packed));

static int (*read_on)(void *, uint64_t, uint64_t *, uint32_t, uint32_t);
static int (*write_on)(void *, uint64_t, uint64_t, uint32_t, uint32_t);
static int (*vector_on)(void *);
static int (*ram_on)(void *, uint64_t, uint32_t, void *, uint64_t);
static int (*transfer_on)(void *, uint64_t, uint32_t, void *, uint64_t, bool);
static int64_t (*clock_ns)(int);
static const char *(*region_name)(void *), *(*type_name)(void *);
static void *ports, *memory, *nobody;
static FILE *accesses, *events, *reads, *regions;
static uint64_t n, most = UINT64_MAX, last = UINT64_MAX;
static void *known[MOST];
static unsigned n_known;
static __thread int inside, sharing;    /* in an access of the guest; in one to a page that regions share */

static void *this_cpu(void)
{
    static __thread void **slot;
    if (!slot)
        slot = dlsym(RTLD_DEFAULT, "current_cpu");
    return *slot;
}

static void end(void)
{
    FILE *files[] = { accesses, events, reads, regions };
    for (int i = 0; i < 4; i++)
        if (files[i])
            fflush(files[i]);
}

static uint16_t number(void *mr)
{
    unsigned i = 0;
    while (i < n_known && known[i] != mr)
        i++;
    if (i == n_known && n_known < MOST) {
        void *owner = AT(mr, OWNER, void *);
        const char *name = AT(mr, OPS, void *) == nobody ? "unassigned-mem" : region_name(mr);
        known[n_known++] = mr;
        fprintf(regions, "%s|%s\n", name ? name : "", owner ? type_name(owner) : "");
    }
    return i;
}

/* Where an access goes: containers add up, an alias leads on.  To be asked before the access, which may move the region. */
static struct access placed(void *mr, uint64_t offset, uint32_t op, uint32_t attrs, int dir)
{
    struct access a = { .t = clock_ns(1), .size = 1 << (op & 7), .dir = dir, .vcpu = AT(this_cpu(), CPU_INDEX, int) };
    void *top;
    for (; AT(mr, ALIAS, void *); mr = AT(mr, ALIAS, void *))
        offset += AT(mr, ALIAS_BASE, uint64_t);
    a.addr = offset + AT(mr, BASE, uint64_t);
    for (top = mr; AT(top, CONTAINER, void *); a.addr += AT(top, BASE, uint64_t))
        top = AT(top, CONTAINER, void *);
    a.space = top != ports;
    a.flags = (AT(mr, OPS, void *) == nobody || mr == ports ? NOBODY : top != ports && top != memory ? ELSEWHERE : 0)
              | (attrs & 2 ? SMM : 0) | (sharing ? SHARED : 0);
    a.region = number(mr);
    return a;
}

static void note(struct access *a, uint64_t value, int failed)
{
    a->value = a->size < 8 ? value & ((1ull << 8 * a->size) - 1) : value;
    a->flags |= failed ? REFUSED : 0;
    fwrite(a, sizeof *a, 1, accesses);
    if (++n >= most || a->t >= last) {
        end();
        _exit(0);
    }
}

/* Made by a vCPU, and not by a device while it serves one: their attributes say "unspecified", or who asks. */
static bool guests(uint32_t attrs)
{
    return !inside && !(attrs & 1) && !(attrs >> 16) && this_cpu();
}

static int on_read(void *mr, uint64_t offset, uint64_t *value, uint32_t op, uint32_t attrs)
{
    bool shared = AT(mr, SUBPAGE, uint8_t), mine = !shared && guests(attrs);
    struct access a = mine ? placed(mr, offset, op, attrs, 0) : (struct access){ 0 };
    int *count = shared ? &sharing : &inside;
    ++*count;
    int got = read_on(mr, offset, value, op, attrs);
    --*count;
    if (mine)
        note(&a, *value, got);
    return got;
}

static int on_write(void *mr, uint64_t offset, uint64_t value, uint32_t op, uint32_t attrs)
{
    bool shared = AT(mr, SUBPAGE, uint8_t), mine = !shared && guests(attrs);
    struct access a = mine ? placed(mr, offset, op, attrs, 1) : (struct access){ 0 };
    int *count = shared ? &sharing : &inside;
    ++*count;
    int got = write_on(mr, offset, value, op, attrs);
    --*count;
    if (mine)
        note(&a, value, got);
    return got;
}

static int on_vector(void *env)
{
    int got = vector_on(env);
    if (got >= 0) {
        struct { uint64_t t, index; uint32_t kind, data; } row = { clock_ns(1), n, VECTOR, got };
        row.data |= (uint32_t)AT(this_cpu(), CPU_INDEX, int) << 16;
        fwrite(&row, sizeof row, 1, events);
    }
    return got;
}

static void note_ram(uint64_t gpa, const void *data, uint64_t bytes)
{
    struct { uint64_t index, gpa; uint32_t bytes, sync; } row = { n, gpa, bytes, 1 };
    if (inside && bytes && bytes < 1 << 20) {
        fwrite(&row, sizeof row, 1, reads);
        fwrite(data, bytes, 1, reads);
    }
}

static __thread int transferring;       /* one of the two calls the other in some builds */

static int on_ram(void *space, uint64_t gpa, uint32_t attrs, void *to, uint64_t bytes)
{
    int got = ram_on(space, gpa, attrs, to, bytes);
    if (!got && !transferring)
        note_ram(gpa, to, bytes);
    return got;
}

static int on_transfer(void *space, uint64_t gpa, uint32_t attrs, void *data, uint64_t bytes, bool write)
{
    transferring++;
    int got = transfer_on(space, gpa, attrs, data, bytes, write);
    transferring--;
    if (!got && !write)
        note_ram(gpa, data, bytes);
    return got;
}

/* Put a jump to `to` at the start of `name`; returns what does the same as the function did. */
static void *divert(const char *name, const char *start, unsigned length, int relative, void *to)
{
    static uint8_t *room;
    uint8_t *f = dlsym(RTLD_DEFAULT, name), *self;
    if (!f || memcmp(f, start, relative ? 2 : length)) {
        fprintf(stderr, "record_plugin: %s is not the function that is known\n", name);
        return NULL;
    }
    for (uintptr_t near = (uintptr_t)f & ~0xfffffull; !room || room == MAP_FAILED; ) {      /* within reach of 32 bits */
        near -= 1 << 20;
        room = mmap((void *)near, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    }
    self = room;
    memcpy(room, f, length);
    if (relative)
        *(int32_t *)(room + relative) += (int32_t)(f - room);
    room += length;
    *room = 0xe9;
    *(int32_t *)(room + 1) = (int32_t)(f + length - (room + 5));
    room += 5;
    memcpy(room, "\xff\x25\0\0\0\0", 6);
    memcpy(room + 6, &to, 8);
    mprotect((void *)((uintptr_t)f & ~4095ull), 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    *f = 0xe9;
    *(int32_t *)(f + 1) = (int32_t)(room - (f + 5));
    mprotect((void *)((uintptr_t)f & ~4095ull), 8192, PROT_READ | PROT_EXEC);
    room += 14;
    return self;
}

static FILE *file(const char *prefix, const char *ending)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.%s", prefix, ending);
    FILE *f = fopen(path, "wb");
    if (!f) {
        perror(path);
        exit(1);
    }
    return f;
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    const char *prefix = NULL;
    (void)id, (void)info;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4)) prefix = argv[i] + 4;
        if (!strncmp(argv[i], "max=", 4)) most = strtoull(argv[i] + 4, NULL, 0);
        if (!strncmp(argv[i], "tmax=", 5)) last = strtoull(argv[i] + 5, NULL, 0);
    }
    void *(*io)(void) = dlsym(RTLD_DEFAULT, "get_system_io"), *(*mem)(void) = dlsym(RTLD_DEFAULT, "get_system_memory");
    clock_ns = dlsym(RTLD_DEFAULT, "qemu_clock_get_ns");
    region_name = dlsym(RTLD_DEFAULT, "memory_region_name");
    type_name = dlsym(RTLD_DEFAULT, "object_get_typename");
    nobody = dlsym(RTLD_DEFAULT, "unassigned_mem_ops");
    if (!prefix || !io || !mem || !clock_ns || !region_name || !type_name || !nobody)
        return -1;
    accesses = file(prefix, "acc");
    events = file(prefix, "evt");
    reads = file(prefix, "dma");
    regions = file(prefix, "reg");
    ports = io();
    memory = mem();
    read_on = divert("memory_region_dispatch_read", "\x41\x57\x45\x89\xc7", 5, 0, on_read);
    write_on = divert("memory_region_dispatch_write", "\x41\x57\x45\x89\xc7", 5, 0, on_write);
    vector_on = divert("cpu_get_pic_interrupt", "\x80\x3d", 7, 2, on_vector);
    ram_on = divert("address_space_read_full", "\x41\x57\x41\x56\x41\x55", 6, 0, on_ram);
    transfer_on = divert("address_space_rw", "\x41\x57\x45\x31\xff", 5, 0, on_transfer);
    atexit(end);
    return read_on && write_on && vector_on && ram_on && transfer_on ? 0 : -1;
}
