#ifndef RELAYD_FEED_H
#define RELAYD_FEED_H

#include "relayd/session.h"

/* What an open shell says about what happens in its tenant. */
#define FEED_LINE_SIZE 1024

/* The line that this session's shell shows for an event, in printable ASCII. False if it concerns its
 * principal in no way, or is none of its business. */
bool feed_line(const struct session *session, const struct audit_event *event, char line[FEED_LINE_SIZE]);

#endif
