/* What set-endpoint stores, and what takes it away again. */
#include "relayd/registry.h"

#include "relayd/limits.h"

#include "keys.h"
#include "requests.h"
#include "support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void begin(void)
{
    requests_begin();
    cr_assert_eq(run("add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519)), REASON_none);
    cr_assert_eq(run("add-device", "{'name':'other','key':'%s'}", KEY(ED25519_B)), REASON_none);
}

TestSuite(registry_endpoint, .init = begin, .fini = requests_end);

static enum reason set_note(const char *endpoint, const char *note)
{
    return run("set-endpoint", "{'endpoint':'%s','note':'%s'}", endpoint, note);
}

static enum reason set_proxy(const char *endpoint, const char *value)
{
    return run("set-endpoint", "{'endpoint':'%s','proxy-protocol':'%s'}", endpoint, value);
}

/* The row of `list endpoints` as "device note proxy", "" if there is none. */
static const char *listed(const char *name, int port)
{
    static char text[512];
    json_t *rows = store_rows(registry, SQL_list_endpoints, "it", INT64_C(1), (const char *)NULL), *row;
    size_t i;
    cr_assert_not_null(rows);
    text[0] = '\0';
    json_array_foreach(rows, i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0 &&
            json_integer_value(json_object_get(row, "port")) == port) {
            cr_expect_str_eq(text, "", "%s:%d stands there twice", name, port);
            snprintf(text, sizeof(text), "%s|%s|%s", json_string_value(json_object_get(row, "device")),
                     json_string_value(json_object_get(row, "note")),
                     json_is_true(json_object_get(row, "proxy_protocol")) ? "on" : "off");
        }
    json_decref(rows);
    return text;
}

static int64_t count_rows(void)
{
    json_t *rows = store_rows(registry, SQL_get_settings, "i", INT64_C(1));
    int64_t n = (int64_t)json_array_size(rows);
    json_decref(rows);
    return n;
}

Test(registry_endpoint, a_note_and_the_header_are_set_apart)
{
    expect_done("set", set_note("web.raspi:80", "the shop"));
    cr_expect_str_eq(told("name"), "web.raspi:80");
    cr_expect_str_eq(last.endpoint, "web.raspi");
    cr_expect(last.changed);
    expect_done("unchanged", set_note("WEB.raspi.default:80", "the shop"));
    expect_done("set", set_proxy("web.raspi:80", "on"));
    cr_expect_str_eq(told("note"), "the shop");
    cr_expect_str_eq(listed("web.raspi", 80), "raspi|the shop|on");
    expect_done("set", set_note("web.raspi:80", ""));
    cr_expect_str_eq(listed("web.raspi", 80), "raspi||on");
    expect_done("set", set_proxy("web.raspi:80", "off"));
    cr_expect_str_eq(listed("web.raspi", 80), "");
    cr_expect_eq(count_rows(), 0, "what is not set has no row");
    expect_done("unchanged", set_proxy("web.raspi:80", "off"));
}

Test(registry_endpoint, it_stands_beside_what_was_published)
{
    seen("raspi", "raspi", 22, 1000);
    seen("raspi", "shop", 80, 1000);
    expect_done("set", set_note("raspi:22", "a shell"));
    expect_done("set", set_note("shop:80", "sells things"));
    expect_done("set", set_note("shop:443", "sells them safely"));
    cr_expect_str_eq(listed("raspi", 22), "raspi|a shell|off");
    cr_expect_str_eq(listed("shop", 80), "raspi|sells things|off");
    cr_expect_str_eq(listed("shop", 443), "raspi|sells them safely|off");
    cr_expect_str_eq(listed("raspi", 23), "");
}

Test(registry_endpoint, a_name_must_have_an_owner)
{
    expect_refused(REASON_not_found, set_note("shop:80", "whose?"));
    expect_refused(REASON_not_found, set_note("xraspi:80", "whose?"));
    cr_assert_eq(run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519_C)), REASON_none);
    expect_refused(REASON_not_found, set_note("alice:80", "a client owns no name"));
    cr_assert_eq(run("add-tenant", "{'name':'acme'}"), REASON_none);
    cr_expect_eq(run_in("acme", "set-endpoint", "{'endpoint':'raspi:22','note':'of others'}"),
                 REASON_not_found);
}

Test(registry_endpoint, arguments)
{
    expect_refused(REASON_bad_argument, run("set-endpoint", "{'endpoint':'raspi:22'}"));
    expect_refused(REASON_bad_port, set_note("raspi", ""));
    expect_refused(REASON_bad_port, set_note("raspi:", ""));
    expect_refused(REASON_bad_port, set_note("raspi:0", ""));
    expect_refused(REASON_bad_port, set_note("raspi:65536", ""));
    expect_refused(REASON_bad_port, set_note("raspi:+22", ""));
    expect_refused(REASON_bad_port, set_note("raspi:22x", ""));
    expect_refused(REASON_bad_name, set_note(":22", ""));
    expect_refused(REASON_bad_name, set_note("ra spi:22", ""));
    expect_refused(REASON_bad_name,
                   run("set-endpoint", "{'endpoint':'%s.raspi:22','note':'x'}", repeat('a', 400)));
    expect_refused(REASON_bad_argument, set_proxy("raspi:22", "yes"));
    expect_refused(REASON_bad_argument, set_proxy("raspi:22", ""));
}

