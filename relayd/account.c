#include "relayd/account.h"

#include <assert.h>
#include <stdio.h>

#define PORTIONS 16u       /* of a second */
#define PORTION_MAX 65536u /* bytes of one write */

static struct rate *rate_of(struct account *account, enum limit limit)
{
    assert(limit >= LIMIT_opens);
    return &account->rates[limit - LIMIT_opens];
}

/* Of a bucket of bytes, what should be paid for at once. */
static uint64_t portion_of(uint64_t rate)
{
    uint64_t portion = rate / PORTIONS;
    return portion < 1 ? 1 : portion > PORTION_MAX ? PORTION_MAX : portion;
}

void account_init(struct account *account, const struct limits *limits, int64_t now)
{
    account->limits = *limits;
    for (enum limit limit = LIMIT_opens; limit < LIMIT_COUNT; limit++) {
        uint64_t value = limits->value[limit];
        rate_set(rate_of(account, limit), value, limit == LIMIT_opens ? 1 : portion_of(value), now);
    }
}

void account_set_limits(struct account *account, const struct limits *limits, int64_t now)
{
    account->limits = *limits;
    for (enum limit limit = LIMIT_opens; limit < LIMIT_COUNT; limit++) {
        uint64_t value = limits->value[limit];
        if (rate_of(account, limit)->limit != value)
            rate_set(rate_of(account, limit), value, value, now);
    }
}

uint64_t account_used(const struct account *account, enum limit limit, int64_t now)
{
    return limit < LIMIT_opens ? account->used[limit]
                               : rate_measured(&account->rates[limit - LIMIT_opens], now);
}

void account_describe(const struct account *account, enum limit limit, char text[ACCOUNT_TEXT_SIZE])
{
    unsigned long long value = account->limits.value[limit];
    const char *whose = account->kind, *name = account->name;
    if (limit >= LIMIT_opens)
        snprintf(text, ACCOUNT_TEXT_SIZE, "%s of %s %s: %llu %s", limit_name(limit), whose, name, value,
                 limit_unit(limit));
    else
        snprintf(text, ACCOUNT_TEXT_SIZE, "%s of %s %s: %llu of %llu", limit_name(limit), whose, name,
                 (unsigned long long)account->used[limit], value);
}

void accounts_add(struct accounts *accounts, struct account *account)
{
    for (unsigned i = 0; i < accounts->n; i++)
        if (accounts->of[i] == account)
            return;
    assert(accounts->n < ACCOUNTS_MAX);
    accounts->of[accounts->n++] = account;
}

static bool is_full(struct account *account, enum limit limit, int64_t now)
{
    if (limit >= LIMIT_opens)
        return !rate_has(rate_of(account, limit), now);
    return account->used[limit] >= account->limits.value[limit];
}

struct account *accounts_full(const struct accounts *accounts, enum limit limit, int64_t now)
{
    for (unsigned i = 0; i < accounts->n; i++)
        if (is_full(accounts->of[i], limit, now))
            return accounts->of[i];
    return NULL;
}

void accounts_charge(struct accounts *accounts, enum limit limit, int64_t amount)
{
    for (unsigned i = 0; i < accounts->n; i++) {
        uint64_t *used = &accounts->of[i]->used[limit];
        assert(amount >= 0 || *used >= (uint64_t)-amount);
        *used += (uint64_t)amount;
    }
}

void accounts_pay_open(struct accounts *accounts, int64_t now)
{
    for (unsigned i = 0; i < accounts->n; i++)
        rate_pay(rate_of(accounts->of[i], LIMIT_opens), 1, now);
    accounts_count(accounts, LIMIT_opens, 1, now);
}

size_t accounts_portion(const struct accounts *accounts, enum limit limit)
{
    uint64_t lowest = RATE_NONE;
    for (unsigned i = 0; i < accounts->n; i++) {
        uint64_t rate = accounts->of[i]->rates[limit - LIMIT_opens].limit;
        lowest = rate < lowest ? rate : lowest;
    }
    return lowest == RATE_NONE ? SIZE_MAX : (size_t)portion_of(lowest);
}

int64_t accounts_pay(struct accounts *accounts, enum limit limit, size_t bytes, int64_t now)
{
    int64_t longest = 0;
    for (unsigned i = 0; i < accounts->n; i++) {
        int64_t wait = rate_pay(rate_of(accounts->of[i], limit), bytes, now);
        longest = wait > longest ? wait : longest;
    }
    return now + longest;
}

void accounts_refund(struct accounts *accounts, enum limit limit, size_t bytes)
{
    for (unsigned i = 0; i < accounts->n; i++)
        rate_refund(rate_of(accounts->of[i], limit), bytes);
}

void accounts_count(struct accounts *accounts, enum limit limit, uint64_t amount, int64_t now)
{
    for (unsigned i = 0; i < accounts->n; i++)
        rate_count(rate_of(accounts->of[i], limit), amount, now);
}
