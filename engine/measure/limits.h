/*
 * Limits of the machine, in plain C: what two processes can reach without an engine between them.  Budgets are ratios
 * to these.  Frozen: a change here changes the meaning of every budget; add a limit instead.
 *
 * Each limit forks one helper process, pins both sides, and runs for a bounded number of rounds.  The helper touches
 * only the anonymous shared mapping made for it and leaves by _exit, so forking from a process with threads is safe.
 */
#ifndef ENGINE_LIMITS_H
#define ENGINE_LIMITS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define LIMIT_DEADLINE_NS 30000000000ull /* one limit takes milliseconds; after this it is an error */
enum { LIMIT_RING = 4096, LIMIT_BATCH_MAX = 1024 };

typedef struct limit_rec {
    uint64_t word[4];
} limit_rec;

/* Shared between the two sides; lines 128 bytes apart, as in the engine's own structures. */
typedef struct limit_shared {
    uint32_t ready;    /* helper: pinned and about to start */
    uint32_t aborted;  /* either: leave */
    uint8_t pad0[120];
    uint32_t ping;     /* caller */
    uint32_t held;     /* helper: ticks of its last turn, in the line it hands back anyway */
    uint8_t pad1[120];
    uint32_t pong;     /* helper (in limit_pingpong both write ping, taking turns) */
    uint8_t pad2[124];
    uint64_t produced; /* caller */
    uint8_t pad3[120];
    uint64_t consumed; /* helper */
    uint64_t checksum; /* helper, before its last store to consumed */
    uint8_t pad4[112];
    limit_rec ring[LIMIT_RING];
} limit_shared;

typedef struct limit_job {
    limit_shared *shared;
    uint64_t n;         /* rounds or records */
    uint32_t warm;      /* rounds before the first sample */
    uint32_t batch;
    uint32_t turn;      /* TSC ticks each side holds the line before it answers */
    uint32_t share;     /* both sides have one CPU: give way while spinning */
    uint64_t end_ns;    /* CLOCK_MONOTONIC */
    uint32_t *samples;  /* TSC ticks of each round, n of them; caller's side; NULL: nobody wants to keep them */
    uint64_t elapsed_ns;
    int fds[4];         /* for limits on descriptors: caller reads, writes; helper reads, writes */
} limit_job;

typedef struct limit_result {
    double mean_ns, p50_ns, p99_ns, p999_ns, max_ns, per_s;
    uint64_t n;
} limit_result;

typedef int (*limit_side)(limit_job *);

static inline uint64_t limit_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* TSC ticks in a nanosecond, measured once over 20 ms. */
static double limit_ticks_per_ns(void)
{
    static double ticks;
    if (ticks == 0) {
        uint64_t ns = limit_now(), t = __rdtsc(), later;
        while ((later = limit_now()) - ns < 20000000u)
            ;
        ticks = (double)(__rdtsc() - t) / (double)(later - ns);
    }
    return ticks;
}

/* One step of a spin.  Not 0: the other side is gone or the time is over. */
static inline int limit_spin(limit_job *j, uint32_t *spins)
{
    _mm_pause();
    if ((++*spins & 1023) != 0 && !j->share)
        return 0;
    if (j->share)
        sched_yield();
    if ((*spins & 1023) == 0 && limit_now() > j->end_ns)
        return ETIME;
    return __atomic_load_n(&j->shared->aborted, __ATOMIC_RELAXED) ? ECANCELED : 0;
}

static int limit_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set);
}

