#include "relayd/registry.h"

#include "relayd/enrol.h"
#include "relayd/entry.h"
#include "relayd/limits.h"
#include "relayd/policy.h"

#include <stdio.h>
#include <string.h>

/* ---- Tenants ---- */

int registry_find_tenant(struct store *store, struct request *request)
{
    (void)store; /* the keeper has looked the tenant up */
    (void)request;
    return 0;
}

int registry_add_tenant(struct store *store, struct request *request)
{
    const char *name = request_arg(request, "name");
    if (!name_valid_tenant(name))
        return fail(
            &request->failure, REASON_bad_name,
            "\"%.253s\" cannot be a tenant's name: use one label of lower-case letters, digits, '-', '_'",
            name);
    if (strcmp(name, ENROL_USER) == 0)
        return fail(&request->failure, REASON_bad_name,
                    "\"%s\" cannot be a tenant's name: as a user name it asks to be enrolled", name);
    int64_t id = store_value(store, SQL_find_tenant, "t", name);
    if (id < 0)
        return entry_failed(store, request);
    if (id == 0 && store_run(store, SQL_add_tenant, "t", name) < 0)
        return entry_failed(store, request);
    request->changed = id == 0;
    request_result(request, json_pack("{s:s, s:s}", "status", id > 0 ? "unchanged" : "added", "name", name));
    return 0;
}

int registry_remove_tenant(struct store *store, struct request *request)
{
    if (strcmp(request->tenant, "default") == 0)
        return fail(&request->failure, REASON_in_use,
                    "the tenant default is always there: remove what is in it");
    if (store_run(store, SQL_remove_tenant, "i", request->tenant_id) < 0)
        return entry_failed(store, request);
    request_changed(request, 0);
    request_result(request, json_pack("{s:s, s:s}", "status", "removed", "name", request->tenant));
    return 0;
}

/* ---- Removing and changing ---- */

static int remove_principal(struct store *store, struct request *request, enum entry_kind kind)
{
    struct entry entry;
    char name[NAME_SIZE];
    if (entry_get(store, request, request_arg(request, "name"), &entry, name) != 0)
        return -1;
    if (entry.kind != kind)
        return fail(&request->failure, REASON_not_found, "%s is a %s: use relayctl remove-%s %s", name,
                    entry_kinds[entry.kind], entry_kinds[entry.kind], name);
    if (store_run(store, SQL_remove_principal, "i", entry.id) < 0)
        return entry_failed(store, request);
    request_changed(request, entry.id);
    return request_done(request, "removed", name);
}

int registry_remove_device(struct store *store, struct request *request)
{
    return remove_principal(store, request, ENTRY_DEVICE);
}

int registry_remove_client(struct store *store, struct request *request)
{
    return remove_principal(store, request, ENTRY_CLIENT);
}

int registry_remove_key(struct store *store, struct request *request)
{
    struct entry entry;
    const char *fingerprint = request_arg(request, "fingerprint");
    char name[NAME_SIZE];
    if (entry_get(store, request, request_arg(request, "name"), &entry, name) != 0)
        return -1;
    request->key_id = store_value(store, SQL_remove_key, "it", entry.id, fingerprint);
    if (request->key_id < 0)
        return entry_failed(store, request);
    if (request->key_id == 0)
        return fail(&request->failure, REASON_not_found,
                    "%s has no key %.80s: relayctl list keys shows the fingerprints", name, fingerprint);
    request_changed(request, entry.id);
    request_done(request, "removed", name);
    json_object_set_new(request->result, "kind", json_string("key"));
    json_object_set_new(request->result, "fingerprint", json_string(fingerprint));
    return 0;
}

int registry_remove_pending(struct store *store, struct request *request)
{
    const char *fingerprint = request_arg(request, "fingerprint");
    int n = store_run(store, SQL_remove_pending, "it", request->tenant_id, fingerprint);
    if (n < 0)
        return entry_failed(store, request);
    if (n == 0 && strcmp(fingerprint, "all") != 0)
        return fail(&request->failure, REASON_not_found,
                    "no key %.80s waits in tenant %s: see relayctl list pending", fingerprint,
                    request->tenant);
    request->changed = n > 0;
    request_result(request,
                   json_pack("{s:s, s:s, s:s, s:s}", "status", n > 0 ? "removed" : "unchanged", "tenant",
                             request->tenant, "kind", "pending key", "fingerprint", fingerprint));
    return 0;
}

int registry_rename(struct store *store, struct request *request)
{
    struct entry entry, other;
    const char *raw = request_arg(request, "new-name");
    char name[NAME_SIZE], new_name[NAME_SIZE];
    if (entry_get(store, request, request_arg(request, "name"), &entry, name) != 0)
        return -1;
    if (name_canonical(raw, request->tenant, new_name) != REASON_none)
        return fail(&request->failure, REASON_bad_name, "\"%.253s\": %s", raw,
                    reason_sentence(REASON_bad_name));
    if (strcmp(new_name, request->tenant) == 0)
        return fail(&request->failure, REASON_bad_name, "\"%s\" is the tenant's own name", new_name);
    if (strcmp(name, new_name) == 0)
        return request_done(request, "unchanged", name);
    int rc = entry_find(store, request, new_name, &other);
    if (rc != 0)
        return rc < 0 ? -1
                      : fail(&request->failure, REASON_exists, "there is a %s called %s already",
                             entry_kinds[other.kind], new_name);
    if (entry.kind == ENTRY_DEVICE && entry_check_name(store, request, new_name, entry.id) != 0)
        return -1;
    if (store_run(store, SQL_forget_history, "it", entry.id, name) < 0 ||
        store_run(store, SQL_rename_settings, "itt", entry.id, name, new_name) < 0 ||
        store_run(store, SQL_rename_principal, "it", entry.id, new_name) < 0)
        return entry_failed(store, request);
    request_changed(request, entry.id);
    request->new_name = entry.kind == ENTRY_DEVICE;
    memcpy(request->old_name, name, sizeof(name));
    return request_done(request, "renamed", new_name);
}

