#ifndef RELAYD_LISTENER_H
#define RELAYD_LISTENER_H

#include "relayd/config.h"
#include "relayd/reason.h"
#include "relayd/source.h"

#include <event2/event.h>

/* The SSH sockets, on the main thread. */
struct listener;

struct listener_options {
    const struct config_addresses *addresses; /* to bind */
    int npassed;                              /* sockets from systemd, used in their place if there are any */
    unsigned nloops;
    /* Owns each socket from then on. */
    void (*accepting)(int fd, const struct sockaddr *address, const struct source *source);
    unsigned (*held)(void);   /* how many sockets are with the workers, */
    unsigned (*logins)(void); /* and how many of them have not logged in */
};

/* At the descriptor reserve and at max-logins accepting pauses, and goes on when there is room again:
 * whoever connects meanwhile waits in the backlog. The gate decides about each connection. NULL with a
 * reason. *port is the port of the first address. */
struct listener *listener_new(struct event_base *base, const struct listener_options *options, uint16_t *port,
                              struct failure *failure);

/* Stops listening at once, and closes what was delayed. */
void listener_free(struct listener *listener);

#endif
