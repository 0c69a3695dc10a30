#include "relayd/trail.h"

#include "relayd/audit.h"
#include "requests.h"
#include "support.h"

#include <stdio.h>
#include <time.h>

/* The trail of a new registry, written and pruned as the keeper does it. */
static struct config config;

static void keep(uint64_t age, unsigned count)
{
    config.event_age = age;
    config.event_count = count;
    trail_configure(&config);
}

static void begin(void)
{
    requests_begin();
    keep(3600, 100000);
}

static void end(void)
{
    trail_end(registry);
    requests_end();
}

TestSuite(trail, .init = begin, .fini = end);

static void happens(int64_t tenant_id, const char *principal, const char *object)
{
    struct audit_event event = { .kind = EVENT_connect,
                                 .tenant_id = tenant_id,
                                 .tenant = tenant_id > 0 ? "default" : "",
                                 .principal_id = 5,
                                 .principal = principal,
                                 .object = object };
    audit(&event);
}

static void happen(int64_t tenant_id, unsigned first, unsigned n)
{
    char object[32];
    struct audit_event event = { .kind = EVENT_command, .tenant_id = tenant_id, .object = object };
    for (unsigned i = 0; i < n; i++) {
        snprintf(object, sizeof(object), "%u", first + i);
        audit(&event);
    }
}

/* As often as it takes until nothing is due at once. */
static void settle(void)
{
    trail_flush(registry);
    do
        trail_serve(registry);
    while (trail_delay() == 0);
}

/* The objects of `events` with these arguments, each with a blank behind it. */
static const char *objects(const char *tenant, const char *args)
{
    static char text[8192];
    size_t i, used = 0;
    json_t *row;
    cr_assert_eq(run_in(tenant, "events", "%s", args), REASON_none, "%s", last.failure.text);
    text[0] = '\0';
    json_array_foreach(last.result, i, row)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s ",
                                 json_string_value(json_object_get(row, "object")));
    return text;
}

static int64_t field(size_t row, const char *key)
{
    return json_integer_value(json_object_get(json_array_get(last.result, row), key));
}

Test(trail, what_happens_is_there_when_it_is_asked_for)
{
    struct audit_event event = { .kind = EVENT_connect,
                                 .reason = REASON_not_reachable,
                                 .cause = REASON_offline,
                                 .tenant_id = 1,
                                 .tenant = "default",
                                 .principal_id = 3,
                                 .principal = "alice",
                                 .address = "192.0.2.1",
                                 .object = "raspi:22",
                                 .peer = "raspi",
                                 .bytes_up = 1,
                                 .bytes_down = 2,
                                 .duration = 3 };
    audit(&event);
    cr_expect_str_eq(objects("default", "{}"), "raspi:22 ");
    const json_t *row = json_array_get(last.result, 0);
    static const char *const texts[][2] = { { "tenant", "default" },    { "principal", "alice" },
                                            { "address", "192.0.2.1" }, { "event", "connect" },
                                            { "peer", "raspi" },        { "reason", "not_reachable" },
                                            { "cause", "offline" } };
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        cr_expect_str_eq(json_string_value(json_object_get(row, texts[i][0])), texts[i][1]);
    cr_expect_eq(field(0, "count"), 1);
    cr_expect_eq(field(0, "bytes_up"), 1);
    cr_expect_eq(field(0, "bytes_down"), 2);
    cr_expect_eq(field(0, "duration"), 3);
}

Test(trail, a_tenant_reads_its_own_and_the_relay_reads_all)
{
    run("add-tenant", "{'name':'acme'}");
    happens(1, "alice", "a:1");
    happens(2, "alice", "b:1");
    happens(AUDIT_RELAY, "", "c");
    happens(AUDIT_STRANGERS, "", "d");
    cr_expect_str_eq(objects("default", "{}"), "a:1 ");
    cr_expect_str_eq(objects("acme", "{}"), "b:1 ");
    cr_expect_str_eq(objects("*", "{}"), "a:1 b:1 c d ");
}

Test(trail, a_tenant_of_an_old_name_reads_nothing_of_its_namesake)
{
    run("add-tenant", "{'name':'acme'}");
    happens(2, "alice", "old:1");
    cr_expect_str_eq(objects("acme", "{}"), "old:1 ");
    run_in("acme", "remove-tenant", "{'tenant':'acme'}");
    run("add-tenant", "{'name':'acme'}");
    cr_expect_str_eq(objects("acme", "{}"), "");
    cr_expect_str_eq(objects("*", "{}"), "old:1 ");
}

Test(trail, pages_end_and_go_on_where_they_should)
{
    happen(1, 0, 10);
    cr_expect_str_eq(objects("default", "{'count':'3'}"), "7 8 9 ");
    cr_expect_str_eq(objects("*", "{'count':'3'}"), "7 8 9 ");
    cr_expect_str_eq(objects("default", "{'after':'0','count':'3'}"), "0 1 2 ");
    char args[64];
    snprintf(args, sizeof(args), "{'after':'%lld','count':'3'}", (long long)field(2, "id"));
    cr_expect_str_eq(objects("default", args), "3 4 5 ");
    cr_expect_str_eq(objects("default", "{'after':'9000000000000'}"), "");
    cr_expect_str_eq(objects("default", "{'since':'1h','count':'2'}"), "0 1 ");
    cr_expect_str_eq(objects("*", "{'since':'2100-01-01'}"), "");
    cr_expect_eq(run("events", "{'count':'1001'}"), REASON_bad_argument);
    cr_expect_eq(run("events", "{'after':'-1'}"), REASON_bad_argument);
    cr_expect_eq(run("events", "{'after':'99999999999999999999'}"), REASON_bad_argument);
    cr_expect_eq(run("events", "{'since':'soon'}"), REASON_bad_argument);
}

