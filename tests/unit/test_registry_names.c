/* Who may bear which name, and who owns what was published. */
#include "relayd/registry.h"

#include "keys.h"
#include "requests.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

TestSuite(registry_names, .init = requests_begin, .fini = requests_end);

static enum reason add(const char *kind, const char *name, const char *key)
{
    return run(kind, "{'name':'%s','key':'%s'}", name, key);
}

#define add_device(name, key) add("add-device", name, KEY(key))
#define add_client(name, key) add("add-client", name, KEY(key))

static enum reason rename_to(const char *name, const char *new_name)
{
    return run("rename", "{'name':'%s','new-name':'%s'}", name, new_name);
}

static enum reason move_to(const char *name, const char *device)
{
    return run("move-endpoint", "{'name':'%s','device':'%s'}", name, device);
}

/* How many endpoints the registry knows of a device; all for NULL. */
static size_t endpoints_of(const char *device)
{
    json_t *rows = store_rows(registry, SQL_list_endpoints, "it", INT64_C(1), device);
    size_t n = json_array_size(rows);
    json_decref(rows);
    return n;
}

/* ---- A device's own name ---- */

Test(registry_names, devices_do_not_nest)
{
    add_device("web.raspi", ED25519);
    cr_expect(last.new_name, "its worker must look who published it meanwhile");
    cr_expect_str_eq(last.old_name, "");
    expect_refused(REASON_in_use, add_device("raspi", ED25519_B));
    expect_refused(REASON_in_use, add_device("a.web.raspi", ED25519_B));
    cr_expect_not_null(strstr(last.failure.text, "device web.raspi"), "%s", last.failure.text);
    expect_done("added", add_device("eb.raspi", ED25519_B));
    expect_done("added", add_device("xweb.raspi", ED25519_C));
}

Test(registry_names, a_device_cannot_take_a_name_that_another_has_published)
{
    add_device("raspi", ED25519);
    seen("raspi", "shop", 80, 1000);
    seen("raspi", "a.b.store", 80, 1000);
    expect_refused(REASON_in_use, add_device("shop", ED25519_B));
    expect_refused(REASON_in_use, add_device("store", ED25519_B));
    expect_refused(REASON_in_use, add_device("b.store", ED25519_B));
    cr_expect_not_null(strstr(last.failure.text, "device raspi"), "%s", last.failure.text);
    expect_done("added", add_device("x.shop", ED25519_B)); /* a published name is owned alone */
    expect_done("removed", run("remove-endpoint", "{'name':'shop'}"));
    expect_refused(REASON_in_use, add_device("shop", ED25519_C)); /* x.shop is there now */
    expect_done("removed", run("remove-endpoint", "{'name':'a.b.store'}"));
    expect_done("added", add_device("store", ED25519_C));
}

Test(registry_names, a_client_owns_no_name_and_so_meets_no_conflict)
{
    add_device("raspi", ED25519);
    seen("raspi", "shop", 80, 1000);
    expect_done("added", add_client("a.raspi", ED25519_B));
    cr_expect_not(last.new_name);
    expect_done("added", add_client("shop", ED25519_C));
    expect_refused(REASON_exists, add_client("raspi", RSA_2048));
    expect_done("renamed", rename_to("shop", "x.raspi"));
}

Test(registry_names, a_device_may_stand_above_and_below_clients)
{
    add_client("bob.pi4", ED25519);
    expect_done("added", add_device("pi4", ED25519_B));
    add_client("top", ED25519_C);
    expect_done("added", add_device("sub.top", RSA_2048));
}

Test(registry_names, other_tenants_are_another_world)
{
    add_device("raspi", ED25519);
    seen("raspi", "shop", 80, 1000);
    run("add-tenant", "{'name':'acme'}");
    cr_expect_eq(run_in("acme", "add-device", "{'name':'web.raspi','key':'%s'}", KEY(ED25519_B)),
                 REASON_none);
    cr_expect_eq(run_in("acme", "add-device", "{'name':'shop','key':'%s'}", KEY(ED25519_C)), REASON_none);
    int64_t id = last.principal_id;
    expect_refused(REASON_not_found, run_in("acme", "remove-endpoint", "{'name':'shop'}"));
    expect_refused(REASON_not_found, run_in("acme", "show", "{'name':'alice'}"));
    cr_expect_eq(seen_in(2, id, "web"), 1);
    seen("raspi", "web", 80, 1000);
    add_device("other", RSA_2048);
    cr_expect_eq(move_to("web", "other"), REASON_none);
    cr_expect_eq(store_value(registry, SQL_get_owner, "it", INT64_C(2), "web"), id);
    cr_expect_eq(run("remove-endpoint", "{'name':'web'}"), REASON_none);
    cr_expect_eq(run_in("acme", "remove-endpoint", "{'name':'web'}"), REASON_none);
    cr_expect_str_eq(owner_of("shop"), "raspi");
}

