#include "tests/fault/faults.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* What the file holds; tests/e2e/faults.py knows it too. */
struct faults {
    _Atomic int64_t countdown; /* the allocation that makes it 0 fails; 0: none does */
    _Atomic int64_t struck;    /* how many have failed */
    _Atomic int64_t read_only; /* not 0: nothing can be written */
    _Atomic int64_t own_only;  /* not 0: libevent gets all it asks for */
    _Atomic int64_t syncs;     /* how often the disk was waited for */
    _Atomic int64_t hold_sync; /* not 0: it keeps whoever waits */
};

static struct faults none, *faults = &none;

bool fault_strikes(const char *file, int line)
{
    int64_t left = atomic_load(&faults->countdown);
    while (left > 0 && !atomic_compare_exchange_weak(&faults->countdown, &left, left - 1))
        continue;
    if (left != 1)
        return false;
    dprintf(STDERR_FILENO, "fault: no memory at %s:%d\n", file, line);
    atomic_fetch_add(&faults->struck, 1);
    errno = ENOMEM;
    return true;
}

bool fault_read_only(void)
{
    return atomic_load(&faults->read_only) != 0;
}

void fault_wait_for_disk(void)
{
    const struct timespec ms = { .tv_nsec = 1000000 };
    atomic_fetch_add(&faults->syncs, 1);
    for (int left = 30000; left > 0 && atomic_load(&faults->hold_sync) != 0; left--)
        nanosleep(&ms, NULL);
}

static bool strikes_libevent(void)
{
    return atomic_load(&faults->own_only) == 0 && fault_strikes("libevent", 0);
}

static void *event_malloc(size_t size)
{
    return strikes_libevent() ? NULL : malloc(size);
}

static void *event_realloc(void *old, size_t size)
{
    return strikes_libevent() ? NULL : realloc(old, size);
}

__attribute__((constructor)) static void share(void)
{
    const char *path = getenv("RELAYD_FAULTS");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd >= 0 ? mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (map != MAP_FAILED)
        faults = map;
    if (fd >= 0)
        close(fd);
    event_set_mem_functions(event_malloc, event_realloc, free);
    fault_replace_vfs();
}
