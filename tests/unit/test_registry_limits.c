#include "keys.h"
#include "requests.h"

#include <string.h>

static void begin(void)
{
    requests_begin();
    run("add-device", "{'name':'raspi','key':'%s'}", KEY(ED25519));
    run("add-client", "{'name':'alice','key':'%s'}", KEY(ED25519_B));
    run("add-tenant", "{'name':'acme'}");
}

TestSuite(registry_limits, .init = begin, .fini = requests_end);

/* What is stored, as "bridges=5 held=none"; of the tenant if name is NULL. Good until the next run(). */
static const char *stored(const char *tenant, const char *name)
{
    static char text[256];
    size_t i, used = 0;
    json_t *row;
    cr_assert_eq(name != NULL ? run_in(tenant, "show", "{'name':'%s'}", name) : run_in(tenant, "show", "{}"),
                 REASON_none);
    text[0] = '\0';
    json_array_foreach(json_object_get(last.result, "limits"), i, row) {
        const json_t *value = json_object_get(row, "value");
        char number[24] = "none";
        if (json_is_integer(value))
            snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s=%s", i > 0 ? " " : "",
                                 json_string_value(json_object_get(row, "name")), number);
    }
    return text;
}

Test(registry_limits, of_one_client)
{
    expect_done("set", run("limit", "{'principal':'Alice','limit':'bridges','value':'5'}"));
    cr_expect(last.changed);
    cr_expect_gt(last.principal_id, 0);
    cr_expect_str_eq(told("kind"), "client");
    cr_expect_str_eq(told("name"), "alice");
    cr_expect_str_eq(told("limit"), "bridges");
    cr_expect_eq(json_integer_value(json_object_get(last.result, "value")), 5);
    expect_done("unchanged", run("limit", "{'principal':'alice','limit':'bridges','value':'5'}"));
    expect_done("set", run("limit", "{'principal':'alice','limit':'bridges','value':'0'}"));
    expect_done("set", run("limit", "{'principal':'alice','limit':'held','value':'none'}"));
    cr_expect(json_is_null(json_object_get(last.result, "value")));
    expect_done("unchanged", run("limit", "{'principal':'alice','limit':'held','value':'none'}"));
    cr_expect_str_eq(stored("default", "alice"), "bridges=0 held=none");
    cr_expect_str_eq(stored("default", "raspi"), "");
    cr_expect_str_eq(stored("default", NULL), "");
}

Test(registry_limits, of_one_tenant)
{
    expect_done("set", run_in("acme", "limit", "{'limit':'bytes-up','value':'1M'}"));
    cr_expect(last.changed);
    cr_expect_eq(last.principal_id, 0);
    cr_expect_str_eq(told("kind"), "tenant");
    cr_expect_str_eq(told("name"), "acme");
    cr_expect_str_eq(stored("acme", NULL), "bytes-up=1048576");
    cr_expect_str_eq(stored("default", NULL), "");
    run_in("acme", "show", "{}");
    cr_expect_str_eq(told("tenant"), "acme");
    cr_expect_eq(json_integer_value(json_object_get(last.result, "devices")), 0);
}

Test(registry_limits, back_to_the_default)
{
    run("limit", "{'limit':'sessions','value':'7'}");
    run("limit", "{'principal':'raspi','limit':'sessions','value':'8'}");
    expect_done("set", run("limit", "{'limit':'sessions','value':'default'}"));
    cr_expect(last.changed);
    cr_expect_eq(json_integer_value(json_object_get(last.result, "value")), 100000);
    expect_done("unchanged", run("limit", "{'limit':'sessions','value':'default'}"));
    cr_expect_str_eq(stored("default", "raspi"), "sessions=8");
    expect_done("set", run("limit", "{'principal':'raspi','limit':'sessions','value':'default'}"));
    cr_expect_eq(json_integer_value(json_object_get(last.result, "value")), 1000);
}

Test(registry_limits, what_is_refused_says_what_is_right)
{
    expect_refused(REASON_bad_argument, run("limit", "{'limit':'sesions','value':'7'}"));
    cr_expect_not_null(strstr(last.failure.text, "bytes-down"), "%s", last.failure.text);
    expect_refused(REASON_bad_argument, run("limit", "{'limit':'sessions','value':'1k'}"));
    cr_expect_not_null(strstr(last.failure.text, "whole number"), "%s", last.failure.text);
    expect_refused(REASON_bad_argument, run("limit", "{'limit':'bytes-up','value':'0'}"));
    expect_refused(REASON_not_found, run("limit", "{'principal':'bob','limit':'sessions','value':'7'}"));
    expect_refused(REASON_not_found,
                   run_in("acme", "limit", "{'principal':'alice','limit':'sessions','value':'7'}"));
    cr_expect_str_eq(stored("default", NULL), "");
}

Test(registry_limits, only_an_administrator_sets_them)
{
    struct failure failure;
    json_t *args = json_pack("{s:s, s:s}", "limit", "bridges", "value", "none");
    cr_expect_null(command_authorise("limit", ROLE_CLIENT | ROLE_DEVICE, args, &failure));
    cr_expect_eq(failure.reason, REASON_unknown_command);
    json_decref(args);
}
