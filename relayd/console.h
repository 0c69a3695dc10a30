#ifndef RELAYD_CONSOLE_H
#define RELAYD_CONSOLE_H

#include "relayd/session.h"

/* Session channels (RFC 4254, 6). There is no shell behind them: a shell is greeted and held open,
 * since closing it would make OpenSSH leave and unpublish (D17); exec runs a command of ours. */

/* Answers the open of a session channel; the message stays the caller's. */
void console_open(struct session *session, ssh_message message);

/* Answers a request on a channel of this session; the message stays the caller's. */
void console_request(struct session *session, ssh_message message);

#endif
