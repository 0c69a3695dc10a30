#include "relayd/policy.h"

#include "support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* ---- The glob ---- */

/* What a glob means, without a thought for time. */
static bool reference(const char *pattern, const char *name)
{
    if (*pattern == '\0')
        return *name == '\0';
    if (*pattern == '*')
        return reference(pattern + 1, name) || (*name != '\0' && reference(pattern, name + 1));
    return *name != '\0' && (*pattern == '?' || *pattern == *name) && reference(pattern + 1, name + 1);
}

/* The text number n over the alphabet, the empty one first; false behind the last of length max. */
static bool text_at(unsigned n, const char *alphabet, size_t max, char *out)
{
    size_t len = 0, base = strlen(alphabet);
    for (unsigned count = 1; n >= count; n -= count, count *= (unsigned)base)
        len++;
    for (size_t i = 0; i < len; i++, n /= (unsigned)base)
        out[i] = alphabet[n % base];
    out[len] = '\0';
    return len <= max;
}

Test(policy, glob_is_right_for_all_short_texts)
{
    char pattern[16], name[16];
    for (unsigned p = 0; text_at(p, "ab.*?", 5, pattern); p++)
        for (unsigned n = 0; text_at(n, "ab.", 4, name); n++)
            cr_assert_eq(policy_glob(pattern, name), reference(pattern, name), "\"%s\" on \"%s\"", pattern,
                         name);
}

Test(policy, glob_crosses_dots_and_is_anchored)
{
    cr_expect(policy_glob("*", "a.b.c"));
    cr_expect(policy_glob("*.raspi", "a.web.raspi"));
    cr_expect_not(policy_glob("*.raspi", "raspi"));
    cr_expect_not(policy_glob("*.raspi", "web.raspi.x"));
    cr_expect_not(policy_glob("web", "xweb"));
    cr_expect(policy_glob("web?", "web."));
    cr_expect_not(policy_glob("web?", "web"));
}

/* Two stars that could each give back make a naive matcher exponential, a careless one cubic. */
Test(policy, glob_never_explodes, .timeout = 20)
{
    char stars[254], doubled[254], questions[254];
    for (size_t i = 0; i < 252; i += 2) {
        memcpy(stars + i, "*a", 2);
        memcpy(doubled + i, "**", 2);
        memcpy(questions + i, "*?", 2);
    }
    memcpy(stars + 252, "b", 2);
    memcpy(doubled + 252, "b", 2);
    memcpy(questions + 252, "b", 2);
    const char *name = repeat('a', 253);
    for (int round = 0; round < 500; round++) {
        cr_assert_not(policy_glob(stars, name));
        cr_assert_not(policy_glob(doubled, name));
        cr_assert_not(policy_glob(questions, name));
        cr_assert_not(policy_glob("*aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", name));
    }
}

/* ---- One rule ---- */

static bool matches(const char *text, const char *name, uint16_t port)
{
    struct rule *rule = rule_new(text);
    cr_assert_not_null(rule, "%s", text);
    bool yes = rule_matches(rule, name, port);
    rule_free(rule);
    return yes;
}

Test(policy, ports)
{
    cr_expect(matches("web", "web", 1));
    cr_expect(matches("web", "web", 65535));
    cr_expect_not(matches("web", "webs", 1));
    cr_expect(matches("web:80", "web", 80));
    cr_expect_not(matches("web:80", "web", 79));
    cr_expect_not(matches("web:80", "web", 81));
    cr_expect_not(matches("web:80", "raspi", 80));
    cr_expect(matches("web:80-90", "web", 80));
    cr_expect(matches("web:80-90", "web", 90));
    cr_expect_not(matches("web:80-90", "web", 79));
    cr_expect_not(matches("web:80-90", "web", 91));
    cr_expect(matches("web:1,22,8000-8099", "web", 22));
    cr_expect(matches("web:1,22,8000-8099", "web", 8099));
    cr_expect_not(matches("web:1,22,8000-8099", "web", 23));
    cr_expect(matches("web:1-65535", "web", 65535));
    cr_expect(matches("web:65535", "web", 65535));
    cr_expect(matches("web:00080", "web", 80));
}

Test(policy, text_is_in_lower_case)
{
    struct rule *rule = rule_new("Web.*:80,22");
    cr_assert_not_null(rule);
    cr_expect_str_eq(rule_text(rule), "web.*:80,22");
    cr_expect(rule_matches(rule, "web.raspi", 22));
    rule_free(rule);
    rule_free(NULL);
}

