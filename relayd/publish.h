#ifndef RELAYD_PUBLISH_H
#define RELAYD_PUBLISH_H

#include "relayd/session.h"

/* tcpip-forward and its cancel (RFC 4254, 7.1). */

/* A device whose publishes were all refused and that has no channel is of no use: it is closed after
 * this while, so that what started it tries again. */
#define PUBLISH_REFUSED_GRACE_MS 30000

/* libssh's global_request_function: answers every global request at once and in order, for that is
 * all that matches replies to requests (D3). Runs inside libssh: no I/O. */
void publish_on_global_request(ssh_session ssh, ssh_message message, void *session);

/* The session's own publication of name:port, or NULL. */
struct publication *publish_find(const struct session *session, const char *name, uint16_t port);

/* Takes back all that the session publishes. */
void publish_withdraw_all(struct session *session);

/* Whether the device may publish name:port: REASON_none, not_owner or not_allowed; *own is set if the
 * name is at or under its own. */
enum reason publish_check_right(const struct principal *device, const char *name, uint16_t port, bool *own);

/* True if all that the session publishes is still allowed by its rules and by who owns the names. */
bool publish_still_allowed(const struct session *session);

/* It serves again what a newer session served. */
void publish_record_standby(const struct publication *standby);

/* True if the session publishes, and newer ones serve all of that. */
bool publish_is_standby(const struct session *session);

/* The session's own publication of a loopback spelling and port, for autossh's monitor (D19). */
struct publication *publish_find_loopback(const struct session *session, uint16_t port);

#endif
