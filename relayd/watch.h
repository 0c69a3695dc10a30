#ifndef RELAYD_WATCH_H
#define RELAYD_WATCH_H

#include "relayd/session.h"

/* Whether a peer is still there. TCP finds the one whose kernel is gone while nothing is sent to it;
 * this finds all others: whatever is sent obliges the peer's kernel to acknowledge it, and an open,
 * a CLOSE or a rekey obliges the peer itself to answer. There is one clock for all of them. It stands
 * still for a session that owes nothing, and any byte from the peer sets it back: a slow peer lives. */

/* Before the login and after: TCP's part. Any thread. dead_ms: dead-peer-timeout. */
void watch_socket(int fd, unsigned dead_ms);

/* A part of the service step, after reading: acts when the clock has ticked. Reads. */
void watch_serve(struct session *session);

#endif
