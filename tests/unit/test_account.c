#include "relayd/account.h"

#include <criterion/criterion.h>

#define SECOND INT64_C(1000000)
#define NOW SECOND

static struct account alice, raspi, tenant;
static struct accounts all;

static void set(struct account *account, enum limit limit, uint64_t value)
{
    struct limits limits = account->limits;
    limits.value[limit] = value;
    account_set_limits(account, &limits, NOW);
}

static void make(void)
{
    account_init(&alice, &limits_of_principal, NOW);
    account_init(&raspi, &limits_of_principal, NOW);
    account_init(&tenant, &limits_of_tenant, NOW);
    accounts_add(&all, &alice);
    accounts_add(&all, &raspi);
    accounts_add(&all, &tenant);
}

TestSuite(account, .init = make);

Test(account, each_is_in_the_set_once)
{
    accounts_add(&all, &raspi);
    cr_expect_eq(all.n, 3);
}

Test(account, the_first_without_room_is_named)
{
    cr_expect_null(accounts_full(&all, LIMIT_bridges, NOW));
    set(&raspi, LIMIT_bridges, 2);
    accounts_charge(&all, LIMIT_bridges, 1);
    cr_expect_null(accounts_full(&all, LIMIT_bridges, NOW));
    accounts_charge(&all, LIMIT_bridges, 1);
    cr_expect_eq(accounts_full(&all, LIMIT_bridges, NOW), &raspi);
    cr_expect_eq(account_used(&tenant, LIMIT_bridges, NOW), 2);
    accounts_charge(&all, LIMIT_bridges, -1);
    cr_expect_null(accounts_full(&all, LIMIT_bridges, NOW));
    set(&raspi, LIMIT_bridges, 0);
    cr_expect_eq(accounts_full(&all, LIMIT_bridges, NOW), &raspi, "lowered below what is used");
    set(&raspi, LIMIT_bridges, LIMIT_NONE);
    cr_expect_null(accounts_full(&all, LIMIT_bridges, NOW));
}

Test(account, a_refused_open_costs_nothing)
{
    set(&alice, LIMIT_opens, 2);
    set(&tenant, LIMIT_opens, 1);
    accounts_pay_open(&all, NOW);
    cr_expect_eq(accounts_full(&all, LIMIT_opens, NOW), &tenant);
    cr_expect_eq(accounts_full(&all, LIMIT_opens, NOW + SECOND / 2), &tenant);
    cr_expect_null(accounts_full(&all, LIMIT_opens, NOW + SECOND));
    cr_expect_eq(account_used(&raspi, LIMIT_opens, NOW + SECOND), 1);
}

Test(account, the_slowest_sets_the_pace)
{
    cr_expect_eq(accounts_portion(&all, LIMIT_bytes_up), SIZE_MAX);
    cr_expect_eq(accounts_pay(&all, LIMIT_bytes_up, 65536, NOW), NOW);
    set(&tenant, LIMIT_bytes_up, 1u << 30);
    cr_expect_eq(accounts_portion(&all, LIMIT_bytes_up), 65536);
    set(&alice, LIMIT_bytes_up, 16000);
    cr_expect_eq(accounts_portion(&all, LIMIT_bytes_up), 1000);
    cr_expect_eq(accounts_pay(&all, LIMIT_bytes_up, 16000, NOW), NOW);
    cr_expect_eq(accounts_pay(&all, LIMIT_bytes_up, 1000, NOW), NOW + SECOND / 16);
    cr_expect_eq(accounts_portion(&all, LIMIT_bytes_down), SIZE_MAX, "the other direction");
    set(&raspi, LIMIT_bytes_up, 1);
    cr_expect_eq(accounts_portion(&all, LIMIT_bytes_up), 1);
}

Test(account, setting_one_limit_leaves_the_other_buckets_alone)
{
    set(&alice, LIMIT_opens, 1);
    accounts_pay_open(&all, NOW);
    set(&alice, LIMIT_bridges, 5);
    cr_expect_eq(accounts_full(&all, LIMIT_opens, NOW), &alice);
    set(&alice, LIMIT_opens, 2);
    cr_expect_null(accounts_full(&all, LIMIT_opens, NOW));
}

Test(account, begins_with_one_open_and_one_portion)
{
    struct limits limits = limits_of_principal;
    limits.value[LIMIT_opens] = 10;
    limits.value[LIMIT_bytes_up] = 16000;
    account_init(&alice, &limits, NOW);
    cr_expect_null(accounts_full(&all, LIMIT_opens, NOW));
    accounts_pay_open(&all, NOW);
    cr_expect_eq(accounts_full(&all, LIMIT_opens, NOW), &alice);
    cr_expect_eq(accounts_pay(&all, LIMIT_bytes_up, 1000, NOW), NOW);
    cr_expect_eq(accounts_pay(&all, LIMIT_bytes_up, 1000, NOW), NOW + SECOND / 16);
}

Test(account, reading_the_same_limits_again_fills_no_bucket)
{
    struct limits limits = limits_of_principal;
    limits.value[LIMIT_opens] = 10;
    account_init(&alice, &limits, NOW);
    accounts_pay_open(&all, NOW);
    account_set_limits(&alice, &limits, NOW);
    cr_expect_eq(accounts_full(&all, LIMIT_opens, NOW), &alice);
}