Test(trail, a_principal_is_met_at_both_ends)
{
    happens(1, "alice", "a:1");
    happens(1, "bob", "b:1");
    audit(&(struct audit_event){ .kind = EVENT_connect, .tenant_id = 1, .object = "c:1", .peer = "alice" });
    cr_expect_str_eq(objects("default", "{'principal':'alice'}"), "a:1 c:1 ");
    cr_expect_str_eq(objects("default", "{'principal':'alice','count':'1'}"), "c:1 ");
    cr_expect_str_eq(objects("default", "{'principal':'alice','since':'1h'}"), "a:1 c:1 ");
    cr_expect_eq(run_in("*", "events", "{'principal':'alice'}"), REASON_bad_argument);
}

Test(trail, each_tenant_keeps_its_latest_and_nobody_washes_away_anothers)
{
    run("add-tenant", "{'name':'acme'}");
    keep(3600, 5);
    happens(2, "alice", "quiet:1");
    happen(AUDIT_RELAY, 0, 3);
    settle();
    happen(1, 0, 9000);
    settle();
    cr_expect_str_eq(objects("default", "{}"), "8995 8996 8997 8998 8999 ");
    cr_expect_str_eq(objects("acme", "{}"), "quiet:1 ");
    cr_expect_eq(store_value(registry, SQL_tail_all_events, "i", INT64_C(1000)), 1);
    keep(3600, 2);
    settle();
    cr_expect_str_eq(objects("default", "{}"), "8998 8999 ");
    cr_expect_str_eq(objects("*", "{}"), "quiet:1 1 2 8998 8999 ");
}

static void add_row(int64_t tenant_id, int64_t time, const char *object)
{
    cr_assert_eq(store_run(registry, SQL_add_event,
                           "iitittttttt"
                           "iiii",
                           time, tenant_id, "", INT64_C(0), "", "", "login", object, "", "", "", INT64_C(1),
                           INT64_C(0), INT64_C(0), INT64_C(0)),
                 1);
}

Test(trail, ids_of_a_tenant_show_nothing_of_what_others_do)
{
    run("add-tenant", "{'name':'acme'}");
    int64_t now = time(NULL);
    add_row(2, now - 10, "a");
    for (unsigned i = 0; i < 50; i++)
        add_row(1, now - 10, "noise");
    add_row(2, now - 10, "b");
    add_row(2, now - 20, "the clock was set back");
    add_row(2, now, "c");
    objects("acme", "{}");
    cr_expect_eq(field(0, "id"), (now - 10) * 1000);
    cr_expect_eq(field(1, "id"), (now - 10) * 1000 + 1);
    cr_expect_eq(field(2, "id"), (now - 10) * 1000 + 2);
    cr_expect_eq(field(3, "id"), now * 1000);
    char args[64];
    snprintf(args, sizeof(args), "{'after':'%lld'}", (long long)(now - 10) * 1000);
    cr_expect_str_eq(objects("acme", args), "b the clock was set back c ");
    cr_expect_str_eq(objects("acme", "{'since':'15s'}"), "a b c ");
}

Test(trail, what_is_too_old_goes_also_of_tenants_that_are_gone)
{
    int64_t now = time(NULL);
    add_row(1, now - 4000, "old");
    add_row(99, now - 5000, "gone");
    cr_assert_eq(store_begin(registry), 0);
    for (unsigned i = 0; i < 5000; i++) /* more than go in one step */
        add_row(2, now - 6000, "many");
    cr_assert_eq(store_commit(registry), 0);
    add_row(1, now + 100000, "future");
    add_row(99, now - 10, "new");
    settle();
    cr_expect_str_eq(objects("*", "{}"), "future new ");
    keep(5, 100);
    settle();
    cr_expect_str_eq(objects("*", "{}"), "future ");
}

Test(trail, rows_that_somebody_else_has_deleted_are_not_trimmed_for_ever, .timeout = 60)
{
    happen(1, 0, 10);
    settle();
    struct query *query = store_query(registry, SQL_expire_events, "ii", time(NULL) + 100, INT64_C(1000));
    while (query_next(query) > 0)
        continue;
    query_end(query);
    keep(3600, 5);
    settle();
    happen(1, 0, 7);
    settle();
    cr_expect_str_eq(objects("default", "{}"), "2 3 4 5 6 ");
}

Test(trail, a_long_queue_is_written_whole)
{
    happen(1, 0, 10000);
    trail_flush(registry);
    cr_expect_eq(audit_waiting(), 0);
    objects("*", "{'after':'0','count':'1000'}");
    cr_expect_eq(field(999, "id") - field(0, "id"), 999);
    cr_expect_eq(store_value(registry, SQL_tail_all_events, "i", INT64_C(1)) - field(0, "id"), 9999);
}

Test(trail, what_cannot_be_written_waits)
{
    struct failure failure;
    struct store *other = store_open(temp_path("relayd.db"), STORE_WRITE, &failure);
    cr_assert_not_null(other);
    cr_assert_eq(store_begin(other), 0);
    happens(1, "alice", "a:1");
    trail_flush(registry);
    cr_expect(store_healthy(), "the registry is as good as before");
    cr_expect_str_eq(objects("default", "{}"), "");
    cr_expect(trail_waits(), "it is tried again, though nothing else happens");
    happens(1, "alice", "b:1");
    store_rollback(other);
    store_close(other);
    cr_expect_str_eq(objects("default", "{}"), "a:1 b:1 ");
}
