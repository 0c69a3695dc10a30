#ifndef RELAYD_ACCOUNT_H
#define RELAYD_ACCOUNT_H

#include "relayd/limits.h"
#include "relayd/rate.h"

#include <stddef.h>

/* What a tenant or a principal may use, and what it does use. Pure; owned by the tenant's worker. `now` is
 * in microseconds of the monotonic clock. */
#define ACCOUNT_RATES (LIMIT_COUNT - LIMIT_opens)

struct account {
    const char *kind, *name; /* whose it is, for the log; borrowed */
    struct limits limits;
    uint64_t used[LIMIT_opens];       /* by enum limit: what is counted */
    struct rate rates[ACCOUNT_RATES]; /* the others, from LIMIT_opens on */
};

/* Everything is charged to several accounts at once: a session to its principal and its tenant, a bridge
 * to its client, its device and their tenant. An account is in the set once. */
#define ACCOUNTS_MAX 3
struct accounts {
    struct account *of[ACCOUNTS_MAX];
    unsigned n;
};

/* Begins with these limits. Its buckets are nearly empty, or whoever comes back would have another
 * second's worth each time. */
void account_init(struct account *account, const struct limits *limits, int64_t now);

/* Other limits hold from now on. What is used stays; a bucket whose rate changes starts full. */
void account_set_limits(struct account *account, const struct limits *limits, int64_t now);

/* How much of it is used: for a rate, in the last second. */
uint64_t account_used(const struct account *account, enum limit limit, int64_t now);

/* "bridges of client alice: 5 of 5", for the log. */
#define ACCOUNT_TEXT_SIZE 320
void account_describe(const struct account *account, enum limit limit, char text[ACCOUNT_TEXT_SIZE]);

void accounts_add(struct accounts *accounts, struct account *account);

/* The first that has no room for one more (for LIMIT_held: none for any byte more); NULL: all have. */
struct account *accounts_full(const struct accounts *accounts, enum limit limit, int64_t now);

/* Not for rates. */
void accounts_charge(struct accounts *accounts, enum limit limit, int64_t amount);

/* Takes one from each bucket, for an open that accounts_full() has let pass. */
void accounts_pay_open(struct accounts *accounts, int64_t now);

/* The most bytes that should be paid for at once, so that many bridges get their turn: SIZE_MAX if no
 * account has that rate limited. */
size_t accounts_portion(const struct accounts *accounts, enum limit rate);

/* Pays for bytes. Returns the time from which on they may go. */
int64_t accounts_pay(struct accounts *accounts, enum limit rate, size_t bytes, int64_t now);

/* Gives back what was paid for and will not go. */
void accounts_refund(struct accounts *accounts, enum limit rate, size_t bytes);

/* Counts what went. */
void accounts_count(struct accounts *accounts, enum limit rate, uint64_t amount, int64_t now);

#endif
