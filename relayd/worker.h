#ifndef RELAYD_WORKER_H
#define RELAYD_WORKER_H

#include "relayd/command.h"
#include "relayd/loop.h"
#include "relayd/source.h"

#include <sys/socket.h>

/* The worker threads. A tenant lives on one of the first relay->nworkers. The others log in whoever connects,
 * so that no stranger's key exchange holds a tenant up: the kernel shares the cores among threads, and a key
 * exchange, which costs what a hundred messages do, cannot be interrupted by anything else. */

/* Starts relay->nloops threads. `answer` is called on some worker's or the keeper's thread with
 * each request that has come to its end and takes it over. -1 with a reason. */
int worker_start_all(const struct relay *relay, void (*answer)(struct request *request),
                     struct failure *failure);

/* Gives an accepted socket to a worker that logs in; it is closed if there is no memory. Any thread. */
void worker_accept(int fd, const struct sockaddr *address, const struct source *source);

/* Sends a request on to its next worker, or to its answer. Any thread; takes it over. */
void worker_route(struct request *request);

/* Ends the threads: no new sessions or opens, `drain-timeout` for open bridges, then all is closed.
 * Requests may still be routed afterwards; they are dropped by worker_free_all(). */
void worker_stop_all(void);
void worker_free_all(void);

/* How many sockets the workers hold, or are about to; and how many of them have not logged in. Any thread. */
unsigned worker_connections(void);
unsigned worker_logins(void);

#endif
