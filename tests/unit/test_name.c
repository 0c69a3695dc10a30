#include "relayd/name.h"

#include "support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* Labels of 63 bytes joined by dots, `total` bytes in all. */
static const char *long_name(size_t total)
{
    static char name[512];
    for (size_t i = 0; i < total; i++)
        name[i] = i % 64 == 63 ? '.' : 'a';
    name[total] = '\0';
    return name;
}

Test(name, takes_these_bytes_and_no_others)
{
    for (int c = 1; c < 256; c++) {
        char name[] = { 'a', (char)c, 'b', '\0' };
        bool good = c < 128 && strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.", c) != NULL;
        cr_expect_eq(name_valid(name), good, "byte 0x%02x", c);
    }
}

Test(name, labels)
{
    static const char *const good[] = { "a", "_", "a-", "_a.b-", "1.a", "1a", "a.1a", "a.b.c.d" };
    static const char *const bad[] = { "", ".", ".a", "a.", "a..b", "-", "-a", "a.-b", "a.-" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_expect(name_valid(good[i]), "\"%s\"", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_not(name_valid(bad[i]), "\"%s\"", bad[i]);
}

Test(name, lengths)
{
    char name[200];
    cr_expect(name_valid(repeat('a', 63)));
    cr_expect_not(name_valid(repeat('a', 64)));
    snprintf(name, sizeof(name), "b.%s", repeat('a', 64));
    cr_expect_not(name_valid(name));
    cr_expect(name_valid(long_name(253)));
    cr_expect_not(name_valid(long_name(254)));
}

Test(name, the_last_label_is_no_number_and_not_localhost)
{
    cr_expect_not(name_valid("22"));
    cr_expect_not(name_valid("web.22"));
    cr_expect_not(name_valid("127.0.0.1"));
    cr_expect(name_valid("22.web"));
    cr_expect(name_valid("22nd"));
    cr_expect_not(name_valid("localhost"));
    cr_expect_not(name_valid("web.localhost"));
    cr_expect(name_valid("localhost.web"));
    cr_expect(name_valid("localhosts"));
}

Test(name, a_tenant_is_one_label)
{
    cr_expect(name_valid_tenant("acme"));
    cr_expect_not(name_valid_tenant("a.b"));
    cr_expect_not(name_valid_tenant("Acme"));
    cr_expect_not(name_valid_tenant(""));
    cr_expect_not(name_valid_tenant("7"));
    cr_expect_not(name_valid_tenant(repeat('a', 64)));
}

Test(name, canonical_form)
{
    static const struct {
        const char *raw, *canonical;
    } rows[] = {
        { "raspi", "raspi" },
        { "RasPi", "raspi" },
        { "raspi.acme", "raspi" },
        { "RASPI.ACME", "raspi" },
        { "web.raspi.acme", "web.raspi" },
        { "raspi.acme.acme", "raspi.acme" }, /* one suffix, once */
        { "acme.acme", "acme" },
        { "acme", "acme" },
        { "raspiacme", "raspiacme" },
        { "raspi.xacme", "raspi.xacme" },
        { "acme.raspi", "acme.raspi" },
        { "raspi.default", "raspi.default" }, /* another tenant's name is no suffix */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[NAME_SIZE] = "";
        cr_expect_eq(name_canonical(rows[i].raw, "acme", out), REASON_none, "%s", rows[i].raw);
        cr_expect_str_eq(out, rows[i].canonical, "%s gives %s", rows[i].raw, out);
        char twice[NAME_SIZE] = "";
        if (strstr(out, ".acme") == NULL) {
            cr_expect_eq(name_canonical(out, "acme", twice), REASON_none);
            cr_expect_str_eq(twice, out, "%s is not stable", out);
        }
    }
}

Test(name, canonical_refuses)
{
    static const char *const rows[] = { "",        ".acme",     "..acme", "a..acme", "raspi.acme.",
                                        "22.acme", "a b",       "a\n",    "\x1b[",   "a\xc3\xa9",
                                        "[::1]",   "127.0.0.1", "*",      "a*.acme", "-a",
                                        "a/b",     "a:22",      "::",     "b.-a",    "LOCALHOST",
                                        "x@y" };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[NAME_SIZE];
        cr_expect_eq(name_canonical(rows[i], "acme", out), REASON_bad_name, "row %zu", i);
    }
}

Test(name, canonical_of_the_longest)
{
    char raw[70000], out[NAME_SIZE];
    snprintf(raw, sizeof(raw), "%s.%s", long_name(253), repeat('t', 63));
    cr_expect_eq(name_canonical(raw, repeat('t', 63), out), REASON_none);
    cr_expect_str_eq(out, long_name(253));
    snprintf(raw, sizeof(raw), "%s.%s", long_name(254), repeat('t', 63));
    cr_expect_eq(name_canonical(raw, repeat('t', 63), out), REASON_bad_name);
    cr_expect_eq(name_canonical(repeat('a', 69999), "acme", out), REASON_bad_name);
}

Test(name, loopback_spellings)
{
    static const char *const yes[] = {
        "", "*", "localhost", "LocalHost", "127.0.0.1", "::1", "0.0.0.0", "::"
    };
    static const char *const no[] = { " ",     "**",         "127.0.0.2",          "localhost.", "::0",
                                      "0",     "[::1]",      "localhos",           "localhosts", "raspi",
                                      "127.1", "0.0.0.0:22", "127.0.0.1.127.0.0.1" };
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        cr_expect(name_is_loopback(yes[i]), "\"%s\"", yes[i]);
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        cr_expect_not(name_is_loopback(no[i]), "\"%s\"", no[i]);
}

Test(name, under)
{
    cr_expect(name_is_under("raspi", "raspi"));
    cr_expect(name_is_under("web.raspi", "raspi"));
    cr_expect(name_is_under("a.b.web.raspi", "raspi"));
    cr_expect(name_is_under("a.web.raspi", "web.raspi"));
    cr_expect_not(name_is_under("xraspi", "raspi"));
    cr_expect_not(name_is_under("raspi.web", "raspi"));
    cr_expect_not(name_is_under("raspi", "web.raspi"));
    cr_expect_not(name_is_under("aspi", "raspi"));
}

Test(name, parent)
{
    cr_expect_str_eq(name_parent("a.b.c"), "b.c");
    cr_expect_str_eq(name_parent("b.c"), "c");
    cr_expect_null(name_parent("c"));
}

Test(name, from_text)
{
    static const struct {
        const char *text, *name;
    } rows[] = {
        { "raspi", "raspi" },
        { "Pi@RasPi", "pi-raspi" },
        { "--pi--", "pi" },
        { "  a   b  ", "a-b" },
        { "pi@web.example", "pi-web-example" },
        { "_x", "_x" },
        { "\xc3\xa9tage", "tage" },
        { "", NULL },
        { "---", NULL },
        { "4711", NULL },
        { "localhost", NULL },
        { "\xff\xfe", NULL },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[NAME_SIZE];
        bool found = name_from_text(rows[i].text, out);
        cr_expect_eq(found, rows[i].name != NULL, "\"%s\"", rows[i].text);
        if (found && rows[i].name != NULL)
            cr_expect_str_eq(out, rows[i].name, "\"%s\" gives %s", rows[i].text, out);
    }
}

Test(name, from_any_text_a_name_or_nothing)
{
    uint64_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        char text[101], out[NAME_SIZE];
        size_t len = random_next(&seed) % sizeof(text);
        for (size_t i = 0; i < len; i++)
            text[i] = (char)(random_next(&seed) % 255 + 1);
        text[len] = '\0';
        if (name_from_text(text, out))
            cr_assert(name_valid_tenant(out), "\"%s\"", out);
    }
    char out[NAME_SIZE];
    cr_assert(name_from_text(repeat('x', 5000), out));
    cr_assert_str_eq(out, repeat('x', 63));
}
