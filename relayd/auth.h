#ifndef RELAYD_AUTH_H
#define RELAYD_AUTH_H

#include "relayd/session.h"

/* Login by public key. A worker that logs in runs auth_message() until the key is proven; the tenant's worker
 * then looks everything up itself in auth_arrive(), so that a revocation cannot slip between. */

/* Starts the clock of a session in SESSION_LOGIN, which is its timer. At each of its ticks: is the time
 * up, or is it silent while others wait for its place? */
void auth_begin(struct session *session);
void auth_tick(struct session *session);

/* Handles a message of a session in SESSION_LOGIN; the message stays the caller's. When the login
 * succeeds the session is in SESSION_HANDOVER with tenant_id set, and nothing may be read from it
 * before its tenant's worker has it. */
void auth_message(struct session *session, ssh_message message);

/* On the tenant's worker: finds out who the session is and lets it in, or closes it. */
void auth_arrive(struct session *session);

/* Before a session that has ended is freed: lays it to its source. */
void auth_end(const struct session *session);

#endif
