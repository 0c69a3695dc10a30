/* Tenants, principals, keys, rules, log-ins. Names and endpoints: test_registry_names.c. */
#include "relayd/registry.h"

#include "keys.h"
#include "relayd/limits.h"
#include "requests.h"
#include "support.h"

#include <criterion/criterion.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

TestSuite(registry, .init = requests_begin, .fini = requests_end);

static int64_t count(const char *what)
{
    cr_assert_eq(run(what, "{}"), REASON_none);
    return (int64_t)json_array_size(last.result);
}

/* ---- Tenants ---- */

Test(registry, tenants)
{
    expect_done("added", run("add-tenant", "{'name':'acme'}"));
    cr_expect(last.changed);
    expect_done("unchanged", run("add-tenant", "{'name':'acme'}"));
    cr_expect_eq(count("list tenants"), 2);
    expect_done("removed", run("remove-tenant", "{'tenant':'acme'}"));
    cr_expect(last.changed);
    cr_expect_eq(last.principal_id, 0, "the whole tenant");
    cr_expect_eq(count("list tenants"), 1);
    expect_refused(REASON_in_use, run("remove-tenant", "{'tenant':'default'}"));
}

Test(registry, names_of_tenants)
{
    static const char *const bad[] = { "", "a.b", "Acme", "-a", "7", "localhost", "a b", "*" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_refused(REASON_bad_name, run("add-tenant", "{'name':'%s'}", bad[i]));
}

Test(registry, a_tenant_that_is_there_stays_unchanged_whoever_bears_its_name)
{
    run("add-tenant", "{'name':'acme'}");
    run("add-client", "{'name':'acme','key':'%s'}", KEY(ED25519));
    expect_done("unchanged", run("add-tenant", "{'name':'acme'}"));
}

Test(registry, a_removed_tenant_takes_all_that_is_its_own_along)
{
    run("add-tenant", "{'name':'acme'}");
    run_in("acme", "add-device", "{'name':'raspi','allow':['web'],'key':'%s'}", KEY(ED25519));
    run("add-device", "{'name':'raspi','allow':['web'],'key':'%s'}", KEY(ED25519));
    seen("raspi", "web", 80, 1000);
    run("remove-tenant", "{'tenant':'acme'}");
    cr_expect_eq(count("list devices"), 1);
    cr_expect_eq(count("list keys"), 1);
    cr_expect_str_eq(rules_of("raspi"), "web");
    cr_expect_str_eq(owner_of("web"), "raspi");
    run("add-tenant", "{'name':'acme'}");
    cr_assert_eq(run_in("acme", "list devices", "{}"), REASON_none);
    cr_expect_eq(json_array_size(last.result), 0);
}

/* ---- Adding devices and clients ---- */

Test(registry, a_new_device)
{
    expect_done("added", run("add-device", "{'name':'RasPi.default','key':'%s pi@home'}", KEY(ED25519)));
    cr_expect_str_eq(told("name"), "raspi");
    cr_expect_str_eq(told("kind"), "device");
    cr_expect_str_eq(told("tenant"), "default");
    cr_expect_str_eq(told("fingerprint"), FINGERPRINT_ED25519);
    cr_expect_null(json_object_get(last.result, "note"));
    cr_expect(last.changed);
    cr_expect_gt(last.principal_id, 0);
    cr_expect_str_eq(rules_of("raspi"), "", "its own name needs no rule");
}

Test(registry, rules_by_default)
{
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    cr_expect_str_eq(rules_of("alice"), "*", "a visible rule");
    run("add-client", "{'name':'bob','allow':['Web:80','a'],'key':'%s'}", KEY(ED25519_B));
    cr_expect_str_eq(rules_of("bob"), "a web:80");
    run("add-client", "{'name':'carol','allow':[],'key':'%s'}", KEY(ED25519_C));
    cr_expect_str_eq(rules_of("carol"), "*");
    run("add-device", "{'name':'raspi','allow':['web'],'key':'%s'}", KEY(RSA_2048));
    cr_expect_str_eq(rules_of("raspi"), "web");
}

Test(registry, a_bad_rule_adds_nothing)
{
    expect_refused(REASON_bad_rule,
                   run("add-client", "{'name':'alice','allow':['a','b:'],'key':'%s'}", KEY(ED25519)));
    cr_expect_eq(count("list clients"), 0);
    cr_expect_eq(count("list keys"), 0);
}

Test(registry, names_come_from_the_comment)
{
    expect_done("added", run("add-client", "{'key':'%s Alice@Laptop'}", KEY(ED25519)));
    cr_expect_str_eq(told("name"), "alice-laptop");
    expect_done("added", run("add-client", "{'key':'%s'}", KEY(ED25519_B)));
    cr_expect_eq(strncmp(told("name"), "key-", 4), 0, "%s", told("name"));
    cr_expect_eq(strlen(told("name")), 12);
    expect_done("added", run("add-client", "{'key':'%s ---'}", KEY(ED25519_C)));
    cr_expect_eq(strncmp(told("name"), "key-", 4), 0);
}

Test(registry, names_that_nobody_may_bear)
{
    static const char *const bad[] = { "", "-a", "a..b", "7", "localhost", "a b", "*", "web:80" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_refused(REASON_bad_name, run("add-device", "{'name':'%s','key':'%s'}", bad[i], KEY(ED25519)));
    expect_refused(REASON_bad_name, run("add-client", "{'name':'default','key':'%s'}", KEY(ED25519)));
    expect_refused(REASON_bad_name, run("add-client", "{'key':'%s Default'}", KEY(ED25519)));
    expect_refused(REASON_bad_key, run("add-client", "{'name':'alice','key':'%s'}", KEY(RSA_1024)));
    cr_expect_eq(count("list keys"), 0);
}

Test(registry, the_same_again_is_no_error)
{
    run("add-client", "{'name':'alice','allow':['a','b:80'],'key':'%s x'}", KEY(ED25519));
    expect_done("unchanged",
                run("add-client", "{'name':'alice','allow':['b:80','A'],'key':'%s'}", KEY(ED25519)));
    expect_done("unchanged", run("add-client", "{'name':'ALICE','key':'%s'}", KEY(ED25519)));
    expect_done("unchanged", run("add-client", "{'key':'%s another comment'}", KEY(ED25519)));
    cr_expect_str_eq(told("name"), "alice");
    cr_expect_str_eq(told("fingerprint"), FINGERPRINT_ED25519);
    cr_expect_str_eq(rules_of("alice"), "a b:80");
}

Test(registry, a_rule_said_twice_is_one_rule_the_next_time_too)
{
    expect_done("added", run("add-client", "{'name':'alice','allow':['a','A'],'key':'%s'}", KEY(ED25519)));
    expect_done("unchanged",
                run("add-client", "{'name':'alice','allow':['a','A'],'key':'%s'}", KEY(ED25519)));
}

static int64_t expiry_of(const char *name)
{
    struct query *query = store_query(registry, SQL_find_principal, "it", INT64_C(1), name);
    cr_assert_eq(query_next(query), 1);
    int64_t expires = query_int(query, 3);
    query_end(query);
    return expires;
}

Test(registry, not_quite_the_same_again)
{
    run("add-client", "{'name':'alice','allow':['a'],'key':'%s'}", KEY(ED25519));
    expect_refused(REASON_exists,
                   run("add-client", "{'name':'alice','allow':['a','b'],'key':'%s'}", KEY(ED25519)));
    expect_refused(REASON_exists,
                   run("add-client", "{'name':'alice','allow':['b'],'key':'%s'}", KEY(ED25519)));
    expect_done("updated",
                run("add-client", "{'name':'alice','expires':'2099-12-31','key':'%s'}", KEY(ED25519)));
    expect_done("unchanged",
                run("add-client", "{'name':'alice','expires':'2099-12-31','key':'%s'}", KEY(ED25519)));
    int64_t expires = expiry_of("alice");
    expect_done("unchanged", run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519)));
    cr_expect_eq(expiry_of("alice"), expires, "what is not asked for stays");
    expect_refused(REASON_in_use, run("add-client", "{'name':'bob','key':'%s'}", KEY(ED25519)));
    expect_refused(REASON_in_use, run("add-device", "{'name':'alice','key':'%s'}", KEY(ED25519)));
    expect_refused(REASON_exists, run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519_B)));
    expect_refused(REASON_exists, run("add-device", "{'name':'alice','key':'%s'}", KEY(ED25519_B)));
    cr_expect_str_eq(rules_of("alice"), "a");
    cr_expect_eq(count("list keys"), 1);
}