Test(registry_endpoint, notes_are_one_line_that_can_be_shown)
{
    static const char *const bad[] = { "a\\nb",     "a\\u001b[2J", "\\u007f",   "\\u0085",
                                       "\\u202eab", "\\u2066ab",   "\\u200bab", "\\ufeffab" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_refused(REASON_bad_argument, set_note("raspi:22", bad[i]));
    expect_refused(REASON_bad_argument, set_note("raspi:22", repeat('n', 201)));
    expect_done("set", set_note("raspi:22", repeat('n', 200)));
    expect_done("set", set_note("raspi:22", "Küche, 2. Stock: \\u4e2d\\u6587 \\ud83d\\ude80 ~"));
    cr_expect_str_eq(told("note"), "Küche, 2. Stock: 中文 🚀 ~");
}

Test(registry_endpoint, a_device_has_so_many_and_no_more)
{
    for (int port = 1; port <= 1024; port++)
        cr_assert_eq(run("set-endpoint", "{'endpoint':'raspi:%d','note':'x'}", port), REASON_none);
    expect_refused(REASON_too_many_endpoints, set_note("web.raspi:80", "one more"));
    expect_done("set", set_note("raspi:7", "another"));
    expect_done("set", set_note("other:7", "of another"));
    expect_done("set", set_note("raspi:7", ""));
    expect_done("set", set_note("web.raspi:80", "one more"));
}

Test(registry_endpoint, settings_go_with_the_endpoint)
{
    seen("raspi", "shop", 80, 1000);
    set_note("shop:80", "a");
    set_note("shop:443", "b");
    set_note("x.raspi:80", "c");
    expect_done("removed", run("remove-endpoint", "{'name':'shop'}"));
    cr_expect_str_eq(last.endpoint, "shop");
    expect_done("removed", run("remove-endpoint", "{'name':'x.raspi'}"));
    cr_expect_eq(count_rows(), 0);
    expect_refused(REASON_not_found, run("remove-endpoint", "{'name':'x.raspi'}"));
}

Test(registry_endpoint, settings_stay_when_the_owner_changes)
{
    seen("raspi", "shop", 80, 1000);
    set_note("shop:80", "sells things");
    expect_done("moved", run("move-endpoint", "{'name':'shop','device':'other'}"));
    cr_expect_str_eq(listed("shop", 80), "other|sells things|off");
    expect_done("removed", run("remove-device", "{'name':'raspi'}"));
    cr_expect_eq(count_rows(), 1);
    expect_done("removed", run("remove-device", "{'name':'other'}"));
    cr_expect_eq(count_rows(), 0);
}

Test(registry_endpoint, a_rename_takes_them_along)
{
    seen("raspi", "shop", 80, 1000);
    seen("raspi", "berry", 1, 1000);
    set_note("raspi:22", "a");
    set_note("x.y.raspi:22", "b");
    set_note("shop:80", "c");
    set_note("berry:22", "in the way");
    set_note("other:22", "d");
    expect_done("renamed", run("rename", "{'name':'raspi','new-name':'berry'}"));
    cr_expect_str_eq(listed("berry", 22), "berry|a|off");
    cr_expect_str_eq(listed("x.y.berry", 22), "berry|b|off");
    cr_expect_str_eq(listed("shop", 80), "berry|c|off");
    cr_expect_str_eq(listed("other", 22), "other|d|off");
    cr_expect_eq(count_rows(), 4);
}

Test(registry_endpoint, other_tenants_are_another_world)
{
    run("add-tenant", "{'name':'acme'}");
    cr_assert_eq(run_in("acme", "add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519_C)), REASON_none);
    set_note("raspi:22", "ours");
    cr_expect_eq(run_in("acme", "set-endpoint", "{'endpoint':'raspi:22','note':'theirs'}"), REASON_none);
    cr_expect_eq(run_in("acme", "rename", "{'name':'raspi','new-name':'pi'}"), REASON_none);
    cr_expect_str_eq(listed("raspi", 22), "raspi|ours|off");
    cr_expect_eq(run_in("acme", "remove-tenant", "{'tenant':'acme'}"), REASON_none);
    cr_expect_str_eq(listed("raspi", 22), "raspi|ours|off");
}

Test(registry_endpoint, a_tenant_has_its_bound)
{
    cr_assert_eq(store_begin(registry), 0);
    for (int64_t port = 1; port <= LIMIT_REGISTERED; port++)
        cr_assert_eq(store_run(registry, SQL_set_setting, "itiiti", INT64_C(1), "other", port, INT64_C(2),
                               "x", INT64_C(0)),
                     1);
    cr_assert_eq(store_commit(registry), 0);
    expect_refused(REASON_too_many_registered,
                   run_self("default", "set-endpoint", "{'endpoint':'raspi:1','note':'x'}"));
    expect_done("set", run_self("default", "set-endpoint", "{'endpoint':'other:1','note':''}"));
    expect_done("set", run_self("default", "set-endpoint", "{'endpoint':'raspi:1','note':'x'}"));
    expect_done("set", run("set-endpoint", "{'endpoint':'raspi:2','note':'the relay is free'}"));
}