/* Run `caller` here on cpu_a and `helper` in a forked process on cpu_b.  0 or an errno. */
static int limit_pair(limit_job *j, int cpu_a, int cpu_b, limit_side caller, limit_side helper)
{
    cpu_set_t old;
    uint32_t spins = 0;
    int err = 0;
    pid_t pid, parent = getpid();

    j->shared = mmap(NULL, sizeof(limit_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (j->shared == MAP_FAILED)
        return errno;
    j->share = cpu_a == cpu_b;
    j->end_ns = limit_now() + LIMIT_DEADLINE_NS;
    if (sched_getaffinity(0, sizeof(old), &old) < 0 || limit_pin(cpu_a) < 0) {
        err = errno;
        munmap(j->shared, sizeof(limit_shared));
        return err;
    }
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || limit_pin(cpu_b) < 0)
            _exit(1);
        __atomic_store_n(&j->shared->ready, 1, __ATOMIC_RELEASE);
        _exit(helper(j) != 0);
    }
    if (pid < 0) {
        err = errno;
    } else {
        int status;
        while (!err && !__atomic_load_n(&j->shared->ready, __ATOMIC_ACQUIRE)) {
            err = limit_spin(j, &spins);
            if (waitpid(pid, &status, WNOHANG) == pid) { /* it could not start */
                err = EPERM;
                pid = -1;
            }
        }
        if (!err)
            err = caller(j);
        if (err)
            __atomic_store_n(&j->shared->aborted, 1, __ATOMIC_RELAXED);
        if (pid > 0) {
            if (err)
                kill(pid, SIGKILL);
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
            if (!err && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
                err = ECHILD;
        }
    }
    sched_setaffinity(0, sizeof(old), &old);
    munmap(j->shared, sizeof(limit_shared));
    return err;
}

static int limit_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Sorts the samples.  Percentiles are nearest-rank. */
static void limit_summary(uint32_t *samples, uint64_t n, limit_result *r)
{
    double scale = 1 / limit_ticks_per_ns(), sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += samples[i];
    qsort(samples, n, sizeof(uint32_t), limit_compare);
    r->n = n;
    r->mean_ns = sum / (double)n * scale;
    r->p50_ns = samples[(n * 500 + 999) / 1000 - 1] * scale;
    r->p99_ns = samples[(n * 990 + 999) / 1000 - 1] * scale;
    r->p999_ns = samples[(n * 999 + 999) / 1000 - 1] * scale;
    r->max_ns = samples[n - 1] * scale;
    r->per_s = r->mean_ns > 0 ? 1e9 / r->mean_ns : 0;
}

static inline void limit_sample(limit_job *j, uint64_t round, uint64_t start)
{
    uint64_t ticks = __rdtsc() - start;
    if (round >= j->warm)
        j->samples[round - j->warm] = ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks;
}

/* Rounds of `caller` with a sample each, summed up; the samples are sorted afterwards. */
static int limit_rounds(uint64_t n, int cpu_a, int cpu_b, limit_side caller, limit_side helper, limit_job *j,
                        limit_result *r)
{
    int err;
    uint32_t *own = NULL;
    j->n = n;
    j->warm = n / 10 < 1000 ? (uint32_t)(n / 10) : 1000;
    if (!j->samples)
        j->samples = own = malloc(n * sizeof(uint32_t));
    if (!j->samples)
        return ENOMEM;
    limit_ticks_per_ns();
    err = limit_pair(j, cpu_a, cpu_b, caller, helper);
    if (!err)
        limit_summary(j->samples, n, r);
    free(own);
    return err;
}

/*
 * ---- Cache-line ping-pong: one word in one line, odd and even turns, both sides spin.  A sample is a round trip. ----
 *
 * Each side holds the line for `turn` ticks before it hands it back; the helper's part is taken off the sample.  With
 * turn 0 a side can find the word changed at its first look and never wait at all, which hyper-threads of one core do
 * for long stretches, at 22 ns a round: no two parties of which one does anything meet that (docs/measuring.md).
 */
static inline uint64_t limit_turn(uint64_t start, uint64_t ticks)
{
    uint64_t now;
    do
        now = __rdtsc();
    while (now - start < ticks);
    return now - start;
}
static int limit_pingpong_caller(limit_job *j)
{
    uint32_t *word = &j->shared->ping, spins = 0;
    for (uint64_t i = 0; i < j->n + j->warm; i++) {
        uint64_t start = __rdtsc();
        __atomic_store_n(word, (uint32_t)(2 * i + 1), __ATOMIC_RELEASE);
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != (uint32_t)(2 * i + 2)) {
            int err = limit_spin(j, &spins);
            if (err)
                return err;
        }
        limit_sample(j, i, start + j->shared->held);
        if (j->turn)
            limit_turn(__rdtsc(), j->turn);
    }
    return 0;
}
static int limit_pingpong_helper(limit_job *j)
{
    uint32_t *word = &j->shared->ping, spins = 0;
    for (uint64_t i = 0; i < j->n + j->warm; i++) {
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != (uint32_t)(2 * i + 1)) {
            int err = limit_spin(j, &spins);
            if (err)
                return err;
        }
        if (j->turn)
            j->shared->held = (uint32_t)limit_turn(__rdtsc(), j->turn);
        __atomic_store_n(word, (uint32_t)(2 * i + 2), __ATOMIC_RELEASE);
    }
    return 0;
}
static int limit_pingpong(uint64_t n, uint32_t turn, uint32_t *samples, int cpu_a, int cpu_b, limit_result *r)
{
    limit_job j = {.turn = turn, .samples = samples};
    return limit_rounds(n, cpu_a, cpu_b, limit_pingpong_caller, limit_pingpong_helper, &j, r);
}

