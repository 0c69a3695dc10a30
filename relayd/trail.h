#ifndef RELAYD_TRAIL_H
#define RELAYD_TRAIL_H

#include "relayd/config.h"
#include "relayd/store.h"

/* The audit trail on disk: what audit() has collected is written about once a second, and what is too old, or
 * more than a tenant may have, goes. All of it in small steps, so that a command never waits long behind one.
 * What cannot be written waits and is tried again. On the keeper's thread, but for trail_configure(). */

/* How long events are kept, and how many. Before the keeper starts, or on its thread. */
void trail_configure(const struct config *config);

/* Does what is due, one step of it. */
void trail_serve(struct store *store);

/* After how many milliseconds it wants to be called again, at the latest; and, unless something is known to
 * wait, once audit_fd() is readable. */
int trail_delay(void);
bool trail_waits(void);

/* Writes all that waits, so that who reads next finds it; what the disk does not take now stays for later.
 * Not inside a transaction. */
void trail_flush(struct store *store);

/* The last try: what cannot be written is lost, and said so. */
void trail_end(struct store *store);

#endif