static int change_rule(struct store *store, struct request *request, enum sql sql, const char *done)
{
    struct entry entry;
    const char *text = request_arg(request, "rule");
    char name[NAME_SIZE];
    if (entry_get(store, request, request_arg(request, "name"), &entry, name) != 0)
        return -1;
    if (sql == SQL_add_rule && entry_check_room(store, request, SQL_count_rules, entry.id, LIMIT_RULES) != 0)
        return -1;
    struct rule *rule = rule_new(text);
    if (rule == NULL)
        return entry_no_rule(request, text);
    int n = store_run(store, sql, "it", entry.id, rule_text(rule));
    json_t *asked = json_string(rule_text(rule));
    rule_free(rule);
    if (n < 0) {
        json_decref(asked);
        return entry_failed(store, request);
    }
    if (n > 0)
        request_changed(request, entry.id);
    request_done(request, n > 0 ? done : "unchanged", name);
    json_object_set_new(request->result, "rule", asked);
    json_object_set_new(request->result, "rules", entry_rules(store, entry.id));
    return 0;
}

int registry_allow(struct store *store, struct request *request)
{
    return change_rule(store, request, SQL_add_rule, "allowed");
}

int registry_disallow(struct store *store, struct request *request)
{
    return change_rule(store, request, SQL_remove_rule, "disallowed");
}

/* ---- Administrators of a tenant ---- */

int registry_set_admin(struct store *store, struct request *request)
{
    struct entry entry;
    const char *state = request_arg(request, "state");
    char name[NAME_SIZE];
    bool on = strcmp(state, "on") == 0;
    if (!on && strcmp(state, "off") != 0)
        return fail(&request->failure, REASON_bad_argument, "\"%.40s\": expected on or off", state);
    if (entry_get(store, request, request_arg(request, "name"), &entry, name) != 0)
        return -1;
    if (entry.kind != ENTRY_CLIENT)
        return fail(&request->failure, REASON_bad_argument,
                    "%s is a device: only a client can be an administrator", name);
    int n = store_run(store, SQL_set_admin, "ii", entry.id, (int64_t)on);
    if (n < 0)
        return entry_failed(store, request);
    if (n > 0)
        request_changed(request, entry.id);
    request_done(request, n > 0 ? "set" : "unchanged", name);
    json_object_set_new(request->result, "kind", json_string(entry_kinds[entry.kind]));
    json_object_set_new(request->result, "admin", json_boolean(on));
    return 0;
}

/* ---- Limits ---- */

/* Returns how many rows changed, -1 on error. *value is what holds from now on. */
static int set_limit(struct store *store, struct request *request, int64_t principal_id, enum limit limit,
                     uint64_t *value)
{
    const char *text = request_arg(request, "value");
    if (strcmp(text, "default") == 0) {
        const struct limits *defaults = principal_id == 0 ? &limits_of_tenant : &limits_of_principal;
        *value = defaults->value[limit];
        return store_run(store, SQL_unset_limit, "iit", request->tenant_id, principal_id, limit_name(limit));
    }
    const char *expected = limit_parse(limit, text, value);
    if (expected != NULL)
        return fail(&request->failure, REASON_bad_argument, "%s \"%.40s\": expected %s", limit_name(limit),
                    text, expected);
    return store_run(store, SQL_set_limit, "iiti", request->tenant_id, principal_id, limit_name(limit),
                     (int64_t)*value);
}

int registry_limit(struct store *store, struct request *request)
{
    struct entry entry = { 0 };
    const char *principal = request_arg(request, "principal"), *wanted = request_arg(request, "limit");
    char name[NAME_SIZE];
    uint64_t value;
    snprintf(name, sizeof(name), "%s", request->tenant);
    if (principal != NULL && entry_get(store, request, principal, &entry, name) != 0)
        return -1;
    enum limit limit = limit_find(wanted);
    if (limit == LIMIT_COUNT)
        return fail(&request->failure, REASON_bad_argument, "there is no limit \"%.40s\": known are %s",
                    wanted, limit_names());
    int n = set_limit(store, request, entry.id, limit, &value);
    if (n < 0)
        return request->failure.reason == REASON_none ? entry_failed(store, request) : -1;
    if (n > 0)
        request_changed(request, entry.id);
    request_done(request, n > 0 ? "set" : "unchanged", name);
    json_object_set_new(request->result, "kind",
                        json_string(principal != NULL ? entry_kinds[entry.kind] : "tenant"));
    json_object_set_new(request->result, "limit", json_string(limit_name(limit)));
    json_object_set_new(request->result, "value",
                        value == LIMIT_NONE ? json_null() : json_integer((json_int_t)value));
    return 0;
}