Test(policy, text_is_canonical)
{
    static const struct {
        const char *text, *canonical;
    } rows[] = { { "web", "web" },
                 { "web:00080", "web:80" },
                 { "web:80-80", "web:80" },
                 { "web:00001-00002,080,65535", "web:1-2,80,65535" },
                 { "web:443,80", "web:443,80" } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct rule *rule = rule_new(rows[i].text), *again = rule_new(rows[i].canonical);
        cr_assert(rule != NULL && again != NULL, "%s", rows[i].text);
        cr_expect_str_eq(rule_text(rule), rows[i].canonical);
        cr_expect_str_eq(rule_text(again), rows[i].canonical);
        rule_free(rule);
        rule_free(again);
    }
}

Test(policy, refuses_what_is_no_rule)
{
    static const char *const rows[] = { "",
                                        ":",
                                        ":80",
                                        "web:",
                                        "web:0",
                                        "web:65536",
                                        "web:99999",
                                        "web:100000",
                                        "web:-1",
                                        "web:80-",
                                        "web:-80",
                                        "web:90-80",
                                        "web:80,",
                                        "web:,80",
                                        "web:80,,90",
                                        "web:80-90-95",
                                        "web:a",
                                        "web:80 ",
                                        "web: 80",
                                        "web:80:90",
                                        "web:0-9",
                                        "web:+80",
                                        "web 1",
                                        "web\n",
                                        "we/b",
                                        "w\xc3\xa9",
                                        "a,b",
                                        "[a]",
                                        "!web",
                                        "web:080000",
                                        "web:4294967376",
                                        "web:18446744073709551696" };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_null(rule_new(rows[i]), "\"%s\"", rows[i]);
}

/* "web:1,2,...,n" */
static const char *rule_with_ports(unsigned n)
{
    static char text[1024];
    size_t used = (size_t)snprintf(text, sizeof(text), "web:1");
    for (unsigned i = 2; i <= n; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, ",%u", i);
    return text;
}

Test(policy, bounds)
{
    cr_expect(matches(rule_with_ports(RULE_RANGES), "web", RULE_RANGES));
    cr_expect_null(rule_new(rule_with_ports(RULE_RANGES + 1)));
    cr_expect(matches(repeat('a', 253), repeat('a', 253), 1));
    cr_expect_null(rule_new(repeat('a', 254)));
    cr_expect_null(rule_new(repeat('a', 60000)));
}

/* ---- A set of rules ---- */

Test(policy, rights_are_the_listed_rules_and_nothing_else)
{
    struct rules rules = { 0 };
    cr_expect_not(rules_allow(&rules, "web", 80));
    cr_assert_eq(rules_add(&rules, "web:80"), 0);
    cr_assert_eq(rules_add(&rules, "*.raspi"), 0);
    cr_expect(rules_allow(&rules, "web", 80));
    cr_expect(rules_allow(&rules, "a.raspi", 22));
    cr_expect_not(rules_allow(&rules, "web", 22));
    cr_expect_not(rules_allow(&rules, "raspi", 22));

    cr_expect_eq(rules_add(&rules, "web:"), -1);
    cr_expect_eq(rules.n, 2);
    cr_expect_not(rules_allow(&rules, "web", 22));

    rules_clear(&rules);
    cr_expect_eq(rules.n, 0);
    cr_expect_not(rules_allow(&rules, "web", 80));
    cr_assert_eq(rules_add(&rules, "b"), 0);
    cr_expect(rules_allow(&rules, "b", 1));
    rules_clear(&rules);
    rules_clear(&rules);
}

Test(policy, a_rule_is_added_once)
{
    struct rules rules = { 0 };
    cr_expect_eq(rules_add_new(&rules, "web:80"), 0);
    cr_expect_eq(rules_add_new(&rules, "a"), 0);
    cr_expect_eq(rules_add_new(&rules, "Web:080"), 0);
    cr_expect_eq(rules_add_new(&rules, "a"), 0);
    cr_expect_eq(rules.n, 2);
    cr_expect_eq(rules_add_new(&rules, "web:"), -1);
    cr_expect_eq(rules_add_new(&rules, "web"), 0);
    cr_expect_eq(rules.n, 3);
    cr_expect(rules_allow(&rules, "web", 443));
    rules_clear(&rules);
}

Test(policy, a_rule_for_every_name)
{
    static const struct {
        const char *rule;
        bool ssh, web;
    } rows[] = {
        { "*", true, true },         { "**", true, true },      { "*:22", true, false },
        { "*:80", false, true },     { "*.", false, false },    { "raspi", false, false },
        { "?", false, false },       { "*:1-100", true, true }, { "?*", false, false },
        { "*.raspi", false, false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct rules rules = { 0 };
        cr_assert_eq(rules_add(&rules, "raspi"), 0);
        cr_assert_eq(rules_add(&rules, rows[i].rule), 0);
        cr_expect_eq(rules_allow_every_name(&rules, 22), rows[i].ssh, "%s", rows[i].rule);
        cr_expect_eq(rules_allow_every_name(&rules, 80), rows[i].web, "%s", rows[i].rule);
        rules_clear(&rules);
    }
}
