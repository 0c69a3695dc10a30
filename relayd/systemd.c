#include "relayd/systemd.h"

#ifdef HAVE_SYSTEMD

#include "relayd/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

_Static_assert(SYSTEMD_FIRST_FD == SD_LISTEN_FDS_START, "the number is fixed by systemd");

int systemd_sockets(void)
{
    int n = sd_listen_fds(1);
    return n >= 0 ? n : -1;
}

void systemd_ready(const char *fmt, ...)
{
    char status[640];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(status, sizeof(status), fmt, ap);
    va_end(ap);
    sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

/* The time tells the manager which of its requests is meant. */
void systemd_reloading(void)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reading the configuration",
               (long long)clock_us());
}

void systemd_stopping(void)
{
    sd_notify(0, "STOPPING=1\nSTATUS=waiting for open bridges");
}

#else

int systemd_sockets(void)
{
    return 0;
}

void systemd_ready(const char *fmt, ...)
{
    (void)fmt;
}

void systemd_reloading(void)
{
}

void systemd_stopping(void)
{
}

#endif
