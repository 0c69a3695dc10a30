#ifndef RELAYD_CONSOLE_H
#define RELAYD_CONSOLE_H

#include "relayd/command.h"
#include "relayd/session.h"

/* Session channels (RFC 4254, 6). There is no shell behind them: a shell is greeted and held open,
 * since closing it would make OpenSSH leave and unpublish (D17); exec runs a command of ours. */

/* Answers the open of a session channel; the message stays the caller's. */
void console_open(struct session *session, ssh_message message);

/* A request that a console of this worker has sent out is back, and is taken over: its outcome is shown if
 * the console is still there. */
void console_answer(struct loop *loop, struct request *request);

/* Answers a request on a channel of this session; the message stays the caller's. */
void console_request(struct session *session, ssh_message message);

#endif