/* ---- Futex ping-pong: both sides sleep in every round.  A sample is a round trip: two wakes, two sleeps. ---- */
static int limit_futex_wait(limit_job *j, uint32_t *word, uint32_t old)
{
    const struct timespec second = {.tv_sec = 1};
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == old) {
        if (syscall(SYS_futex, word, FUTEX_WAIT, old, &second, NULL, 0) < 0 && errno == ETIMEDOUT &&
            limit_now() > j->end_ns)
            return ETIME;
        if (__atomic_load_n(&j->shared->aborted, __ATOMIC_RELAXED))
            return ECANCELED;
    }
    return 0;
}
static void limit_futex_wake(uint32_t *word, uint32_t v)
{
    __atomic_store_n(word, v, __ATOMIC_RELEASE);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}
static int limit_futex_caller(limit_job *j)
{
    for (uint64_t i = 0; i < j->n + j->warm; i++) {
        uint64_t start = __rdtsc();
        limit_futex_wake(&j->shared->ping, (uint32_t)(i + 1));
        int err = limit_futex_wait(j, &j->shared->pong, (uint32_t)i);
        if (err)
            return err;
        limit_sample(j, i, start);
    }
    return 0;
}
static int limit_futex_helper(limit_job *j)
{
    for (uint64_t i = 0; i < j->n + j->warm; i++) {
        int err = limit_futex_wait(j, &j->shared->ping, (uint32_t)i);
        if (err)
            return err;
        limit_futex_wake(&j->shared->pong, (uint32_t)(i + 1));
    }
    return 0;
}
static int limit_futex(uint64_t n, int cpu_a, int cpu_b, limit_result *r)
{
    limit_job j = {0};
    return limit_rounds(n, cpu_a, cpu_b, limit_futex_caller, limit_futex_helper, &j, r);
}

/* ---- Ring of 32-byte records: write, publish a batch, copy out, add up.  Records a second, end to end. ---- */
static int limit_spsc_caller(limit_job *j)
{
    limit_shared *s = j->shared;
    uint64_t mine = 0, theirs = 0, sum = 0, start;
    uint32_t spins = 0;
    start = limit_now();
    while (mine < j->n) {
        uint64_t want = j->n - mine < j->batch ? j->n - mine : j->batch;
        while (LIMIT_RING - (mine - theirs) < want) {
            theirs = __atomic_load_n(&s->consumed, __ATOMIC_ACQUIRE);
            int err = LIMIT_RING - (mine - theirs) < want ? limit_spin(j, &spins) : 0;
            if (err)
                return err;
        }
        for (uint64_t i = 0; i < want; i++) {
            uint64_t at = mine + i;
            s->ring[at % LIMIT_RING] = (limit_rec){{at, at ^ 0x3F8, at * 3, 1}};
            sum += at ^ (at ^ 0x3F8) ^ at * 3 ^ 1;
        }
        mine += want;
        __atomic_store_n(&s->produced, mine, __ATOMIC_RELEASE);
    }
    while (__atomic_load_n(&s->consumed, __ATOMIC_ACQUIRE) != mine) {
        int err = limit_spin(j, &spins);
        if (err)
            return err;
    }
    j->elapsed_ns = limit_now() - start;
    return s->checksum == sum ? 0 : EILSEQ;
}
static int limit_spsc_helper(limit_job *j)
{
    limit_shared *s = j->shared;
    limit_rec copy[LIMIT_BATCH_MAX];
    uint64_t mine = 0, theirs = 0, sum = 0;
    uint32_t spins = 0;
    while (mine < j->n) {
        while (theirs == mine) {
            theirs = __atomic_load_n(&s->produced, __ATOMIC_ACQUIRE);
            int err = theirs == mine ? limit_spin(j, &spins) : 0;
            if (err)
                return err;
        }
        uint64_t have = theirs - mine < j->batch ? theirs - mine : j->batch;
        for (uint64_t i = 0; i < have; i++)
            copy[i] = s->ring[(mine + i) % LIMIT_RING];
        for (uint64_t i = 0; i < have; i++)
            sum += copy[i].word[0] ^ copy[i].word[1] ^ copy[i].word[2] ^ copy[i].word[3];
        mine += have;
        if (mine == j->n)
            s->checksum = sum;
        __atomic_store_n(&s->consumed, mine, __ATOMIC_RELEASE);
    }
    return 0;
}
static int limit_spsc(uint64_t n, uint32_t batch, int cpu_a, int cpu_b, limit_result *r)
{
    limit_job j = {.n = n, .batch = batch};
    int err = limit_pair(&j, cpu_a, cpu_b, limit_spsc_caller, limit_spsc_helper);
    memset(r, 0, sizeof(*r));
    if (!err) {
        r->n = n;
        r->per_s = (double)n * 1e9 / (double)j.elapsed_ns;
        r->mean_ns = (double)j.elapsed_ns / (double)n;
    }
    return err;
}

#endif
