#ifndef RELAYD_LISTENER_H
#define RELAYD_LISTENER_H

#include "relayd/config.h"
#include "relayd/reason.h"

#include <event2/event.h>

/* The SSH sockets, on the main thread. */
struct listener;

struct listener_options {
    const struct config_addresses *addresses; /* to bind */
    int npassed;                              /* sockets from systemd, used in their place if there are any */
    unsigned nworkers;
    void (*accepting)(int fd, const struct sockaddr *address); /* owns each socket from then on */
    unsigned (*held)(void);                                    /* how many sockets are with the workers */
};

/* At the descriptor reserve accepting pauses, and goes on when some have been closed. NULL with a
 * reason. *port is the port of the first address. */
struct listener *listener_new(struct event_base *base, const struct listener_options *options, uint16_t *port,
                              struct failure *failure);

/* Stops listening at once. */
void listener_free(struct listener *listener);

#endif
