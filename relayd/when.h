#ifndef RELAYD_WHEN_H
#define RELAYD_WHEN_H

#include <stdint.h>

/* Times as administrators write them. Pure. */
extern const char when_expected[]; /* what they may look like, for people */

/* "2026-12-31", "2026-12-31T18:00:00Z", or a duration such as "8h": so long after now, or with direction -1
 * before it. UNIX seconds; 0: it is none of these. */
int64_t when_parse(const char *text, int64_t now, int direction);

/* "2026-12-31T18:00:00Z" */
#define WHEN_SIZE 32
void when_write(int64_t when, char out[WHEN_SIZE]);

#endif
