/* Who asks to be enrolled, and whose keys are kept. */
#include "relayd/enrol.h"

#include "keys.h"
#include "relayd/limits.h"
#include "requests.h"
#include "support.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(enrol, .init = requests_begin, .fini = requests_end);

/* ---- The user name ---- */

static void expect_asks(const char *user, const char *expected_tenant, const char *expected_hint)
{
    char tenant[NAME_SIZE], hint[ENROL_HINT_SIZE];
    cr_assert(enrol_parse(user, tenant, hint), "%s", user);
    cr_expect_str_eq(tenant, expected_tenant, "%s", user);
    cr_expect_str_eq(hint, expected_hint, "%s", user);
}

Test(enrol, user_names_that_ask)
{
    expect_asks("enrol", "default", "");
    expect_asks("enrol+", "default", "");
    expect_asks("enrol+raspi", "default", "raspi");
    expect_asks("enrol+a+b", "default", "a+b");
    expect_asks("acme+enrol", "acme", "");
    expect_asks("acme+enrol+a+b", "acme", "a+b");
    expect_asks("enrol+enrol", "default", "enrol");
    expect_asks("enrol+enrol+x", "default", "enrol+x");
}

Test(enrol, user_names_that_do_not)
{
    static const char *const others[] = {
        "",        "enro",        "enrolx",  "Enrol",       "enrol2+x",    "+enrol",
        "acme+",   "acme+enrolx", "acme",    "acme+x",      "ACME+enrol",  "a.b+enrol",
        "7+enrol", "a b+enrol",   "-+enrol", "acme++enrol", "acme+x+enrol"
    };
    char tenant[NAME_SIZE], hint[ENROL_HINT_SIZE], *long_one;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        cr_expect_not(enrol_parse(others[i], tenant, hint), "%s", others[i]);
    cr_assert_gt(asprintf(&long_one, "%s+enrol", repeat('a', 60000)), 0);
    cr_expect_not(enrol_parse(long_one, tenant, hint));
    free(long_one);
}

Test(enrol, hints_are_cut_and_printable)
{
    char user[80];
    snprintf(user, sizeof(user), "enrol+%s", repeat('x', 64));
    expect_asks(user, "default", repeat('x', 64));
    snprintf(user, sizeof(user), "enrol+%s", repeat('x', 65));
    expect_asks(user, "default", repeat('x', 64));
    expect_asks("enrol+\x1b[31m \x7f\xc3\xa9~\n", "default", "?[31m ???~?");
}

/* ---- What is kept ---- */

/* A key that is like no other, by its number. */
static struct enrolment *asks(const char *tenant, unsigned number, const char *address)
{
    char blob[24];
    struct pubkey key = { .blob = blob, .type = "ssh-ed25519" };
    struct sockaddr_in in = { .sin_family = AF_INET };
    snprintf(blob, sizeof(blob), "blob%u", number);
    snprintf(key.fingerprint, sizeof(key.fingerprint), "SHA256:%u", number);
    inet_pton(AF_INET, address, &in.sin_addr);
    struct source source = source_of((struct sockaddr *)&in);
    struct enrolment *enrolment = enrol_new(tenant, "hint", &key, address, &source);
    cr_assert_not_null(enrolment);
    return enrolment;
}

static enum enrol_outcome ask(const char *tenant, unsigned number, const char *address)
{
    struct enrolment *enrolment = asks(tenant, number, address);
    cr_assert_eq(enrol_write(registry, enrolment), 0);
    enum enrol_outcome outcome = enrolment->outcome;
    free(enrolment);
    return outcome;
}

static size_t count(const char *tenant)
{
    cr_assert_eq(run_in(tenant, "list pending", "{}"), REASON_none);
    return json_array_size(last.result);
}

static bool waits(unsigned number)
{
    char fingerprint[24];
    size_t i;
    json_t *row;
    snprintf(fingerprint, sizeof(fingerprint), "SHA256:%u", number);
    count("default");
    json_array_foreach(last.result, i, row)
        if (strcmp(json_string_value(json_object_get(row, "fingerprint")), fingerprint) == 0)
            return true;
    return false;
}

Test(enrol, a_key_waits_once)
{
    cr_expect_eq(ask("default", 1, "192.0.2.1"), ENROL_KEPT);
    cr_expect_eq(ask("default", 1, "192.0.2.9"), ENROL_AGAIN);
    cr_expect_eq(count("default"), 1);
    const json_t *row = json_array_get(last.result, 0);
    cr_expect_str_eq(json_string_value(json_object_get(row, "address")), "192.0.2.9",
                     "where it came from last");
    cr_expect_str_eq(json_string_value(json_object_get(row, "unverified_hint")), "hint");
}

Test(enrol, tenants_are_apart)
{
    run("add-tenant", "{'name':'acme'}");
    cr_expect_eq(ask("acme", 1, "192.0.2.1"), ENROL_KEPT);
    cr_expect_eq(ask("default", 1, "192.0.2.1"), ENROL_KEPT);
    cr_expect_eq(ask("nosuch", 1, "192.0.2.1"), ENROL_IGNORED);
    cr_expect_eq(count("acme"), 1);
    expect_refused(REASON_not_found, run("remove-pending", "{'fingerprint':'SHA256:2'}"));
    expect_done("removed", run("remove-pending", "{'fingerprint':'SHA256:1'}"));
    cr_expect_eq(count("default"), 0);
    cr_expect_eq(count("acme"), 1);
    expect_done("removed", run("remove-tenant", "{'tenant':'acme'}"));
    cr_expect_eq(store_value(registry, SQL_count_pending, "i", INT64_C(2)), 0);
}

