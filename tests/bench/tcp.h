#ifndef BENCH_TCP_H
#define BENCH_TCP_H

#include <stdint.h>

/* Bulk bytes over bare TCP: connects to a proxy and accepts what the proxy connects to. */
struct tcp_run {
    const char *host;
    uint16_t port, listen_port;
    unsigned streams;
    uint64_t bytes; /* of each stream */
    int listener;
};

void tcp_listen(struct tcp_run *run);

/* Sends all streams at once and waits until every byte has arrived. */
void tcp_run(struct tcp_run *run);

#endif
