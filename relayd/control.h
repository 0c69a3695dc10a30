#ifndef RELAYD_CONTROL_H
#define RELAYD_CONTROL_H

#include "relayd/command.h"

#include <event2/event.h>

/* The control socket, on the main thread: lines in, requests out; answers back (schema/wire.h). */

/* Binds the socket (0660, group `relayd` if there is one) and serves it. A socket that nobody
 * answers on is replaced. -1 with a reason. */
int control_start(struct event_base *base, const char *path, struct failure *failure);

/* Takes a finished request to its connection. Any thread; takes it over. */
void control_answer(struct request *request);

/* Runs a command that takes no arguments, on nobody's behalf. */
void control_run(enum command_id command);

/* Removes the socket and closes the connections. */
void control_stop(void);

/* Drops the answers that came after control_stop(). No thread may answer any more. */
void control_free(void);

#endif
