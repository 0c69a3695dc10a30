#include "relayd/when.h"

#include <criterion/criterion.h>

#define NOW 1000000000

Test(when, durations_count_from_now)
{
    cr_expect_eq(when_parse("30s", NOW, 1), NOW + 30);
    cr_expect_eq(when_parse("5m", NOW, -1), NOW - 300);
    cr_expect_eq(when_parse("8h", NOW, 1), NOW + 8 * 3600);
    cr_expect_eq(when_parse("90d", NOW, -1), NOW - 90 * 86400);
    cr_expect_eq(when_parse("2w", NOW, 1), NOW + 14 * 86400);
}

Test(when, dates_are_what_they_are)
{
    cr_expect_eq(when_parse("2001-09-09", NOW, -1), 999993600);
    cr_expect_eq(when_parse("2001-09-09T01:46:40Z", NOW, 1), NOW);
}

Test(when, written_as_it_is_read)
{
    char text[WHEN_SIZE];
    when_write(when_parse("2026-12-31T18:00:00Z", NOW, 1), text);
    cr_expect_str_eq(text, "2026-12-31T18:00:00Z");
    when_write(INT64_MAX, text);
    cr_expect_str_eq(text, "");
}

Test(when, all_else_is_nothing)
{
    static const char *const wrong[] = { "",
                                         "8",
                                         "h",
                                         "8 h",
                                         "-8h",
                                         "0s",
                                         "8hh",
                                         "tomorrow",
                                         "2001-02-30",
                                         "2001-13-01",
                                         "8h8h",
                                         "2001-09-09x",
                                         "1000000s",
                                         "2001-09-09T01:46:40",
                                         "99999999999999999999h" };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_expect_eq(when_parse(wrong[i], NOW, 1), 0, "%s", wrong[i]);
}
