#include "schema/usage.h"

#include "schema/quote.h"
#include "support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const lines[] = {
#define COMMAND(id, words, arguments, roles, help) arguments,
#include "schema/commands.def"
#undef COMMAND
};
#define NLINES (sizeof(lines) / sizeof(lines[0]))

#define ADD "[--name NAME] [--expires WHEN] [--allow RULE]... KEY..."

static char error[256];

/* What the words mean to the usage line, NULL with error set. Ends at the NULL word. */
static json_t *from_words(const char *line, const char *const words[])
{
    struct usage usage;
    int n = 0;
    while (words[n] != NULL)
        n++;
    usage_parse(line, &usage);
    error[0] = '\0';
    json_t *args = usage_from_words(&usage, n, (char *const *)(uintptr_t)words, error, sizeof(error));
    cr_assert_eq(args == NULL, error[0] != '\0', "a sentence for each failure and for nothing else");
    if (args != NULL)
        cr_expect_eq(usage_check(&usage, args, error, sizeof(error)), 0, "%s", error);
    return args;
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define NO_WORDS ((const char *const[]){ NULL })

static void expect_args(const char *line, const char *const words[], const char *json)
{
    json_t *args = from_words(line, words), *expected = json_loads(json, 0, NULL);
    cr_assert_not_null(expected);
    cr_assert_not_null(args, "%s: %s", json, error);
    cr_expect(json_equal(args, expected), "%s", json);
    json_decref(args);
    json_decref(expected);
}

static void expect_refused(const char *line, const char *const words[], const char *about)
{
    json_t *args = from_words(line, words);
    cr_expect_null(args, "%s", line);
    cr_expect_not_null(strstr(error, about), "\"%s\" says nothing of \"%s\"", error, about);
    json_decref(args);
}

static int check(const char *line, const char *json)
{
    struct usage usage;
    json_t *args = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    cr_assert_not_null(args, "%s", json);
    usage_parse(line, &usage);
    error[0] = '\0';
    int rc = usage_check(&usage, args, error, sizeof(error));
    cr_expect_eq(rc == 0, error[0] == '\0');
    json_decref(args);
    return rc;
}

/* ---- The line ---- */

static void expect_arg(const struct usage_arg *arg, const char *name, bool option, bool required,
                       bool repeated)
{
    cr_expect_str_eq(arg->name, name);
    cr_expect_eq(arg->option, option, "%s", name);
    cr_expect_eq(arg->required, required, "%s", name);
    cr_expect_eq(arg->repeated, repeated, "%s", name);
}

Test(usage, each_kind_of_word)
{
    struct usage usage;
    usage_parse(ADD, &usage);
    cr_assert_eq(usage.n, 4);
    expect_arg(&usage.arg[0], "name", true, false, false);
    expect_arg(&usage.arg[1], "expires", true, false, false);
    expect_arg(&usage.arg[2], "allow", true, false, true);
    expect_arg(&usage.arg[3], "key", false, true, true);
    usage_parse("NAME NEW-NAME [PATTERN]", &usage);
    cr_assert_eq(usage.n, 3);
    expect_arg(&usage.arg[0], "name", false, true, false);
    expect_arg(&usage.arg[1], "new-name", false, true, false);
    expect_arg(&usage.arg[2], "pattern", false, false, false);
    usage_parse("", &usage);
    cr_expect_eq(usage.n, 0);
}

Test(usage, flags)
{
    struct usage usage;
    usage_parse("[--name NAME] [--admin] KEY", &usage);
    cr_assert_eq(usage.n, 3);
    expect_arg(&usage.arg[1], "admin", true, false, false);
    cr_expect(usage.arg[1].flag);
    cr_expect_not(usage.arg[0].flag || usage.arg[2].flag);
    expect_args("[--admin] NAME", WORDS("--admin", "alice"), "{\"admin\":true,\"name\":\"alice\"}");
    expect_args("[--admin] NAME", WORDS("alice", "--admin"), "{\"admin\":true,\"name\":\"alice\"}");
    expect_args("[--admin] NAME", WORDS("alice"), "{\"name\":\"alice\"}");
    expect_refused("[--admin] NAME", WORDS("--admin"), "name is missing");
    expect_refused("[--admin] NAME", WORDS("--admin", "alice", "yes"), "\"yes\"");
    cr_expect_eq(check("[--admin]", "{\"admin\":false}"), 0);
    cr_expect_eq(check("[--admin]", "{\"admin\":\"true\"}"), -1);
    cr_expect_eq(check("[--admin]", "{\"admin\":null}"), -1);
    cr_expect_eq(check("[--admin]", "{\"admin\":[true]}"), -1);
}

/* ---- Words ---- */

static size_t allocations; /* until one fails */

static void *fail_one(size_t size)
{
    return allocations-- == 1 ? NULL : malloc(size);
}

/* A rule or an expiry that is lost on the way would leave more rights than were meant. */
Test(usage, without_memory_nothing_is_left_out)
{
    const char *const *words = WORDS("--name", "n", "--allow", "a", "--expires", "8h", "--allow", "b", "k");
    json_t *whole = from_words(ADD, words), *args = NULL;
    cr_assert_not_null(whole);
    json_set_alloc_funcs(fail_one, free);
    for (size_t n = 1; args == NULL; n++) {
        cr_assert_lt(n, 1000);
        allocations = n;
        args = from_words(ADD, words);
        cr_assert(args == NULL || json_equal(args, whole), "allocation %zu", n);
        cr_assert(args == NULL || n > 10);
    }
    json_set_alloc_funcs(malloc, free);
    json_decref(args);
    json_decref(whole);
}

Test(usage, options_stand_anywhere)
{
    expect_args(ADD, WORDS("ssh-ed25519", "AAAA", "me"), "{\"key\":\"ssh-ed25519 AAAA me\"}");
    expect_args(ADD, WORDS("--name", "raspi", "ssh-ed25519", "AAAA"),
                "{\"name\":\"raspi\",\"key\":\"ssh-ed25519 AAAA\"}");
    expect_args(ADD, WORDS("ssh-ed25519", "--allow", "a", "AAAA", "--allow", "b:80"),
                "{\"key\":\"ssh-ed25519 AAAA\",\"allow\":[\"a\",\"b:80\"]}");
    expect_args(ADD, WORDS("--allow", "a", "k"), "{\"key\":\"k\",\"allow\":[\"a\"]}");
    expect_args(ADD, WORDS("--name", "--name", "k"), "{\"key\":\"k\",\"name\":\"--name\"}");
}

Test(usage, dashes)
{
    expect_args("KEY...", WORDS("-"), "{\"key\":\"-\"}");
    expect_args("KEY...", WORDS("-x"), "{\"key\":\"-x\"}");
    expect_args("KEY...", WORDS("-----BEGIN", "KEY-----"), "{\"key\":\"-----BEGIN KEY-----\"}");
    expect_refused("KEY...", WORDS("--"), "--");
}

Test(usage, positionals)
{
    expect_args("NAME RULE", WORDS("raspi", "web:80"), "{\"name\":\"raspi\",\"rule\":\"web:80\"}");
    expect_args("[PATTERN]", NO_WORDS, "{}");
    expect_args("[PATTERN]", WORDS("*"), "{\"pattern\":\"*\"}");
    expect_args("NAME", WORDS(""), "{\"name\":\"\"}");
    expect_args("", NO_WORDS, "{}");
    expect_args("NAME KEY...", WORDS("a", "b", "c"), "{\"name\":\"a\",\"key\":\"b c\"}");
}

Test(usage, refuses)
{
    expect_refused("NAME RULE", NO_WORDS, "name");
    expect_refused("NAME RULE", WORDS("raspi"), "rule");
    expect_refused("NAME RULE", WORDS("a", "b", "cc"), "\"cc\"");
    expect_refused("", WORDS("x"), "\"x\"");
    expect_refused("KEY...", NO_WORDS, "key");
    expect_refused(ADD, WORDS("k", "--colour", "red"), "--colour");
    expect_refused(ADD, WORDS("k", "--name"), "--name needs a value");
    expect_refused(ADD, WORDS("k", "--nam", "x"), "--nam");
    expect_refused(ADD, WORDS("--name=x", "k"), "--name=x");
    expect_refused(ADD, WORDS("--key", "x"), "--key");
    expect_refused(ADD, WORDS("--name", "\xff", "k"), "--name");
    expect_refused("NAME", WORDS("\xff"), "name");
}

Test(usage, long_arguments)
{
    expect_args("KEY...", WORDS("a"), "{\"key\":\"a\"}");
    json_t *args = from_words("KEY...", WORDS(repeat('a', 8000), repeat('b', 8383)));
    cr_assert_not_null(args);
    cr_expect_eq(json_string_length(json_object_get(args, "key")), 16384);
    json_decref(args);
    expect_refused("KEY...", WORDS(repeat('a', 8000), repeat('b', 8384)), "too long");
    expect_refused("NAME", WORDS(repeat('a', 16385)), "too long");
}

Test(usage, many_words)
{
    const char *words[260];
    for (int i = 0; i < 259; i++)
        words[i] = "w";
    words[256] = NULL;
    json_t *args = from_words("KEY...", words);
    cr_assert_not_null(args);
    cr_expect_eq(json_string_length(json_object_get(args, "key")), 511);
    json_decref(args);
    words[256] = "w";
    words[257] = NULL;
    expect_refused("KEY...", words, "many");
}

/* ---- Arguments that came over the wire ---- */

Test(usage, check)
{
    cr_expect_eq(check(ADD, "{\"key\":\"k\"}"), 0);
    cr_expect_eq(check(ADD, "{\"key\":\"k\",\"name\":\"n\",\"expires\":\"8h\",\"allow\":[]}"), 0);
    cr_expect_eq(check(ADD, "{\"key\":\"k\",\"allow\":[\"a\",\"b\"]}"), 0);
    cr_expect_eq(check("", "{}"), 0);
    cr_expect_eq(check("[PATTERN]", "{}"), 0);
    cr_expect_eq(check("[PATTERN]", "{\"pattern\":\"\"}"), 0);

    static const char *const rows[] = {
        "{}",
        "{\"name\":\"n\"}",
        "{\"key\":null}",
        "{\"key\":7}",
        "{\"key\":[\"k\"]}",
        "{\"key\":{}}",
        "{\"key\":\"a\\u0000b\"}",
        "{\"key\":\"k\",\"name\":[\"n\"]}",
        "{\"key\":\"k\",\"name\":null}",
        "{\"key\":\"k\",\"allow\":\"a\"}",
        "{\"key\":\"k\",\"allow\":{}}",
        "{\"key\":\"k\",\"allow\":null}",
        "{\"key\":\"k\",\"allow\":[7]}",
        "{\"key\":\"k\",\"allow\":[\"a\",null]}",
        "{\"key\":\"k\",\"allow\":[\"a\\u0000\"]}",
        "{\"key\":\"k\",\"colour\":\"red\"}",
        "{\"key\":\"k\",\"Key\":\"k\"}",
        "{\"key\":\"k\",\"\":\"k\"}",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_eq(check(ADD, rows[i]), -1, "%s", rows[i]);
}

Test(usage, args_are_an_object)
{
    static const char *const rows[] = { "[]", "[1]", "\"x\"", "7", "null" };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect_eq(check("", rows[i]), -1, "%s", rows[i]);
        cr_expect_eq(check("NAME", rows[i]), -1, "%s", rows[i]);
    }
}

/* {"key":"aaa..."} with n bytes, or {"key":"k","allow":["aaa..."]} */
static int check_length(const char *before, size_t n, const char *after)
{
    char json[70100];
    snprintf(json, sizeof(json), "%s%s%s", before, repeat('a', n), after);
    return check(ADD, json);
}

Test(usage, check_bounds)
{
    cr_expect_eq(check_length("{\"key\":\"", 16384, "\"}"), 0);
    cr_expect_eq(check_length("{\"key\":\"", 16385, "\"}"), -1);
    cr_expect_eq(check_length("{\"key\":\"k\",\"allow\":[\"", 16384, "\"]}"), 0);
    cr_expect_eq(check_length("{\"key\":\"k\",\"allow\":[\"", 16385, "\"]}"), -1);
    for (int n = 256; n <= 257; n++) {
        struct usage usage;
        json_t *rules = json_array();
        for (int i = 0; i < n; i++)
            json_array_append_new(rules, json_string("a"));
        json_t *args = json_pack("{s:s, s:o}", "key", "k", "allow", rules);
        usage_parse(ADD, &usage);
        cr_expect_eq(usage_check(&usage, args, error, sizeof(error)), n <= 256 ? 0 : -1);
        json_decref(args);
    }
}

/* ---- Groups ---- */

#define GROUP "NAME ( KEY... | --pending FINGERPRINT | --batch FILE ) [--all]"

Test(usage, a_line_with_a_group)
{
    struct usage usage;
    usage_parse(GROUP, &usage);
    cr_assert_eq(usage.n, 5);
    expect_arg(&usage.arg[0], "name", false, true, false);
    expect_arg(&usage.arg[1], "key", false, false, true);
    expect_arg(&usage.arg[2], "pending", true, false, false);
    expect_arg(&usage.arg[3], "batch", true, false, true);
    expect_arg(&usage.arg[4], "all", true, false, false);
    for (size_t i = 0; i < usage.n; i++)
        cr_expect_eq(usage.arg[i].group, i >= 1 && i <= 3 ? 1u : 0u, "%zu", i);
}

Test(usage, two_groups)
{
    struct usage usage;
    usage_parse("( A | B ) ( --c X | --d X )", &usage);
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq(usage.arg[i].group, i / 2 + 1, "%zu", i);
}

Test(usage, exactly_one_of_a_group)
{
    expect_args(GROUP, WORDS("n", "a", "b"), "{\"name\":\"n\",\"key\":\"a b\"}");
    expect_args(GROUP, WORDS("--pending", "f", "n"), "{\"name\":\"n\",\"pending\":\"f\"}");
    expect_args(GROUP, WORDS("n", "--batch", "f", "--batch", "g", "--all"),
                "{\"name\":\"n\",\"batch\":[\"f\",\"g\"],\"all\":true}");
    expect_refused(GROUP, WORDS("n"), "key, --pending or --batch is missing");
    expect_refused(GROUP, WORDS("n", "k", "--pending", "f"),
                   "only one of key, --pending and --batch can be given");
    expect_refused(GROUP, WORDS("n", "--batch", "b", "--pending", "f"), "only one of");
    expect_refused(GROUP, WORDS("--batch", "b", "n", "c"), "give one file at a time, and no key beside it");
    cr_expect_eq(check(GROUP, "{\"name\":\"n\"}"), -1);
    cr_expect_eq(check(GROUP, "{\"name\":\"n\",\"key\":\"k\",\"batch\":[]}"), -1);
    cr_expect_eq(check(GROUP, "{\"name\":\"n\",\"batch\":[]}"), 0);
}

/* ---- Every command there is ---- */

/* Is it the one of its group that this choice, a number, means? What is in no group always is. */
static bool is_chosen(const struct usage *usage, size_t i, size_t choice)
{
    unsigned group = usage->arg[i].group;
    size_t before = 0, all = 0;
    for (size_t j = 0; j < usage->n; j++) {
        before += j < i && usage->arg[j].group == group;
        all += usage->arg[j].group == group;
    }
    return group == 0 || before == choice % all;
}

/* Arguments with all that the usage knows, of each group the chosen one, given by words. */
static json_t *all_of(const struct usage *usage, size_t choice)
{
    static char options[USAGE_MAX][32];
    char *words[3 * USAGE_MAX];
    char value[] = "v";
    int n = 0;
    for (size_t i = 0; i < usage->n; i++) {
        if (!is_chosen(usage, i, choice))
            continue;
        if (usage->arg[i].option) {
            snprintf(options[i], sizeof(options[i]), "--%s", usage->arg[i].name);
            words[n++] = options[i];
        }
        if (!usage->arg[i].flag)
            words[n++] = value;
    }
    return usage_from_words(usage, n, words, error, sizeof(error));
}

/* As a line of text and back they are the same. */
static void expect_line(const struct usage *usage, const json_t *args)
{
    int n;
    const char *why;
    char *line = usage_to_line(usage, "add x", args);
    char **words = quote_split(line, &n, &why);
    cr_assert_not_null(words, "%s", why);
    cr_expect_str_eq(words[0], "add");
    json_t *back = usage_from_words(usage, n - 2, words + 2, error, sizeof(error));
    cr_assert_not_null(back, "%s", error);
    cr_expect(json_equal(args, back), "%s", line);
    json_decref(back);
    free(words);
    free(line);
}

Test(usage, a_line_and_back)
{
    static const char *const rows[] = {
        "{\"key\":\"ssh-ed25519 AAAA it's \\\"mine\\\" \\\\ here\"}",
        "{\"key\":\"\"}",
        "{\"key\":\"k\",\"name\":\"\",\"allow\":[\"\",\"a b\",\"*.raspi:80,90-91\"]}",
        "{\"key\":\"k\",\"name\":\"--name\",\"expires\":\"'\"}",
        "{\"key\":\"\\t\\n$HOME `x` ~ # ; & | < > ( ) ! \\u00e9\",\"name\":\"''''\"}",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct usage usage;
        json_t *args = json_loads(rows[i], 0, NULL);
        cr_assert_not_null(args, "%s", rows[i]);
        usage_parse(ADD, &usage);
        cr_assert_eq(usage_check(&usage, args, error, sizeof(error)), 0, "%s", rows[i]);
        expect_line(&usage, args);
        json_decref(args);
    }
}

static void check_every_argument(const struct usage *usage, const char *line, json_t *args, size_t choice)
{
    for (size_t j = 0; j < usage->n; j++) {
        const struct usage_arg *arg = &usage->arg[j];
        bool chosen = is_chosen(usage, j, choice), needed = arg->required || arg->group != 0;
        json_t *without = json_copy(args);
        json_object_del(without, arg->name);
        cr_expect_eq(usage_check(usage, without, error, sizeof(error)), needed && chosen ? -1 : 0,
                     "%s without %s", line, arg->name);
        json_object_set_new(without, arg->name, json_integer(1));
        cr_expect_eq(usage_check(usage, without, error, sizeof(error)), -1);
        json_decref(without);
        for (size_t k = j + 1; k < usage->n; k++) {
            cr_expect_str_neq(arg->name, usage->arg[k].name, "%s", line);
            cr_expect(!arg->repeated || arg->option || usage->arg[k].option,
                      "%s: nothing can follow the rest of the words", line);
        }
    }
}

Test(usage, every_command)
{
    for (size_t i = 0; i < NLINES; i++) {
        struct usage usage;
        usage_parse(lines[i], &usage);
        for (size_t choice = 0; choice < 3; choice++) {
            json_t *args = all_of(&usage, choice);
            cr_assert_not_null(args, "%s: %s", lines[i], error);
            cr_expect_eq(usage_check(&usage, args, error, sizeof(error)), 0, "%s: %s", lines[i], error);
            check_every_argument(&usage, lines[i], args, choice);
            expect_line(&usage, args);
            json_object_set_new(args, "unknown", json_string("v"));
            cr_expect_eq(usage_check(&usage, args, error, sizeof(error)), -1, "%s", lines[i]);
            json_decref(args);
        }
    }
}
