/*
 * The qtest accelerator for a modular QEMU 7.2 that was packaged without it (Debian 12).
 *
 * "-accel qtest" gives a machine whose vCPUs do not run and whose virtual clock moves only when a test says so.  QEMU
 * looks for it in accel-qtest-x86_64.so; this file makes that module: two types, everything else is exported by QEMU.
 * qemu_qtest.py beside this file compiles it.
 *
 * With QTEST_CONTROL_PORT in the environment it adds what QEMU's own module has not: a control port, through which
 * `engine diff` sees the local APICs and takes interrupts:
 *   outl 0xfe00, N   accesses now come from vCPU N (its local APIC answers); until then from none, as in QEMU's module
 *   inl  0xfe04      that vCPU takes an interrupt: the vector, or ~0 if there is none
 *   outl 0xfe04, B   the user's keyboard sends byte B
 *   outl 0xfe08, L   ISA interrupt L & 15 becomes high (L & 256) or low
 *   outl 0xfe0c, N   what drives and the TPM "tpm" have begun, and what was put off for it, is finished before the answer:
 *                    N times, as the end of one part of a transfer may begin the next
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Of QEMU 7.2's headers, as its modules see them. */
enum { MODULE_INIT_QOM = 3 };
typedef struct {
    const char *name, *parent;
    size_t instance_size, instance_align;
    void *instance_init, *instance_post_init, *instance_finalize;
    bool abstract;
    size_t class_size;
    void (*class_init)(void *klass, void *data);
    void *class_base_init, *class_data, *interfaces;
} TypeInfo;

typedef struct {
    uint64_t (*read)(void *opaque, uint64_t addr, unsigned size);
    void (*write)(void *opaque, uint64_t addr, uint64_t data, unsigned size);
    void *read_with_attrs, *write_with_attrs;
    int endianness;
    struct { unsigned min, max; bool unaligned; void *accepts; } valid;
    struct { unsigned min, max; bool unaligned; } impl;
} MemoryRegionOps;

/* Offsets in AccelClass and AccelOpsClass, behind the 0x60 bytes of ObjectClass, and of X86CPU.env */
enum { ACCEL_NAME = 0x60, ACCEL_INIT = 0x68, ACCEL_ALLOWED = 0x88, OPS_CREATE_VCPU = 0x70, OPS_VIRTUAL_CLOCK = 0xb8, CPU_ENV = 0x13b0 };
#define SLOT(klass, offset) (*(void **)((char *)(klass) + (offset)))

extern void *type_register_static(const TypeInfo *info);
extern void register_dso_module_init(void (*fn)(void), int type);
extern int64_t qtest_get_virtual_clock(void);
extern void dummy_start_vcpu_thread(void *cpu);
extern bool qtest_allowed;
extern __thread void *current_cpu;
extern void *qemu_get_cpu(int index);
extern int cpu_get_pic_interrupt(void *env);
extern void *object_resolve_path_type(const char *path, const char *type, bool *ambiguous);
extern void ps2_queue(void *keyboard, int byte);
extern void *isa_get_irq(void *device, unsigned line);
extern void qemu_set_irq(void *irq, int level);
extern void bdrv_drain_all(void);
extern void *blk_all_next(void *blk);
extern void blk_set_disable_request_queuing(void *blk, bool disable);
extern void *qemu_get_aio_context(void);
extern bool aio_poll(void *context, bool blocking);
extern void *qemu_find_tpm_be(const char *id) __attribute__((weak));
extern void tpm_backend_finish_sync(void *backend) __attribute__((weak));
extern void *get_system_io(void);
extern void memory_region_init_io(void *region, void *owner, const void *ops, void *opaque, const char *name, uint64_t size);
extern void memory_region_add_subregion_overlap(void *region, uint64_t offset, void *sub, int priority);

enum { CONTROL_PORT = 0xfe00, CONTROL_SIZE = 16, SELECT_CPU = 0, ACKNOWLEDGE = 4, KEY = 4, LINE = 8, FINISH = 12, REGION_BYTES = 4096, PRIORITY = 1000 };

static uint64_t control_read(void *opaque, uint64_t addr, unsigned size)
{
    (void)opaque; (void)size;
    if (addr != ACKNOWLEDGE || !current_cpu)
        return ~0ull;
    return (uint32_t)cpu_get_pic_interrupt((char *)current_cpu + CPU_ENV);
}

static void control_write(void *opaque, uint64_t addr, uint64_t data, unsigned size)
{
    (void)opaque; (void)size;
    if (addr == SELECT_CPU) {
        current_cpu = qemu_get_cpu((int)data);
    } else if (addr == KEY) {
        void *keyboard = object_resolve_path_type("", "ps2-kbd", NULL);
        if (keyboard)
            ps2_queue(keyboard, (int)data);
    } else if (addr == LINE) {
        qemu_set_irq(isa_get_irq(NULL, data & 15), data >> 8 & 1);
    } else if (addr == FINISH) {
        void *tpm = qemu_find_tpm_be ? qemu_find_tpm_be("tpm") : NULL;
        if (tpm)
            tpm_backend_finish_sync(tpm);
        /* A TRIM of several ranges counts as one request until its last range has been discarded: a drive that keeps
           requests back while it is drained would keep the next range back, and the drain waits for the TRIM. */
        for (void *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk))
            blk_set_disable_request_queuing(blk, true);
        for (uint64_t n = 0; n < data; n++) {
            bdrv_drain_all();
            while (aio_poll(qemu_get_aio_context(), false)) { }
        }
    }
}

static const MemoryRegionOps control_ops = {
    .read = control_read, .write = control_write, .endianness = 2 /* little */,
    .valid = { 4, 4, false, NULL }, .impl = { 4, 4, false },
};

static void create_vcpu_thread(void *cpu)
{
    static void *control;
    if (!control && getenv("QTEST_CONTROL_PORT")) {
        control = calloc(1, REGION_BYTES);
        memory_region_init_io(control, NULL, &control_ops, NULL, "qtest-control", CONTROL_SIZE);
        memory_region_add_subregion_overlap(get_system_io(), CONTROL_PORT, control, PRIORITY);
    }
    dummy_start_vcpu_thread(cpu);
}

static int init_machine(void *machine) { (void)machine; return 0; }

static void accel_class(void *klass, void *data)
{
    (void)data;
    SLOT(klass, ACCEL_NAME) = (void *)"QTest";
    SLOT(klass, ACCEL_INIT) = (void *)init_machine;
    SLOT(klass, ACCEL_ALLOWED) = &qtest_allowed;
}

static void ops_class(void *klass, void *data)
{
    (void)data;
    SLOT(klass, OPS_CREATE_VCPU) = (void *)create_vcpu_thread;
    SLOT(klass, OPS_VIRTUAL_CLOCK) = (void *)qtest_get_virtual_clock;
}

static const TypeInfo accel = { .name = "qtest-accel", .parent = "accel", .class_init = accel_class };
static const TypeInfo ops = { .name = "qtest-accel-ops", .parent = "accel-ops", .class_init = ops_class };

static void types(void)
{
    type_register_static(&accel);
    type_register_static(&ops);
}

/* What QEMU checks before it takes a module: STAMP is the binary's own, given by the compiler's command line. */
void qemu_module_dummy(void) {}
void STAMP(void) {}

static void __attribute__((constructor)) load(void)
{
    register_dso_module_init(types, MODULE_INIT_QOM);
}
