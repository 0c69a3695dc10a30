#ifndef RELAYD_LISTENER_H
#define RELAYD_LISTENER_H

#include "relayd/config.h"
#include "relayd/reason.h"

#include <event2/event.h>

/* The SSH sockets, on the main thread. */
struct listener;

/* Binds all addresses; `accepting` gets each accepted socket, which it owns. `full` tells how many
 * are held: at the descriptor reserve accepting pauses and goes on when some have been closed. NULL
 * with a reason. *port is the port of the first address. */
struct listener *listener_new(struct event_base *base, const struct config_addresses *addresses,
                              void (*accepting)(int fd, const struct sockaddr *address),
                              unsigned (*held)(void), unsigned nworkers, uint16_t *port,
                              struct failure *failure);

/* Stops listening at once. */
void listener_free(struct listener *listener);

#endif
