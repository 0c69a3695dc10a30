#include "relayd/limits.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

static void expect_value(enum limit limit, const char *text, uint64_t expected)
{
    uint64_t value = 0;
    cr_expect_null(limit_parse(limit, text, &value), "%s", text);
    cr_expect_eq(value, expected, "%s: %" PRIu64, text, value);
}

static void expect_refused(enum limit limit, const char *text)
{
    uint64_t value;
    cr_expect_not_null(limit_parse(limit, text, &value), "%s %s", limit_name(limit), text);
}

Test(limits, counts)
{
    expect_value(LIMIT_sessions, "0", 0);
    expect_value(LIMIT_bridges, "007", 7);
    expect_value(LIMIT_opens, "1000000", 1000000);
    expect_value(LIMIT_endpoints, "none", LIMIT_NONE);
    static const char *const bad[] = { "", " 1", "1 ", "-1", "+1", "1k", "1.5", "0x10", "None", "many" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_refused(LIMIT_sessions, bad[i]);
}

Test(limits, sizes)
{
    expect_value(LIMIT_held, "0", 0);
    expect_value(LIMIT_held, "512", 512);
    expect_value(LIMIT_held, "16K", 16384);
    expect_value(LIMIT_bytes_up, "2m", 2u << 20);
    expect_value(LIMIT_bytes_down, "1G", 1u << 30);
    expect_value(LIMIT_bytes_down, "1T", LIMIT_MAX);
    static const char *const bad[] = { "K", "1KB", "1Ki", "1KK", "1P", "M1", "1.5M" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_refused(LIMIT_held, bad[i]);
    expect_refused(LIMIT_bytes_up, "0");
    expect_refused(LIMIT_bytes_up, "0K");
}

Test(limits, what_is_too_much)
{
    expect_value(LIMIT_bridges, "1099511627776", LIMIT_MAX);
    expect_refused(LIMIT_bridges, "1099511627777");
    expect_refused(LIMIT_bridges, "18446744073709551615");
    expect_refused(LIMIT_bridges, "18446744073709551616");
    expect_refused(LIMIT_bridges, "99999999999999999999999999999999999999");
    expect_refused(LIMIT_held, "2T");
    expect_refused(LIMIT_held, "18446744073709551615K");
}

Test(limits, what_is_stored_and_makes_no_sense_is_left_out)
{
    struct limits limits = limits_of_principal;
    limits_set(&limits, "bridges", 5);
    cr_expect_eq(limits.value[LIMIT_bridges], 5);
    limits_set(&limits, "bridges", -1);
    cr_expect_eq(limits.value[LIMIT_bridges], LIMIT_NONE);
    limits_set(&limits, "sessions", -2);
    limits_set(&limits, "endpoints", INT64_MAX);
    limits_set(&limits, "bytes-up", 0);
    limits_set(&limits, "of another relayd", 7);
    limits.value[LIMIT_bridges] = limits_of_principal.value[LIMIT_bridges];
    cr_expect_arr_eq(&limits, &limits_of_principal, sizeof(limits));
}

Test(limits, rows_find_themselves)
{
    for (enum limit limit = 0; limit < LIMIT_COUNT; limit++) {
        cr_expect_eq(limit_find(limit_name(limit)), limit);
        cr_expect_not_null(strstr(limit_names(), limit_name(limit)));
        cr_expect_gt(strlen(limit_unit(limit)), 0);
        cr_expect_leq(limits_of_principal.value[limit], limits_of_tenant.value[limit], "%s",
                      limit_name(limit));
    }
    cr_expect_eq(limit_find("sessionss"), LIMIT_COUNT);
    cr_expect_eq(limit_find(""), LIMIT_COUNT);
    cr_expect_eq(strncmp(limit_names(), "sessions, ", 10), 0);
}

/* What users may rely on without setting anything. */
Test(limits, the_defaults_do_not_get_into_the_way)
{
    cr_expect_geq(limits_of_tenant.value[LIMIT_sessions], 20000, "10,000 devices that all come back at once");
    cr_expect_geq(limits_of_tenant.value[LIMIT_endpoints], 100000);
    cr_expect_eq(limits_of_principal.value[LIMIT_opens], LIMIT_NONE);
    cr_expect_eq(limits_of_tenant.value[LIMIT_opens], LIMIT_NONE);
}
