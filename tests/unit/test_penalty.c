#include "relayd/penalty.h"

#include <criterion/criterion.h>
#include <string.h>

#define SECONDS(n) ((uint64_t)(n)*PENALTY_SECOND)

static struct penalties *penalties;
static uint64_t now = SECONDS(1000), delay;

static void set_up(void)
{
    penalties = penalty_new(8);
}

static void tear_down(void)
{
    penalty_free(penalties);
}

TestSuite(penalty, .init = set_up, .fini = tear_down);

static const struct source *from(unsigned n)
{
    static struct source source;
    source = (struct source){ .family = 4, .address = { 192, 0, (uint8_t)(n >> 8), (uint8_t)n } };
    return &source;
}

static uint64_t fail_times(unsigned n, enum penalty penalty, unsigned times)
{
    uint64_t held = 0;
    while (times-- > 0)
        held = penalty_fail(penalties, from(n), penalty, now);
    return held;
}

static enum penalty_verdict check(unsigned n)
{
    return penalty_check(penalties, from(n), now, &delay);
}

Test(penalty, nobody_is_held_back_at_first)
{
    cr_expect_eq(check(1), PENALTY_PASS);
    cr_expect_eq(penalty_count(penalties, now), 0);
}

Test(penalty, a_few_failures_are_forgiven_and_more_are_not)
{
    cr_expect_eq(fail_times(1, PENALTY_bad_login, 2), 0);
    cr_expect_eq(check(1), PENALTY_PASS);
    cr_expect_eq(fail_times(1, PENALTY_bad_login, 1), SECONDS(15), "this one began it");
    cr_expect_eq(check(1), PENALTY_REFUSE);
    cr_expect_eq(check(2), PENALTY_PASS, "others do not notice");
    cr_expect_eq(penalty_count(penalties, now), 1);
    cr_expect_eq(fail_times(1, PENALTY_bad_login, 1), 0, "it is begun once");
}

Test(penalty, time_pays_off)
{
    fail_times(1, PENALTY_garbage, 2);
    now += SECONDS(20) - 1;
    cr_expect_eq(check(1), PENALTY_REFUSE, "held until all is paid, not only what is above the threshold");
    now += 1;
    cr_expect_eq(check(1), PENALTY_PASS);
    cr_expect_eq(penalty_count(penalties, now), 0);
    cr_expect_eq(fail_times(1, PENALTY_garbage, 1), 0, "and begins anew");
}

Test(penalty, slow_failures_never_add_up)
{
    for (int i = 0; i < 1000; i++, now += SECONDS(5))
        cr_assert_eq(fail_times(1, PENALTY_bad_login, 1), 0);
}

Test(penalty, a_refused_connection_costs_nothing)
{
    fail_times(1, PENALTY_bad_login, 3);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(check(1), PENALTY_REFUSE);
    now += SECONDS(15);
    cr_expect_eq(check(1), PENALTY_PASS);
}

Test(penalty, there_is_a_most)
{
    fail_times(1, PENALTY_garbage, 100000);
    now += PENALTY_MAX - 1;
    cr_expect_eq(check(1), PENALTY_REFUSE);
    now += 1;
    cr_expect_eq(check(1), PENALTY_PASS);
}

Test(penalty, nothing_is_no_failure)
{
    fail_times(1, PENALTY_none, 100);
    cr_expect_eq(check(1), PENALTY_PASS);
}

Test(penalty, every_failure_has_a_cost)
{
    for (int p = PENALTY_left_early; p <= PENALTY_garbage; p++) {
        fail_times((unsigned)p, (enum penalty)p, 15);
        cr_expect_eq(check((unsigned)p), PENALTY_REFUSE, "%s", penalty_text((enum penalty)p));
    }
}

/* Who has sessions is never shut out, only slowed: so many a second. */
Test(penalty, a_source_with_sessions_is_slowed)
{
    for (int i = 0; i < 10; i++)
        penalty_login(penalties, from(1));
    fail_times(1, PENALTY_garbage, 60);
    while (check(1) == PENALTY_PASS)
        continue;
    for (unsigned i = 1; i < 200; i++) {
        cr_assert_eq(check(1), PENALTY_DELAY);
        cr_assert_eq(delay, PENALTY_SECOND / 20, "10, and 10 for the sessions, a second");
        cr_assert_eq(check(1), PENALTY_DELAY, "asking costs nothing");
        now += delay;
        cr_assert_eq(check(1), PENALTY_PASS);
    }
}

static unsigned let_in_within(uint64_t time, uint64_t step)
{
    unsigned let_in = 0;
    for (uint64_t end = now + time; now < end; now += step)
        while (check(1) == PENALTY_PASS)
            let_in++;
    return let_in;
}

Test(penalty, who_asks_late_loses_nothing_and_who_waits_saves_nothing_up)
{
    for (int i = 0; i < 4990; i++)
        penalty_login(penalties, from(1));
    fail_times(1, PENALTY_garbage, 60);
    unsigned n = let_in_within(SECONDS(1), PENALTY_SECOND / 50);
    cr_expect(n >= 4900 && n <= 5300, "a large fleet hardly notices: %u", n);
    now += SECONDS(60);
    n = let_in_within(SECONDS(1), PENALTY_SECOND / 50);
    cr_expect(n >= 4900 && n <= 5300, "%u", n);
}

Test(penalty, the_last_session_to_leave_ends_that)
{
    penalty_login(penalties, from(1));
    penalty_login(penalties, from(1));
    fail_times(1, PENALTY_bad_login, 3);
    penalty_logout(penalties, from(1));
    cr_expect_neq(check(1), PENALTY_REFUSE);
    penalty_logout(penalties, from(1));
    cr_expect_eq(check(1), PENALTY_REFUSE);
    penalty_logout(penalties, from(1)); /* one that could not be counted */
    penalty_login(penalties, from(1));
    cr_expect_neq(check(1), PENALTY_REFUSE);
}

Test(penalty, a_login_pays_nothing_off)
{
    fail_times(1, PENALTY_bad_login, 2);
    penalty_login(penalties, from(1));
    penalty_logout(penalties, from(1));
    cr_expect_eq(fail_times(1, PENALTY_bad_login, 1), SECONDS(15));
}

Test(penalty, above_the_limit_the_one_that_failed_longest_ago_is_forgotten)
{
    for (unsigned n = 0; n < 8; n++)
        fail_times(n, PENALTY_garbage, 2);
    fail_times(0, PENALTY_garbage, 1);
    cr_expect_eq(penalty_count(penalties, now), 8);
    fail_times(8, PENALTY_garbage, 2);
    cr_expect_eq(penalty_count(penalties, now), 8);
    cr_expect_eq(check(0), PENALTY_REFUSE);
    cr_expect_eq(check(1), PENALTY_PASS);
    cr_expect_eq(check(2), PENALTY_REFUSE);
    cr_expect_eq(check(8), PENALTY_REFUSE);
}
