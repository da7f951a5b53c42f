/* Two processes, two eventfds, both sides block in read.  A sample is a round trip. */
#include "limits.h"
#include <sys/eventfd.h>

static int caller(limit_job *j)
{
    for (uint64_t i = 0; i < j->n + j->warm; i++) {
        uint64_t one = 1, start = __rdtsc();
        if (write(j->fds[0], &one, 8) != 8 || read(j->fds[1], &one, 8) != 8)
            return errno ? errno : EIO;
        limit_sample(j, i, start);
    }
    return 0;
}

static int helper(limit_job *j)
{
    for (uint64_t i = 0; i < j->n + j->warm; i++) {
        uint64_t one = 1;
        if (read(j->fds[0], &one, 8) != 8 || write(j->fds[1], &one, 8) != 8)
            return 1;
    }
    return 0;
}

int limit_eventfd(uint64_t n, int cpu_a, int cpu_b, limit_result *r)
{
    limit_job j = {.fds = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC), -1, -1}};
    int err = j.fds[0] < 0 || j.fds[1] < 0 ? errno : limit_rounds(n, cpu_a, cpu_b, caller, helper, &j, r);
    close(j.fds[0]);
    close(j.fds[1]);
    return err;
}