/* ---- Expiry ---- */

Test(registry, expiry)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } rows[] = { { "90s", 90 }, { "5m", 300 }, { "8h", 28800 }, { "30d", 2592000 }, { "2w", 1209600 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t before = time(NULL);
        expect_done("added",
                    run("add-client", "{'name':'a','expires':'%s','key':'%s'}", rows[i].text, KEY(ED25519)));
        int64_t left = expiry_of("a") - rows[i].seconds;
        cr_expect(left >= before && left <= time(NULL), "%s", rows[i].text);
        run("remove-client", "{'name':'a'}");
    }
    run("add-client", "{'name':'b','expires':'2100-02-28','key':'%s'}", KEY(ED25519));
    cr_expect_eq(expiry_of("b"), 4107456000);
    expect_done("unchanged",
                run("add-client", "{'name':'b','expires':'2100-02-28','key':'%s'}", KEY(ED25519)));
    run("add-client", "{'name':'c','expires':'2100-02-28T01:02:03Z','key':'%s'}", KEY(ED25519_B));
    cr_expect_eq(expiry_of("c"), 4107456000 + 3723);
    run("add-client", "{'name':'d','key':'%s'}", KEY(ED25519_C));
    cr_expect_eq(expiry_of("d"), 0);
}

Test(registry, expiry_that_is_none)
{
    static const char *const bad[] = { "",
                                       "8",
                                       "h",
                                       "0h",
                                       "-8h",
                                       "8 h",
                                       "8hh",
                                       "1e3s",
                                       "1000000s",
                                       "8y",
                                       "never",
                                       "2001-01-01",
                                       "2100-02-29",
                                       "2100-13-01",
                                       "2100-02-28x",
                                       "2100-02-28T",
                                       "2100-02-28T01:02:03",
                                       "2100-02-28T25:00:00Z",
                                       "99999999999999999999d" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_refused(REASON_bad_argument,
                       run("add-client", "{'name':'a','expires':'%s','key':'%s'}", bad[i], KEY(ED25519)));
    cr_expect_eq(count("list clients"), 0);
}

/* ---- Keys ---- */

Test(registry, more_keys)
{
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    run("add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519_C));
    expect_done("added", run("add-key", "{'name':'alice','key':'%s'}", KEY(ED25519_B)));
    cr_expect_str_eq(told("fingerprint"), FINGERPRINT_ED25519_B);
    expect_done("unchanged", run("add-key", "{'name':'alice','key':'%s other'}", KEY(ED25519_B)));
    expect_done("unchanged", run("add-key", "{'name':'alice','key':'%s'}", KEY(ED25519)));
    expect_refused(REASON_in_use, run("add-key", "{'name':'raspi','key':'%s'}", KEY(ED25519_B)));
    expect_refused(REASON_not_found, run("add-key", "{'name':'bob','key':'%s'}", KEY(RSA_2048)));
    expect_refused(REASON_bad_key, run("add-key", "{'name':'alice','key':'%s'}", KEY(DSA)));
    cr_expect_eq(count("list keys"), 3);
}

Test(registry, removed_keys_are_free)
{
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    run("add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519_C));
    int64_t id = last.principal_id;
    expect_refused(REASON_not_found,
                   run("remove-key", "{'name':'raspi','fingerprint':'%s'}", FINGERPRINT_ED25519));
    expect_refused(REASON_not_found, run("remove-key", "{'name':'alice','fingerprint':'SHA256:'}"));
    expect_refused(REASON_not_found,
                   run("remove-key", "{'name':'bob','fingerprint':'%s'}", FINGERPRINT_ED25519));
    expect_done("removed", run("remove-key", "{'name':'raspi','fingerprint':'%s'}", FINGERPRINT_ED25519_C));
    cr_expect(last.changed);
    cr_expect_eq(last.principal_id, id);
    expect_done("added", run("add-key", "{'name':'alice','key':'%s'}", KEY(ED25519_C)));
}

/* Who logs in with the blob as that user: "tenant/name", "" if nobody. */
static const char *login(const char *blob, const char *user)
{
    static char who[2 * NAME_SIZE];
    struct query *query = store_query(registry, SQL_find_login, "tt", blob, user);
    int rc = query_next(query);
    cr_assert_geq(rc, 0);
    snprintf(who, sizeof(who), "%s%s%s", rc ? query_text(query, 1) : "", rc ? "/" : "",
             rc ? query_text(query, 4) : "");
    query_end(query);
    return who;
}

/* Whether the key in that row of the tenant's list is at home there. */
static bool is_home(const char *tenant, size_t row)
{
    cr_assert_eq(run_in(tenant, "list keys", "{}"), REASON_none);
    return json_is_true(json_object_get(json_array_get(last.result, row), "home"));
}

Test(registry, the_user_name_selects_a_tenant_or_the_key_s_home)
{
    run("add-tenant", "{'name':'acme'}");
    run("add-tenant", "{'name':'empty'}");
    run_in("acme", "add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    cr_expect_null(json_object_get(last.result, "note"));
    expect_done("added", run("add-client", "{'name':'ally','key':'%s'}", KEY(ED25519)));
    cr_expect_not_null(strstr(told("note"), "acme"), "the home is another: %s", told("note"));
    run("add-client", "{'name':'bob','key':'%s'}", KEY(ED25519_B));

    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "acme/alice");
    cr_expect_str_eq(login(BLOB_ED25519, ""), "acme/alice");
    cr_expect_str_eq(login(BLOB_ED25519, "acme"), "acme/alice");
    cr_expect_str_eq(login(BLOB_ED25519, "default"), "default/ally");
    cr_expect_str_eq(login(BLOB_ED25519, "empty"), "", "a tenant's name never leads to another");
    cr_expect_str_eq(login(BLOB_ED25519_B, "bob"), "default/bob");
    cr_expect_str_eq(login(BLOB_ED25519_B, "acme"), "");
    cr_expect_str_eq(login(BLOB_ED25519_C, "pi"), "");

    cr_expect(is_home("acme", 0));
    cr_expect_not(is_home("default", 0));
    cr_expect(is_home("default", 1));
    run_in("acme", "remove-client", "{'name':'alice'}");
    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "default/ally");
}

/* A key that a tenant's own admin added draws nobody's log-in there. */
Test(registry, a_home_is_where_the_administrator_registered_the_key)
{
    sqlite3 *db;
    run("add-tenant", "{'name':'acme'}");
    run_in("acme", "add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    run("add-client", "{'name':'ally','key':'%s'}", KEY(ED25519));
    cr_assert_eq(sqlite3_open(temp_path("relayd.db"), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, "UPDATE keys SET by_admin = 0 WHERE tenant_id = 2", NULL, NULL, NULL),
                 SQLITE_OK);
    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "default/ally");
    cr_expect_str_eq(login(BLOB_ED25519, "acme"), "acme/alice");
    cr_expect(is_home("default", 0));
    cr_expect_not(is_home("acme", 0));
    expect_done("unchanged", run("add-client", "{'key':'%s'}", KEY(ED25519)));
    cr_expect_str_eq(told("note"), "");
    cr_assert_eq(sqlite3_exec(db, "UPDATE keys SET by_admin = 0", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "");
    cr_expect_str_eq(login(BLOB_ED25519, "default"), "default/ally");
}

/* ---- Removing ---- */

Test(registry, removing_asks_for_the_right_kind)
{
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    run("add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519_B));
    int64_t id = last.principal_id;
    expect_refused(REASON_not_found, run("remove-device", "{'name':'alice'}"));
    expect_refused(REASON_not_found, run("remove-client", "{'name':'raspi'}"));
    expect_refused(REASON_not_found, run("remove-client", "{'name':'bob'}"));
    seen("raspi", "a.raspi", 22, 1000);
    expect_done("removed", run("remove-device", "{'name':'raspi'}"));
    cr_expect(last.changed);
    cr_expect_eq(last.principal_id, id);
    cr_expect_str_eq(owner_of("a.raspi"), "");
    cr_expect_eq(count("list keys"), 1);
    expect_done("removed", run("remove-client", "{'name':'alice'}"));
    run("add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519_B));
    cr_expect_gt(last.principal_id, id, "an id is never used again");
}

/* ---- Rules ---- */

Test(registry, allow_and_disallow)
{
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    expect_done("allowed", run("allow", "{'name':'alice','rule':'WEB:80'}"));
    cr_expect(last.changed);
    expect_done("unchanged", run("allow", "{'name':'alice','rule':'web:80'}"));
    cr_expect_eq(json_array_size(json_object_get(last.result, "rules")), 2);
    expect_refused(REASON_bad_rule, run("allow", "{'name':'alice','rule':'web:'}"));
    expect_refused(REASON_not_found, run("allow", "{'name':'bob','rule':'web'}"));
    expect_done("unchanged", run("disallow", "{'name':'alice','rule':'web'}"));
    expect_done("disallowed", run("disallow", "{'name':'alice','rule':'Web:80'}"));
    expect_done("disallowed", run("disallow", "{'name':'alice','rule':'*'}"));
    cr_expect(last.changed);
    cr_expect_str_eq(rules_of("alice"), "", "removing the last rule leaves none");
    expect_done("unchanged", run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519)));
    cr_expect_str_eq(rules_of("alice"), "", "and adding again does not bring the default back");
}

/* ---- Administrators of a tenant ---- */

static bool is_admin(const char *name)
{
    cr_assert_eq(run("show", "{'name':'%s'}", name), REASON_none, "%s", last.failure.text);
    return json_is_true(json_object_get(last.result, "admin"));
}

Test(registry, administrators)
{
    expect_done("added", run("add-client", "{'name':'alice','admin':true,'key':'%s'}", KEY(ED25519)));
    cr_expect(json_is_true(json_object_get(last.result, "admin")));
    cr_expect(is_admin("alice"));
    expect_done("unchanged", run("set-admin", "{'name':'alice','state':'on'}"));
    expect_done("set", run("set-admin", "{'name':'Alice.default','state':'off'}"));
    cr_expect(last.changed);
    cr_expect_gt(last.principal_id, 0);
    cr_expect_not(is_admin("alice"));
    expect_done("unchanged", run("set-admin", "{'name':'alice','state':'off'}"));
    expect_refused(REASON_exists,
                   run("add-client", "{'name':'alice','admin':true,'key':'%s'}", KEY(ED25519)));
    expect_done("unchanged", run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519)));
    expect_done("set", run("set-admin", "{'name':'alice','state':'on'}"));
    expect_done("unchanged", run("add-client", "{'name':'alice','admin':true,'key':'%s'}", KEY(ED25519)));
}

Test(registry, who_cannot_be_an_administrator)
{
    run("add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519));
    expect_refused(REASON_bad_argument, run("set-admin", "{'name':'raspi','state':'on'}"));
    cr_expect_eq(run("show", "{'name':'raspi'}"), REASON_none);
    expect_refused(REASON_not_found, run("set-admin", "{'name':'nobody','state':'on'}"));
    expect_refused(REASON_bad_argument, run("set-admin", "{'name':'raspi','state':'ON'}"));
    expect_refused(REASON_bad_argument, run("set-admin", "{'name':'raspi','state':''}"));
}

Test(registry, what_a_tenant_registers_has_no_home)
{
    run("add-tenant", "{'name':'acme'}");
    run("add-tenant", "{'name':'evil'}");
    expect_done("added", run_self("evil", "add-device", "{'name':'mine','key':'%s'}", KEY(ED25519)));
    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "");
    cr_expect_str_eq(login(BLOB_ED25519, "evil"), "evil/mine");
    run_in("acme", "add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519));
    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "acme/raspi", "though it came later");
    cr_expect_str_eq(login(BLOB_ED25519, "evil"), "evil/mine");
    expect_done("unchanged", run_in("evil", "add-device", "{'name':'mine','key':'%s'}", KEY(ED25519)));
    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "acme/raspi", "nor does the relay's administrator move it");
    expect_done("removed", run_in("acme", "remove-device", "{'name':'raspi'}"));
    cr_expect_str_eq(login(BLOB_ED25519, "pi"), "");
}

