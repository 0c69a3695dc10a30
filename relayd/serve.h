#ifndef RELAYD_SERVE_H
#define RELAYD_SERVE_H

#include "relayd/session.h"

/* The service step of a worker: all work on sessions happens here, at the top of the stack, after
 * the event loop has only marked what is due. */

/* Serves every session that was marked when the pass began, once and within a budget, then settles
 * and tears down. Returns true if sessions are marked again, so that the loop must not sleep. */
bool serve_pass(struct loop *loop);

/* Settles what was touched and tears dead sessions down. Part of the pass; on its own for whoever
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