Test(enrol, no_tenant_is_called_like_that)
{
    expect_refused(REASON_bad_name, run("add-tenant", "{'name':'" ENROL_USER "'}"));
}

Test(enrol, what_has_expired_is_gone)
{
    ask("default", 1, "192.0.2.1");
    cr_assert_eq(
        store_run(registry, SQL_prolong_pending, "itttti", INT64_C(1), "blob1", "a", "b", "c", INT64_C(0)),
        1);
    cr_expect_eq(count("default"), 0);
    expect_refused(REASON_not_found, run("add-device", "{'pending':'SHA256:1'}"));
    cr_expect_eq(ask("default", 2, "192.0.2.1"), ENROL_KEPT);
    cr_expect_eq(store_value(registry, SQL_count_pending, "i", INT64_C(1)), 1, "it is deleted");
}

Test(enrol, a_source_has_its_bound)
{
    for (unsigned i = 0; i < LIMIT_PENDING_OF_SOURCE; i++)
        cr_assert_eq(ask("default", i, "192.0.2.1"), ENROL_KEPT);
    cr_expect_eq(ask("default", 1000, "192.0.2.1"), ENROL_FULL);
    cr_expect_eq(ask("default", 0, "192.0.2.1"), ENROL_AGAIN, "who waits may ask again");
    cr_expect_eq(ask("default", 1000, "192.0.2.2"), ENROL_KEPT);
}

Test(enrol, in_a_full_tenant_the_greediest_gives_way)
{
    unsigned n = 0, sources = LIMIT_PENDING / LIMIT_PENDING_OF_SOURCE;
    char address[32];
    cr_assert_eq(store_begin(registry), 0);
    for (unsigned s = 1; s <= sources; s++) {
        snprintf(address, sizeof(address), "192.0.2.%u", s);
        for (unsigned i = s == 1 ? 1 : 0; i < LIMIT_PENDING_OF_SOURCE; i++)
            cr_assert_eq(ask("default", n++, address), ENROL_KEPT);
    }
    cr_assert_eq(ask("default", n++, "198.51.100.1"), ENROL_KEPT);
    cr_expect_eq(store_value(registry, SQL_count_pending, "i", INT64_C(1)), LIMIT_PENDING);
    cr_assert_eq(ask("default", n++, "198.51.100.1"), ENROL_TOOK);
    cr_assert_eq(ask("default", n++, "198.51.100.2"), ENROL_TOOK);
    cr_expect_eq(ask("default", n, "192.0.2.1"), ENROL_FULL, "it has its share");
    cr_assert_eq(store_commit(registry), 0);
    cr_expect_eq(count("default"), LIMIT_PENDING);
    cr_expect(waits(n - 3) && waits(n - 2) && waits(n - 1), "the newcomers");
    cr_expect(waits(0) && waits(98), "whoever had fewer than others lost nothing");
}

Test(enrol, one_each_is_fair)
{
    char address[32];
    cr_assert_eq(store_begin(registry), 0);
    for (unsigned i = 0; i < LIMIT_PENDING; i++) {
        snprintf(address, sizeof(address), "10.0.%u.%u", i / 256, i % 256);
        cr_assert_eq(ask("default", i, address), ENROL_KEPT);
    }
    cr_expect_eq(ask("default", LIMIT_PENDING, "192.0.2.1"), ENROL_FULL);
    cr_assert_eq(store_commit(registry), 0);
}

/* ---- Approving ---- */

static void ask_with(const char *blob, const char *fingerprint)
{
    char copy[1000];
    struct pubkey key = { .blob = copy, .type = TYPE_ED25519 };
    struct source nobody = { 0 };
    snprintf(copy, sizeof(copy), "%s", blob);
    snprintf(key.fingerprint, sizeof(key.fingerprint), "%s", fingerprint);
    struct enrolment *enrolment = enrol_new("default", "", &key, "127.0.0.1", &nobody);
    cr_assert_not_null(enrolment);
    cr_expect_str_eq(enrolment->source, "127.0.0.1", "an exempt source is its address");
    cr_assert_eq(enrol_write(registry, enrolment), 0);
    free(enrolment);
}

Test(enrol, approving)
{
    ask_with(BLOB_ED25519, FINGERPRINT_ED25519);
    ask_with(BLOB_ED25519_B, FINGERPRINT_ED25519_B);
    ask_with(BLOB_ED25519_C, FINGERPRINT_ED25519_C);
    expect_done("added", run("add-device", "{'name':'raspi','pending':'" FINGERPRINT_ED25519 "'}"));
    cr_expect_str_eq(told("fingerprint"), FINGERPRINT_ED25519);
    cr_expect(last.changed && last.new_name);
    expect_done("unchanged", run("add-device", "{'name':'raspi','pending':'" FINGERPRINT_ED25519 "'}"));
    expect_refused(REASON_in_use, run("add-client", "{'name':'al','pending':'" FINGERPRINT_ED25519 "'}"));
    expect_done("added", run("add-key", "{'name':'raspi','pending':'" FINGERPRINT_ED25519_B "'}"));
    cr_expect_eq(count("default"), 1);
    expect_refused(REASON_exists,
                   run("add-device", "{'name':'raspi','pending':'" FINGERPRINT_ED25519_C "'}"));
    cr_expect_eq(count("default"), 1, "it waits on");
    expect_done("added", run("add-client", "{'name':'al','key':'%s'}", KEY(ED25519_C)));
    cr_expect_eq(count("default"), 0, "typed in after all");
    ask_with(BLOB_ED25519, FINGERPRINT_ED25519);
    cr_expect_eq(count("default"), 0, "it is registered");
    expect_refused(REASON_not_found, run("add-key", "{'name':'raspi','pending':'SHA256:x'}"));
}