/* The whole answer, in text. */
static char *answer(void)
{
    return json_dumps(last.result, JSON_SORT_KEYS);
}

Test(registry, a_tenant_learns_nothing_of_other_tenants_keys)
{
    char *fresh, *taken;
    run("add-tenant", "{'name':'acme'}");
    expect_done("added", run_self("acme", "add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519)));
    fresh = answer();
    expect_done("removed", run_self("acme", "remove-device", "{'name':'raspi'}"));
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    expect_done("added", run_self("acme", "add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519)));
    taken = answer();
    cr_expect_str_eq(fresh, taken);
    cr_expect_not_null(strstr(fresh, "user acme"), "it says how to log in");
    free(fresh);
    free(taken);
    cr_expect_eq(run_self("acme", "list keys", "{}"), REASON_none);
    cr_expect_null(json_object_get(json_array_get(last.result, 0), "home"));
    cr_expect_eq(run_self("acme", "show", "{'name':'raspi'}"), REASON_none);
    json_t *keys = json_object_get(last.result, "keys");
    cr_expect_eq(json_array_size(keys), 1);
    cr_expect_null(json_object_get(json_array_get(keys, 0), "home"));
}

Test(registry, what_a_tenant_may_register_is_bounded)
{
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519));
    int done = 0;
    while (run_self("default", "allow", "{'name':'alice','rule':'r%d'}", done) == REASON_none)
        done++;
    cr_expect_eq(last.failure.reason, REASON_too_many_registered);
    cr_expect_eq(done, LIMIT_RULES - 1, "'*' is there already");
    expect_done("allowed", run("allow", "{'name':'alice','rule':'more'}"));
    expect_done("disallowed", run_self("default", "disallow", "{'name':'alice','rule':'r1'}"));
}
