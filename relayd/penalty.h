#ifndef RELAYD_PENALTY_H
#define RELAYD_PENALTY_H

#include "relayd/source.h"

#include <stddef.h>

/* Sources that fail before login again and again have to wait. Each failure costs time, and time pays
 * it off; who owes more than a few seconds is held back until all is paid. Pure: the caller says what
 * time it is, in microseconds that never go back. No thread of its own. */
enum penalty {
    PENALTY_none,
    PENALTY_left_early, /* spoke, and left without an attempt to log in */
    PENALTY_enrol,      /* asked to be enrolled */
    PENALTY_bad_login,
    PENALTY_too_slow, /* did not log in within the grace */
    PENALTY_garbage,  /* did not speak SSH */
};

const char *penalty_text(enum penalty penalty);

enum penalty_verdict {
    PENALTY_PASS,
    PENALTY_DELAY,
    PENALTY_REFUSE,
};

struct penalties;

/* At most so many sources owe something at a time; above that the one that failed longest ago is forgotten.
 */
struct penalties *penalty_new(size_t limit);
void penalty_free(struct penalties *penalties);

/* A connection of the source has failed. Returns the time from now on if this began to hold it back, else 0.
 */
uint64_t penalty_fail(struct penalties *penalties, const struct source *source, enum penalty penalty,
                      uint64_t now);

/* A session of the source has logged in; one that had has ended. */
void penalty_login(struct penalties *penalties, const struct source *source);
void penalty_logout(struct penalties *penalties, const struct source *source);

/* May another connection of the source come in now? A source that is held back is refused, but one that
 * has sessions is slowed: a whole fleet may stand behind one address. PENALTY_RATE, and one more for each
 * session, are let in a second, and *delay says after how long to ask for the next one again. */
enum penalty_verdict penalty_check(struct penalties *penalties, const struct source *source, uint64_t now,
                                   uint64_t *delay);

/* How many sources are held back. Looks at all. */
size_t penalty_count(const struct penalties *penalties, uint64_t now);

#define PENALTY_SECOND UINT64_C(1000000)
#define PENALTY_THRESHOLD (15 * PENALTY_SECOND) /* owed, from which on a source is held back */
#define PENALTY_MAX (600 * PENALTY_SECOND)      /* that can be owed */
#define PENALTY_RATE 10
#define PENALTY_BURST (PENALTY_SECOND / 20) /* whoever asks so much too late loses nothing */

#endif
