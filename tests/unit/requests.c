#include "requests.h"

#include "support.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct store *registry;
struct outcome last;

void requests_begin(void)
{
    struct failure failure;
    temp_make();
    registry = store_open(temp_path("relayd.db"), STORE_WRITE, &failure);
    cr_assert_not_null(registry, "%s", failure.text);
}

void requests_end(void)
{
    json_decref(last.result);
    store_close(registry);
    temp_remove();
}

static int run_step(struct request *request)
{
    const struct command_steps *steps = request->command->steps;
    if (steps->scope == SCOPE_TENANT ||
        (steps->scope == SCOPE_ANY && strcmp(request->tenant, COMMAND_ALL_TENANTS) != 0)) {
        request->tenant_id = store_value(registry, SQL_find_tenant, "t", request->tenant);
        cr_assert_gt(request->tenant_id, 0, "there is no tenant %s", request->tenant);
    }
    return steps->store(registry, request);
}

static void keep(struct request *request, int rc)
{
    json_decref(last.result);
    last.failure = request->failure;
    last.result = rc == 0 ? json_incref(request->result) : NULL;
    last.changed = request->changed;
    last.principal_id = request->principal_id;
    last.new_name = request->new_name;
    memcpy(last.old_name, request->old_name, sizeof(last.old_name));
    memcpy(last.endpoint, request->endpoint, sizeof(last.endpoint));
    cr_assert_eq(rc == 0, last.failure.reason == REASON_none, "%s", last.failure.text);
    cr_assert_eq(rc == 0, last.failure.text[0] == '\0', "%s", last.failure.text);
    cr_assert(rc != 0 || last.result != NULL, "done without a result");
    cr_assert(strcmp(status(), "unchanged") != 0 || !last.changed, "unchanged and changed");
}

static enum reason run_json(unsigned roles, const char *tenant, const char *words, const char *format,
                            va_list ap)
{
    char json[65536];
    struct failure failure = { 0 };
    vsnprintf(json, sizeof(json), format, ap);
    for (char *quote = json; (quote = strchr(quote, '\'')) != NULL;)
        *quote = '"';
    json_t *args = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    const struct command *command = command_authorise(words, roles, args, &failure);
    cr_assert_not_null(command, "%s %s: %s", words, json, failure.text);
    struct request *request = request_new(command, roles, tenant, args);

    if (command->steps->changes)
        cr_assert_eq(store_begin(registry), 0);
    int rc = run_step(request);
    if (!command->steps->changes)
        ;
    else if (rc == 0)
        cr_assert_eq(store_commit(registry), 0);
    else
        store_rollback(registry);
    keep(request, rc);
    request_free(request);
    json_decref(args);
    return last.failure.reason;
}

enum reason run(const char *words, const char *args, ...)
{
    va_list ap;
    va_start(ap, args);
    enum reason reason = run_json(ROLE_ADMIN, "default", words, args, ap);
    va_end(ap);
    return reason;
}

enum reason run_in(const char *tenant, const char *words, const char *args, ...)
{
    va_list ap;
    va_start(ap, args);
    enum reason reason = run_json(ROLE_ADMIN, tenant, words, args, ap);
    va_end(ap);
    return reason;
}

enum reason run_self(const char *tenant, const char *words, const char *args, ...)
{
    va_list ap;
    va_start(ap, args);
    enum reason reason = run_json(ROLE_TENANT | ROLE_CLIENT, tenant, words, args, ap);
    va_end(ap);
    return reason;
}

const char *told(const char *key)
{
    const char *text = json_string_value(json_object_get(last.result, key));
    return text != NULL ? text : "";
}

const char *rules_of(const char *name)
{
    static char text[2048];
    size_t i, used = 0;
    json_t *rule;
    cr_assert_eq(run("show", "{'name':'%s'}", name), REASON_none, "%s", last.failure.text);
    text[0] = '\0';
    json_array_foreach(json_object_get(last.result, "rules"), i, rule)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i > 0 ? " " : "",
                                 json_string_value(rule));
    return text;
}

/* As the keeper does it: the row that is there, else a new one. */
static int publish_row(int64_t tenant, const char *name, int64_t port, int64_t id, int64_t time)
{
    int n = store_run(registry, SQL_seen_endpoint, "itiii", tenant, name, port, id, time);
    return n != 0 ? n : store_run(registry, SQL_own_endpoint, "itiii", tenant, name, port, id, time);
}

int seen_in(int64_t tenant, int64_t id, const char *name)
{
    return publish_row(tenant, name, 80, id, 1);
}

void seen(const char *device, const char *name, int64_t port, int64_t time)
{
    struct query *query = store_query(registry, SQL_find_principal, "it", INT64_C(1), device);
    cr_assert_eq(query_next(query), 1, "%s", device);
    int64_t id = query_int(query, 0);
    query_end(query);
    cr_assert_geq(publish_row(1, name, port, id, time), 0);
}

const char *owner_of(const char *name)
{
    static char owner[NAME_SIZE];
    struct query *query = store_query(registry, SQL_get_principal, "ii", INT64_C(1),
                                      store_value(registry, SQL_get_owner, "it", INT64_C(1), name));
    snprintf(owner, sizeof(owner), "%s", query_next(query) > 0 ? query_text(query, 1) : "");
    query_end(query);
    return owner;
}
