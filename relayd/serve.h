#ifndef RELAYD_SERVE_H
#define RELAYD_SERVE_H

#include "relayd/session.h"

/* The service step of a worker: all work on sessions happens here, at the top of the stack, after
 * the event loop has only marked what is due. */

/* Serves the sessions that are marked, each once at the most and for a slice of time, and all of a tenant for
 * its share: so a tenant waits for no more than a share of each other one, whatever they do. Then settles and
 * tears down. polled: microseconds that it took to find out who is ready; a share is no less, or with
 * thousands of them a worker would do little else. Returns true if sessions are still marked, so that the
 * loop must not sleep. */
bool serve_pass(struct loop *loop, int64_t polled);

/* Settles what was touched and tears dead sessions down. Part of the pass; at once for whoever
 * closes sessions and has to report it done. */
void serve_reap(struct loop *loop);

/* Takes over an accepted socket. */
void serve_accept(struct loop *loop, int fd, const struct source *source, const char *address, uint16_t port);

/* Takes over a session that another worker has logged in; it is read from here on. */
void serve_arrive(struct loop *loop, struct session *session);

/* For tenant_on_expired. */
void serve_expire(struct principal *principal);

/* Closes all sessions. */
void serve_close_all(struct loop *loop, enum reason reason);

/* Mails a logged-in session to its tenant's worker; set before the first pass, the same for all. */
extern void (*serve_hand_over)(struct session *session);

#endif