/* ---- Renaming ---- */

Test(registry_names, rename)
{
    add_device("raspi", ED25519);
    add_client("alice", ED25519_B);
    expect_done("renamed", rename_to("raspi", "PI4.default"));
    cr_expect_str_eq(told("name"), "pi4");
    cr_expect(last.changed);
    cr_expect(last.new_name);
    cr_expect_str_eq(last.old_name, "raspi");
    cr_expect_gt(last.principal_id, 0);
    expect_done("unchanged", rename_to("pi4", "Pi4"));
    expect_refused(REASON_not_found, rename_to("raspi", "x"));
    expect_refused(REASON_exists, rename_to("pi4", "alice"));
    expect_refused(REASON_exists, rename_to("alice", "pi4"));
    expect_refused(REASON_bad_name, rename_to("pi4", "-x"));
    expect_refused(REASON_bad_name, rename_to("pi4", "default"));
    expect_refused(REASON_bad_name, rename_to("alice", "default"));
    cr_expect_eq(run("show", "{'name':'pi4'}"), REASON_none);
}

Test(registry_names, rename_meets_the_same_conflicts_as_adding)
{
    add_device("raspi", ED25519);
    add_device("pi4", ED25519_B);
    seen("raspi", "shop", 80, 1000);
    expect_refused(REASON_in_use, rename_to("pi4", "a.raspi"));
    expect_refused(REASON_in_use, rename_to("pi4", "shop"));
    seen("raspi", "b.c.store", 80, 1000);
    expect_refused(REASON_in_use, rename_to("pi4", "store"));
    expect_done("renamed", rename_to("raspi", "shop"));  /* its own */
    expect_done("renamed", rename_to("shop", "x.shop")); /* below what is its own */
    expect_done("renamed", rename_to("x.shop", "shop"));
}

Test(registry_names, rename_forgets_what_was_below_the_old_name_and_nothing_else)
{
    add_device("raspi", ED25519);
    add_device("other", ED25519_B);
    seen("raspi", "raspi", 22, 1000);
    seen("raspi", "web.raspi", 80, 1000);
    seen("raspi", "shop", 80, 1000);
    seen("raspi", "xraspi", 80, 1000);
    seen("other", "other", 22, 1000);
    expect_done("renamed", rename_to("raspi", "pi4"));
    cr_expect_str_eq(owner_of("raspi"), "");
    cr_expect_str_eq(owner_of("web.raspi"), "");
    cr_expect_str_eq(owner_of("shop"), "pi4");
    cr_expect_str_eq(owner_of("xraspi"), "pi4");
    cr_expect_str_eq(owner_of("other"), "other");
    expect_done("added", add_device("raspi", ED25519_C));
}

Test(registry_names, the_name_of_a_device_or_client_has_no_case)
{
    add_device("raspi", ED25519);
    seen("raspi", "shop", 80, 1000);
    cr_expect_eq(run("show", "{'name':'Raspi'}"), REASON_none);
    cr_expect_eq(run("allow", "{'name':'raspi.default','rule':'web'}"), REASON_none);
    cr_expect_eq(move_to("shop", "RASPI"), REASON_none);
    cr_expect_eq(run("remove-device", "{'name':'RASPI'}"), REASON_none);
}

/* ---- Published names ---- */

Test(registry_names, who_published_first_keeps_the_name)
{
    add_device("raspi", ED25519);
    add_device("other", ED25519_B);
    seen("raspi", "shop", 80, 1000);
    seen("other", "shop", 80, 2000);
    cr_expect_str_eq(owner_of("shop"), "raspi");
    cr_expect_eq(endpoints_of("other"), 0);
    json_t *rows = store_rows(registry, SQL_list_endpoints, "it", INT64_C(1), "raspi");
    cr_expect_str_eq(json_string_value(json_object_get(json_array_get(rows, 0), "last_seen")),
                     "1970-01-01T00:16:40Z");
    json_decref(rows);
    seen("raspi", "shop", 80, 3000);
    cr_expect_eq(endpoints_of("raspi"), 1);
}

