/* callgrind's requests, for perf/instructions.py: outside of valgrind they do nothing. */
#include <valgrind/callgrind.h>

/* Whether valgrind runs this. */
int counted_here(void) { return (int)RUNNING_ON_VALGRIND; }

/* Instructions count from here on. */
void counted_start(void) { CALLGRIND_START_INSTRUMENTATION; }

/* They no longer do; what was counted is written under a name. */
void counted_stop(const char *name)
{
    CALLGRIND_STOP_INSTRUMENTATION;
    CALLGRIND_DUMP_STATS_AT(name);
}
