/* Two processes, a UNIX stream socket: 32 bytes there, 16 bytes back.  A sample is a round trip. */
#include "limits.h"
#include <sys/socket.h>

static int whole(ssize_t (*move)(int, void *, size_t, int), int fd, void *buf, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = move(fd, (char *)buf + at, n - at, MSG_NOSIGNAL);
        if (got <= 0)
            return got < 0 ? errno : EPIPE;
        at += (size_t)got;
    }
    return 0;
}

static ssize_t send_some(int fd, void *buf, size_t n, int flags) { return send(fd, buf, n, flags); }

static int caller(limit_job *j)
{
    uint64_t message[4] = {0}, answer[2];
    close(j->fds[1]); /* so that a dead helper ends recv */
    j->fds[1] = -1;
    for (uint64_t i = 0; i < j->n + j->warm; i++) {
        uint64_t start = __rdtsc();
        message[0] = i;
        int err = whole(send_some, j->fds[0], message, sizeof(message));
        if (!err)
            err = whole(recv, j->fds[0], answer, sizeof(answer));
        if (err || answer[0] != i)
            return err ? err : EIO;
        limit_sample(j, i, start);
    }
    return 0;
}

static int helper(limit_job *j)
{
    uint64_t message[4];
    close(j->fds[0]);
    for (uint64_t i = 0; i < j->n + j->warm; i++)
        if (whole(recv, j->fds[1], message, sizeof(message)) || whole(send_some, j->fds[1], message, 16))
            return 1;
    return 0;
}

int limit_socket(uint64_t n, int cpu_a, int cpu_b, limit_result *r)
{
    limit_job j = {0};
    int err = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, j.fds) < 0 ? errno : 0;
    if (err)
        return err;
    err = limit_rounds(n, cpu_a, cpu_b, caller, helper, &j, r);
    close(j.fds[0]);
    if (j.fds[1] >= 0)
        close(j.fds[1]);
    return err;
}