/* What was seen of a device that is removed meanwhile must not fail, nor come back. */
Test(registry_names, news_of_a_removed_device_is_forgotten)
{
    add_device("raspi", ED25519);
    int64_t id = last.principal_id;
    run("remove-device", "{'name':'raspi'}");
    cr_expect_eq(seen_in(1, id, "shop"), 0);
    cr_expect_str_eq(owner_of("shop"), "");
    run("add-tenant", "{'name':'acme'}");
    add_device("raspi", ED25519);
    cr_expect_eq(seen_in(2, last.principal_id, "shop"), 0, "a device of another tenant");
}

Test(registry_names, history_is_trimmed_and_ownership_is_not)
{
    add_device("raspi", ED25519);
    add_device("other", ED25519_B);
    int64_t other = last.principal_id;
    for (int i = 1; i <= 9; i++) {
        char name[32];
        snprintf(name, sizeof(name), "n%d.raspi", i);
        seen("raspi", name, 22, 1000 + i);
        snprintf(name, sizeof(name), "n%d", i);
        seen("raspi", name, 22, i);
    }
    seen("raspi", "raspi", 22, 900);
    seen("other", "a.other", 22, 1);
    int64_t raspi = store_value(registry, SQL_get_owner, "it", INT64_C(1), "n1");
    cr_expect_eq(store_run(registry, SQL_trim_history, "ii", raspi, INT64_C(10)), 0);
    cr_expect_eq(store_run(registry, SQL_trim_history, "ii", raspi, INT64_C(3)), 7);
    cr_expect_eq(endpoints_of("raspi"), 9 + 3);
    cr_expect_str_eq(owner_of("raspi"), "", "the longest absent goes first");
    cr_expect_str_eq(owner_of("n6.raspi"), "");
    cr_expect_str_eq(owner_of("n7.raspi"), "raspi");
    cr_expect_str_eq(owner_of("n1"), "raspi");
    cr_expect_str_eq(owner_of("a.other"), "other");
    cr_expect_eq(store_run(registry, SQL_trim_history, "ii", other, INT64_C(0)), 1);
}

Test(registry_names, of_an_owned_name_the_port_seen_last_stays)
{
    add_device("raspi", ED25519);
    seen("raspi", "shop", 80, 1000);
    seen("raspi", "shop", 443, 2000);
    seen("raspi", "shop", 22, 2000);
    seen("raspi", "shop", 8080, 1500);
    int64_t raspi = store_value(registry, SQL_get_owner, "it", INT64_C(1), "shop");
    cr_expect_eq(store_run(registry, SQL_trim_history, "ii", raspi, INT64_C(0)), 3);
    cr_expect_str_eq(owner_of("shop"), "raspi");
    json_t *rows = store_rows(registry, SQL_list_endpoints, "it", INT64_C(1), "raspi");
    cr_expect_eq(json_array_size(rows), 1);
    cr_expect_eq(json_integer_value(json_object_get(json_array_get(rows, 0), "port")), 443);
    json_decref(rows);
}

/* When a name was taken from its publisher while that published it on another port. */
Test(registry_names, forget_endpoint_leaves_the_owner_s_rows)
{
    add_device("raspi", ED25519);
    add_device("other", ED25519_B);
    int64_t other = last.principal_id;
    seen("raspi", "shop", 80, 1000);
    seen("other", "shop", 443, 1000);
    seen("raspi", "web", 80, 1000);
    cr_expect_eq(store_run(registry, SQL_forget_endpoint, "iti", INT64_C(2), "shop", other), 0);
    cr_expect_eq(store_run(registry, SQL_forget_endpoint, "iti", INT64_C(1), "shop", other), 1);
    cr_expect_str_eq(owner_of("shop"), "other");
    cr_expect_str_eq(owner_of("web"), "raspi");
}

