#ifndef RELAYD_RATE_H
#define RELAYD_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* A token bucket that holds a second's worth, and a meter of what goes by. Pure: the caller brings the
 * time, in microseconds of a clock that does not go back.
 *
 * Who must not be refused pays first, even with tokens that are not there yet, and then waits until they
 * would have been: so all that share a bucket are served in the order in which they have paid. */
#define RATE_NONE UINT64_MAX             /* no limit */
#define RATE_MAX (UINT64_C(1) << 40)     /* the highest limit */
#define RATE_PAY_MAX (UINT64_C(1) << 20) /* tokens paid at once */

struct rate {
    uint64_t limit;    /* tokens a second: 0..RATE_MAX, or RATE_NONE */
    int64_t credit;    /* in millionths of a token, exact; below 0: owed */
    int64_t filled_at; /* when credit was right */
    int64_t second;    /* that the meter counts in, */
    uint64_t count;    /* so far, */
    uint64_t before;   /* and in the one before */
};

/* Starts with so many tokens, or as many as the bucket holds; what was owed is forgiven. */
void rate_set(struct rate *rate, uint64_t limit, uint64_t tokens, int64_t now);

/* True if a token is there. */
bool rate_has(struct rate *rate, int64_t now);

/* Takes tokens. Returns in how many microseconds they will have been there, 0 for now. The limit must
 * not be 0. */
int64_t rate_pay(struct rate *rate, uint64_t tokens, int64_t now);

/* Gives back what was paid and is not used. */
void rate_refund(struct rate *rate, uint64_t tokens);

/* Counts what went by; how much did in the second before this one. */
void rate_count(struct rate *rate, uint64_t tokens, int64_t now);
uint64_t rate_measured(const struct rate *rate, int64_t now);

#endif
