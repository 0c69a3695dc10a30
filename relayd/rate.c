#include "relayd/rate.h"

#include <assert.h>

#define SECOND 1000000 /* in microseconds, and a token in the unit of credit */

static int64_t full(const struct rate *rate)
{
    return (int64_t)rate->limit * SECOND;
}

void rate_set(struct rate *rate, uint64_t limit, uint64_t tokens, int64_t now)
{
    assert(limit <= RATE_MAX || limit == RATE_NONE);
    rate->limit = limit;
    rate->filled_at = now;
    rate->credit = limit == RATE_NONE ? 0 : (int64_t)(tokens < limit ? tokens : limit) * SECOND;
}

/* limit tokens a second are exactly limit units of credit a microsecond: nothing is ever rounded. */
static void fill(struct rate *rate, int64_t now)
{
    int64_t elapsed = now - rate->filled_at, limit = (int64_t)rate->limit;
    int64_t missing = full(rate) - rate->credit;
    rate->filled_at = now;
    if (limit == 0 || elapsed > missing / limit)
        rate->credit = full(rate);
    else
        rate->credit += elapsed * limit;
}

bool rate_has(struct rate *rate, int64_t now)
{
    if (rate->limit == RATE_NONE)
        return true;
    fill(rate, now);
    return rate->credit >= SECOND;
}

int64_t rate_pay(struct rate *rate, uint64_t tokens, int64_t now)
{
    assert(tokens <= RATE_PAY_MAX);
    if (rate->limit == RATE_NONE)
        return 0;
    assert(rate->limit > 0);
    fill(rate, now);
    rate->credit -= (int64_t)tokens * SECOND;
    int64_t limit = (int64_t)rate->limit;
    return rate->credit >= 0 ? 0 : (-rate->credit + limit - 1) / limit;
}

void rate_refund(struct rate *rate, uint64_t tokens)
{
    assert(tokens <= RATE_PAY_MAX);
    if (rate->limit == RATE_NONE)
        return;
    rate->credit += (int64_t)tokens * SECOND;
    if (rate->credit > full(rate))
        rate->credit = full(rate);
}

void rate_count(struct rate *rate, uint64_t tokens, int64_t now)
{
    int64_t second = now / SECOND;
    if (second != rate->second) {
        rate->before = second == rate->second + 1 ? rate->count : 0;
        rate->count = 0;
        rate->second = second;
    }
    rate->count += tokens;
}

uint64_t rate_measured(const struct rate *rate, int64_t now)
{
    int64_t second = now / SECOND;
    return second == rate->second ? rate->before : second == rate->second + 1 ? rate->count : 0;
}