Test(registry_names, move_endpoint)
{
    add_device("raspi", ED25519);
    add_device("other", ED25519_B);
    add_client("alice", ED25519_C);
    seen("raspi", "shop", 80, 1000);
    seen("raspi", "shop", 443, 1000);
    expect_done("moved", move_to("SHOP", "other"));
    cr_expect(last.changed);
    cr_expect_str_eq(last.endpoint, "shop");
    cr_expect_str_eq(told("device"), "other");
    cr_expect_str_eq(owner_of("shop"), "other");
    cr_expect_eq(endpoints_of("other"), 2, "all ports");
    expect_done("unchanged", move_to("shop.default", "other"));
    expect_refused(REASON_bad_argument, move_to("shop", "alice"));
    expect_refused(REASON_not_found, move_to("shop", "nobody"));
    expect_refused(REASON_not_found, move_to("shop2", "raspi"));
    expect_refused(REASON_bad_name, move_to("shop:80", "raspi"));
    cr_expect_str_eq(owner_of("shop"), "other");
}

Test(registry_names, own_names_cannot_be_moved)
{
    add_device("raspi", ED25519);
    add_device("other", ED25519_B);
    seen("raspi", "raspi", 22, 1000);
    seen("raspi", "a.web.raspi", 80, 1000);
    expect_refused(REASON_in_use, move_to("raspi", "other"));
    expect_refused(REASON_in_use, move_to("a.web.raspi", "other"));
    cr_expect_str_eq(owner_of("a.web.raspi"), "raspi");
}

/* The name of a client is nobody's own. */
Test(registry_names, a_client_s_name_does_not_hold_an_endpoint_back)
{
    add_device("raspi", ED25519);
    add_device("other", ED25519_B);
    add_client("alice", ED25519_C);
    seen("raspi", "web.alice", 80, 1000);
    expect_done("moved", move_to("web.alice", "other"));
}

Test(registry_names, remove_endpoint)
{
    add_device("raspi", ED25519);
    seen("raspi", "shop", 80, 1000);
    seen("raspi", "shop", 443, 1000);
    seen("raspi", "a.shop", 443, 1000);
    expect_done("removed", run("remove-endpoint", "{'name':'Shop'}"));
    cr_expect(last.changed);
    cr_expect_str_eq(last.endpoint, "shop");
    cr_expect_eq(endpoints_of(NULL), 1);
    expect_refused(REASON_not_found, run("remove-endpoint", "{'name':'shop'}"));
    expect_refused(REASON_bad_name, run("remove-endpoint", "{'name':'*'}"));
}

/* ---- What is shown ---- */

Test(registry_names, show_tells_all)
{
    add_device("raspi", ED25519);
    run("add-key", "{'name':'raspi','key':'%s two'}", KEY(ED25519_B));
    add_device("other", ED25519_C);
    seen("raspi", "shop", 80, 1000);
    seen("other", "other", 80, 1000);
    cr_assert_eq(run("show", "{'name':'raspi'}"), REASON_none);
    cr_expect_str_eq(told("tenant"), "default");
    cr_expect_str_eq(told("kind"), "device");
    cr_expect(json_is_null(json_object_get(last.result, "expires")));
    cr_expect_eq(json_array_size(json_object_get(last.result, "keys")), 2);
    cr_expect_eq(json_array_size(json_object_get(last.result, "endpoints")), 1);
    expect_refused(REASON_not_found, run("show", "{'name':'nobody'}"));
}

Test(registry_names, lists_keep_kinds_and_tenants_apart)
{
    add_device("raspi", ED25519);
    add_client("alice", ED25519_B);
    run("add-tenant", "{'name':'acme'}");
    run_in("acme", "add-client", "{'name':'bob','key':'%s'}", KEY(ED25519_C));
    static const struct {
        const char *tenant, *command;
        size_t n;
    } rows[] = { { "default", "list devices", 1 }, { "default", "list clients", 1 },
                 { "default", "list keys", 2 },    { "acme", "list devices", 0 },
                 { "acme", "list clients", 1 },    { "acme", "list keys", 1 },
                 { "acme", "list endpoints", 0 },  { "acme", "list tenants", 2 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_assert_eq(run_in(rows[i].tenant, rows[i].command, "{}"), REASON_none);
        cr_expect_eq(json_array_size(last.result), rows[i].n, "%s in %s", rows[i].command, rows[i].tenant);
    }
}
