#include "relayd/rate.h"

#include "support.h"

#include <criterion/criterion.h>

#define SECOND INT64_C(1000000)

static struct rate rate;

static void start(uint64_t limit)
{
    rate = (struct rate){ 0 };
    rate_set(&rate, limit, limit, 0);
}

Test(rate, holds_a_second_s_worth_and_no_more)
{
    start(5);
    for (int i = 0; i < 5; i++) {
        cr_expect(rate_has(&rate, 0));
        cr_expect_eq(rate_pay(&rate, 1, 0), 0);
    }
    cr_expect_not(rate_has(&rate, 0));
    cr_expect_not(rate_has(&rate, SECOND / 5 - 1), "a microsecond early");
    cr_expect(rate_has(&rate, SECOND / 5));
    int taken = 0;
    for (; rate_has(&rate, 3600 * SECOND); taken++)
        rate_pay(&rate, 1, 3600 * SECOND);
    cr_expect_eq(taken, 5, "after an hour");
}

Test(rate, who_pays_in_advance_waits_until_the_tokens_would_be_there)
{
    start(1000);
    cr_expect_eq(rate_pay(&rate, 1000, 0), 0);
    cr_expect_eq(rate_pay(&rate, 100, 0), SECOND / 10);
    cr_expect_eq(rate_pay(&rate, 100, 0), SECOND / 5, "behind who came first");
    cr_expect_eq(rate_pay(&rate, 1, SECOND / 5), 1000, "all paid at 0.2 s");
    start(3);
    rate_pay(&rate, 3, 0);
    cr_expect_eq(rate_pay(&rate, 1, 0), 333334, "rounded up: never too early");
}

Test(rate, nothing_is_lost_or_won_by_rounding)
{
    uint64_t state = 7, sent = 0;
    int64_t now = 0;
    start(999983);
    while (now < 3600 * SECOND) {
        uint64_t tokens = 1 + random_next(&state) % 65536;
        now += rate_pay(&rate, tokens, now);
        sent += tokens;
    }
    uint64_t due = 999983 * ((uint64_t)(now / SECOND) + 1);
    cr_expect_leq(sent, due + 999983);
    cr_expect_geq(sent, due - 999983);
}

Test(rate, no_overflow_at_the_ends)
{
    start(RATE_MAX);
    cr_expect_eq(rate_pay(&rate, RATE_PAY_MAX, INT64_MAX / 2), 0);
    cr_expect(rate_has(&rate, INT64_MAX - 1));
    cr_expect_leq(rate.credit, (int64_t)(RATE_MAX * SECOND));
    start(1);
    for (int i = 0; i < 100000; i++)
        rate_pay(&rate, 65536, 0);
    cr_expect_eq(rate_pay(&rate, 1, 0), (INT64_C(6553600000)) * SECOND, "owed by 100,000 bridges");
    cr_expect_not(rate_has(&rate, SECOND));
    cr_expect(rate_has(&rate, INT64_MAX / 2));
    cr_expect_eq(rate.credit, SECOND);
}

Test(rate, none_and_nothing)
{
    start(RATE_NONE);
    for (int i = 0; i < 100; i++)
        cr_expect_eq(rate_pay(&rate, RATE_PAY_MAX, 0), 0);
    cr_expect(rate_has(&rate, 0));
    start(0);
    cr_expect_not(rate_has(&rate, 3600 * SECOND));
}

Test(rate, a_new_limit_forgives_what_is_owed)
{
    start(10);
    for (int i = 0; i < 100; i++)
        rate_pay(&rate, 10, 0);
    rate_set(&rate, 20, 20, 1);
    cr_expect_eq(rate_pay(&rate, 20, 1), 0);
    cr_expect_eq(rate_pay(&rate, 1, 1), SECOND / 20);
}

Test(rate, what_is_given_back_can_be_paid_again)
{
    start(10);
    rate_pay(&rate, 10, 0);
    rate_pay(&rate, 30, 0);
    rate_refund(&rate, 30);
    cr_expect_eq(rate_pay(&rate, 1, 0), SECOND / 10);
    rate_refund(&rate, 1000);
    cr_expect_eq(rate_pay(&rate, 10, 0), 0);
    cr_expect_eq(rate_pay(&rate, 1, 0), SECOND / 10, "never more than a full bucket");
}

Test(rate, the_meter_tells_the_second_before_this_one)
{
    start(RATE_NONE);
    rate_count(&rate, 5, 10 * SECOND);
    rate_count(&rate, 6, 11 * SECOND - 1);
    cr_expect_eq(rate_measured(&rate, 11 * SECOND - 1), 0);
    cr_expect_eq(rate_measured(&rate, 11 * SECOND), 11);
    rate_count(&rate, 7, 11 * SECOND);
    cr_expect_eq(rate_measured(&rate, 12 * SECOND - 1), 11);
    cr_expect_eq(rate_measured(&rate, 12 * SECOND), 7);
    cr_expect_eq(rate_measured(&rate, 13 * SECOND), 0, "a second without anything");
    rate_count(&rate, 8, 20 * SECOND);
    cr_expect_eq(rate_measured(&rate, 20 * SECOND), 0);
}

Test(rate, starts_with_what_it_is_given)
{
    rate_set(&rate, 5, 1, 0);
    rate_pay(&rate, 1, 0);
    cr_expect_not(rate_has(&rate, SECOND / 5 - 1));
    cr_expect(rate_has(&rate, SECOND / 5));
    rate_set(&rate, 0, 1, 0);
    cr_expect_not(rate_has(&rate, SECOND), "no more than it holds");
}
