#include "relayd/registry.h"

#include "relayd/limits.h"
#include "relayd/policy.h"
#include "relayd/pubkey.h"
#include "relayd/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum kind { KIND_DEVICE, KIND_CLIENT };

static const char *const kind_names[] = { "device", "client" };

/* A principal as the database has it. */
struct row {
    int64_t id;
    enum kind kind;
    int64_t expires; /* 0: never */
};

static int store_error(struct store *store, struct request *request)
{
    return store_failed(store, REASON_store_unavailable, &request->failure);
}

/* 1: found; 0: there is none; -1: failure set. */
static int find_principal(struct store *store, struct request *request, const char *name, struct row *row)
{
    struct query *query = store_query(store, SQL_find_principal, "it", request->tenant_id, name);
    int rc = query_next(query);
    if (rc > 0) {
        row->id = query_int(query, 0);
        row->kind = strcmp(query_text(query, 1), "device") == 0 ? KIND_DEVICE : KIND_CLIENT;
        row->expires = query_int(query, 3);
    }
    query_end(query);
    return rc < 0 ? store_error(store, request) : rc;
}

/* Like find_principal(), for a name as the user wrote it; its absence is a failure. *name is the
 * canonical one then. */
static int get_principal(struct store *store, struct request *request, const char *raw, struct row *row,
                         char name[NAME_SIZE])
{
    bool sane = name_canonical(raw, request->tenant, name) == REASON_none;
    int rc = sane ? find_principal(store, request, name, row) : 0;
    if (rc == 0)
        return fail(&request->failure, REASON_not_found,
                    "tenant %s has no device or client called \"%.253s\": see relayctl list devices, clients",
                    request->tenant, raw);
    return rc < 0 ? -1 : 0;
}

static void set_result(struct request *request, json_t *result)
{
    json_decref(request->result);
    request->result = result;
}

static int status_result(struct request *request, const char *status, const char *name)
{
    set_result(request,
               json_pack("{s:s, s:s, s:s}", "status", status, "tenant", request->tenant, "name", name));
    return 0;
}

/* Tells the live step whom the change concerns. */
static void changed(struct request *request, int64_t principal_id)
{
    request->changed = true;
    request->principal_id = principal_id;
}

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
    int64_t id = store_value(store, SQL_find_tenant, "t", name);
    if (id < 0)
        return store_error(store, request);
    if (id == 0 && store_run(store, SQL_add_tenant, "t", name) < 0)
        return store_error(store, request);
    request->changed = id == 0;
    set_result(request, json_pack("{s:s, s:s}", "status", id > 0 ? "unchanged" : "added", "name", name));
    return 0;
}

int registry_remove_tenant(struct store *store, struct request *request)
{
    if (strcmp(request->tenant, "default") == 0)
        return fail(&request->failure, REASON_in_use,
                    "the tenant default is always there: remove what is in it");
    if (store_run(store, SQL_remove_tenant, "i", request->tenant_id) < 0)
        return store_error(store, request);
    changed(request, 0);
    set_result(request, json_pack("{s:s, s:s}", "status", "removed", "name", request->tenant));
    return 0;
}

/* ---- What add-device and add-client are given ---- */

struct addition {
    enum kind kind;
    struct pubkey key;
    char name[NAME_SIZE];
    bool named;       /* --name was given */
    bool rules_given; /* --allow was given */
    struct rules rules;
    int64_t expires; /* 0: never */
};

/* "8h", "2026-12-31" or "2026-12-31T18:00:00Z". */
static int64_t parse_expiry(const char *text)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 7 * 86400 } };
    char *end;
    long long number = strtoll(text, &end, 10);
    if (end > text && number > 0 && number < 1000000 && end[0] != '\0' && end[1] == '\0')
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
            if (*end == units[i].unit)
                return time(NULL) + number * units[i].seconds;
    struct tm tm = { 0 };
    end = strptime(text, "%Y-%m-%d", &tm);
    if (end != NULL && *end != '\0')
        end = strptime(end, "T%H:%M:%SZ", &tm);
    if (end == NULL || *end != '\0')
        return 0;
    int day = tm.tm_mday;
    int64_t when = timegm(&tm); /* makes the 30th of February a day in March */
    return tm.tm_mday == day ? when : 0;
}

static int read_expiry(struct request *request, int64_t *expires)
{
    const char *text = request_arg(request, "expires");
    *expires = 0;
    if (text == NULL)
        return 0;
    *expires = parse_expiry(text);
    if (*expires == 0)
        return fail(&request->failure, REASON_bad_argument,
                    "--expires %.40s: expected a duration such as 8h or 30d, a date such as 2026-12-31, or "
                    "2026-12-31T18:00:00Z",
                    text);
    if (*expires <= time(NULL))
        return fail(&request->failure, REASON_bad_argument, "--expires %.40s: that time has passed", text);
    return 0;
}

static int no_memory(struct request *request)
{
    return fail(&request->failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
}

/* Of which policy has made no rule, as errno tells. */
static int no_rule(struct request *request, const char *text)
{
    if (errno == ENOMEM)
        return no_memory(request);
    return fail(&request->failure, REASON_bad_rule, "\"%.200s\" is not a rule: %s", text,
                reason_sentence(REASON_bad_rule));
}

static int read_rules(struct request *request, struct addition *add)
{
    size_t i;
    json_t *text, *list = json_object_get(request->args, "allow");
    add->rules_given = json_array_size(list) > 0;
    json_array_foreach(list, i, text)
        if (rules_add_new(&add->rules, json_string_value(text)) != 0)
            return no_rule(request, json_string_value(text));
    if (!add->rules_given && add->kind == KIND_CLIENT && rules_add(&add->rules, "*") != 0)
        return no_memory(request);
    return 0;
}

static int read_name(struct request *request, struct addition *add)
{
    const char *name = request_arg(request, "name");
    add->named = name != NULL;
    if (add->named) {
        if (name_canonical(name, request->tenant, add->name) != REASON_none)
            return fail(&request->failure, REASON_bad_name, "\"%.253s\": %s", name,
                        reason_sentence(REASON_bad_name));
    } else if (!name_from_text(add->key.comment, add->name)) {
        snprintf(add->name, sizeof(add->name), "key-%s", add->key.digest);
    }
    if (strcmp(add->name, request->tenant) == 0)
        return fail(&request->failure, REASON_bad_name,
                    "\"%s\" is the tenant's own name: give another with --name", add->name);
    return 0;
}

static void addition_clear(struct addition *add)
{
    pubkey_clear(&add->key);
    rules_clear(&add->rules);
}

static int read_addition(struct request *request, enum kind kind, struct addition *add)
{
    memset(add, 0, sizeof(*add));
    add->kind = kind;
    if (pubkey_parse(request_arg(request, "key"), &add->key, &request->failure) != 0)
        return -1;
    if (read_name(request, add) != 0 || read_rules(request, add) != 0)
        return -1;
    return read_expiry(request, &add->expires);
}

/* ---- Adding ---- */

/* Who has the key in this tenant. 1: found, with key_id; 0: nobody; -1: failure set. */
static int find_key(struct store *store, struct request *request, const char *blob, struct row *row,
                    char name[NAME_SIZE])
{
    struct query *query = store_query(store, SQL_find_key, "it", request->tenant_id, blob);
    int rc = query_next(query);
    if (rc > 0) {
        row->id = query_int(query, 1);
        row->kind = strcmp(query_text(query, 2), "device") == 0 ? KIND_DEVICE : KIND_CLIENT;
        snprintf(name, NAME_SIZE, "%s", query_text(query, 3));
    }
    query_end(query);
    return rc < 0 ? store_error(store, request) : rc;
}

static int key_in_use(struct request *request, const struct row *row, const char *name)
{
    return fail(&request->failure, REASON_in_use,
                "that key belongs to %s %s of tenant %s: use another key, or relayctl remove-%s %s first",
                kind_names[row->kind], name, request->tenant, kind_names[row->kind], name);
}

/* The text of a query's first column, "" if there is no row; -1: failure set. */
static int first_text(struct store *store, struct request *request, struct query *query, char out[NAME_SIZE])
{
    int rc = query_next(query);
    snprintf(out, NAME_SIZE, "%s", rc > 0 ? query_text(query, 0) : "");
    query_end(query);
    return rc < 0 ? store_error(store, request) : 0;
}

/* A device owns its name and all below it, so nobody else may have any of that. */
static int check_device_name(struct store *store, struct request *request, const char *name, int64_t id)
{
    char other[NAME_SIZE];
    struct query *query = store_query(store, SQL_device_in_the_way, "iti", request->tenant_id, name, id);
    if (first_text(store, request, query, other) != 0)
        return -1;
    if (other[0] == '\0') {
        query = store_query(store, SQL_endpoint_in_the_way, "iti", request->tenant_id, name, id);
        if (first_text(store, request, query, other) != 0)
            return -1;
    }
    if (other[0] == '\0')
        return 0;
    return fail(&request->failure, REASON_in_use,
                "the name %s, or one below it, belongs to device %s: choose another name, or free it with "
                "relayctl remove-endpoint",
                name, other);
}

static int add_rules(struct store *store, struct request *request, int64_t id, const struct rules *rules)
{
    for (size_t i = 0; i < rules->n; i++)
        if (store_run(store, SQL_add_rule, "it", id, rule_text(rules->rule[i])) < 0)
            return store_error(store, request);
    return 0;
}

static int add_key(struct store *store, struct request *request, int64_t id, const struct pubkey *key)
{
    if (store_run(store, SQL_add_key, "iitttt", request->tenant_id, id, key->type, key->blob,
                  key->fingerprint, key->comment) < 0)
        return store_error(store, request);
    return 0;
}

static json_t *rules_of(struct store *store, int64_t id)
{
    json_t *rules = json_array();
    struct query *query = store_query(store, SQL_get_rules, "i", id);
    while (query_next(query) > 0)
        json_array_append_new(rules, json_string(query_text(query, 0)));
    query_end(query);
    return rules;
}

/* Adds to the result where else the key lives, when a plain login would go there. */
static int add_home(struct store *store, struct request *request, const struct pubkey *key)
{
    char home[NAME_SIZE];
    struct query *query = store_query(store, SQL_home_of_key, "t", key->blob);
    if (first_text(store, request, query, home) != 0)
        return -1;
    if (strcmp(home, request->tenant) != 0) {
        char note[3 * NAME_SIZE + 80];
        snprintf(note, sizeof(note),
                 "this key's home is tenant %s: to reach tenant %s it must log in as user %s", home,
                 request->tenant, request->tenant);
        json_object_set_new(request->result, "note", json_string(note));
    }
    return 0;
}

static int addition_result(struct store *store, struct request *request, const struct addition *add,
                           const char *status, const char *name, int64_t id)
{
    status_result(request, status, name);
    json_object_set_new(request->result, "kind", json_string(kind_names[add->kind]));
    json_object_set_new(request->result, "fingerprint", json_string(add->key.fingerprint));
    json_object_set_new(request->result, "rules", rules_of(store, id));
    return add_home(store, request, &add->key);
}

static bool rules_equal(const struct rules *given, const json_t *stored)
{
    size_t i;
    json_t *text;
    size_t known = 0;
    json_array_foreach(stored, i, text) {
        bool met = false;
        for (size_t n = 0; n < given->n && !met; n++)
            met = strcmp(rule_text(given->rule[n]), json_string_value(text)) == 0;
        known += met;
    }
    return known == json_array_size(stored) && known == given->n;
}

/* The key is there already: success if what was asked is so, and scripts can repeat themselves. Only
 * an expiry is taken over, for there is no other way to prolong one. */
static int add_again(struct store *store, struct request *request, const struct addition *add,
                     const struct row *owner, const char *name)
{
    struct row row;
    if (owner->kind != add->kind || (add->named && strcmp(name, add->name) != 0))
        return key_in_use(request, owner, name);
    if (find_principal(store, request, name, &row) <= 0)
        return -1;
    json_t *stored = rules_of(store, row.id);
    bool same = !add->rules_given || rules_equal(&add->rules, stored);
    json_decref(stored);
    if (!same)
        return fail(&request->failure, REASON_exists,
                    "%s %s is there with this key, but with other rules: see relayctl show %s, allow, "
                    "disallow",
                    kind_names[add->kind], name, name);
    if (add->expires == 0 || add->expires == row.expires)
        return addition_result(store, request, add, "unchanged", name, row.id);
    if (store_run(store, SQL_set_expiry, "ii", row.id, add->expires) < 0)
        return store_error(store, request);
    changed(request, row.id);
    return addition_result(store, request, add, "updated", name, row.id);
}

static int add_new(struct store *store, struct request *request, const struct addition *add)
{
    struct row row;
    int rc = find_principal(store, request, add->name, &row);
    if (rc != 0)
        return rc < 0
                   ? -1
                   : fail(
                         &request->failure, REASON_exists,
                         "there is a %s called %s with another key: give this one another --name, or add the "
                         "key to it with relayctl add-key %s",
                         kind_names[row.kind], add->name, add->name);
    if (add->kind == KIND_DEVICE && check_device_name(store, request, add->name, 0) != 0)
        return -1;
    if (store_run(store, SQL_add_principal, "itti", request->tenant_id, kind_names[add->kind], add->name,
                  add->expires) < 0)
        return store_error(store, request);
    int64_t id = store_last_id(store);
    if (add_key(store, request, id, &add->key) != 0 || add_rules(store, request, id, &add->rules) != 0)
        return -1;
    changed(request, id);
    request->new_name = add->kind == KIND_DEVICE;
    return addition_result(store, request, add, "added", add->name, id);
}

static int add_principal(struct store *store, struct request *request, enum kind kind)
{
    struct addition add;
    struct row owner;
    char name[NAME_SIZE];
    int rc = read_addition(request, kind, &add);
    if (rc == 0)
        rc = find_key(store, request, add.key.blob, &owner, name);
    if (rc > 0)
        rc = add_again(store, request, &add, &owner, name);
    else if (rc == 0)
        rc = add_new(store, request, &add);
    addition_clear(&add);
    return rc;
}

int registry_add_device(struct store *store, struct request *request)
{
    return add_principal(store, request, KIND_DEVICE);
}

int registry_add_client(struct store *store, struct request *request)
{
    return add_principal(store, request, KIND_CLIENT);
}

int registry_add_key(struct store *store, struct request *request)
{
    struct row row, owner = { 0 };
    struct pubkey key = { 0 };
    char owner_name[NAME_SIZE];
    char name[NAME_SIZE];
    if (get_principal(store, request, request_arg(request, "name"), &row, name) != 0)
        return -1;
    int rc = pubkey_parse(request_arg(request, "key"), &key, &request->failure);
    if (rc == 0)
        rc = find_key(store, request, key.blob, &owner, owner_name);
    if (rc > 0 && owner.id != row.id)
        rc = key_in_use(request, &owner, owner_name);
    const char *status = rc > 0 ? "unchanged" : "added";
    if (rc == 0)
        rc = add_key(store, request, row.id, &key);
    if (rc >= 0) {
        rc = status_result(request, status, name);
        json_object_set_new(request->result, "fingerprint", json_string(key.fingerprint));
    }
    pubkey_clear(&key);
    return rc;
}

/* ---- Removing and changing ---- */

static int remove_principal(struct store *store, struct request *request, enum kind kind)
{
    struct row row;
    char name[NAME_SIZE];
    if (get_principal(store, request, request_arg(request, "name"), &row, name) != 0)
        return -1;
    if (row.kind != kind)
        return fail(&request->failure, REASON_not_found, "%s is a %s: use relayctl remove-%s %s", name,
                    kind_names[row.kind], kind_names[row.kind], name);
    if (store_run(store, SQL_remove_principal, "i", row.id) < 0)
        return store_error(store, request);
    changed(request, row.id);
    return status_result(request, "removed", name);
}

int registry_remove_device(struct store *store, struct request *request)
{
    return remove_principal(store, request, KIND_DEVICE);
}

int registry_remove_client(struct store *store, struct request *request)
{
    return remove_principal(store, request, KIND_CLIENT);
}

int registry_remove_key(struct store *store, struct request *request)
{
    struct row row;
    const char *fingerprint = request_arg(request, "fingerprint");
    char name[NAME_SIZE];
    if (get_principal(store, request, request_arg(request, "name"), &row, name) != 0)
        return -1;
    int n = store_run(store, SQL_remove_key, "it", row.id, fingerprint);
    if (n < 0)
        return store_error(store, request);
    if (n == 0)
        return fail(&request->failure, REASON_not_found,
                    "%s has no key %.80s: relayctl list keys shows the fingerprints", name, fingerprint);
    changed(request, row.id);
    status_result(request, "removed", name);
    json_object_set_new(request->result, "kind", json_string("key"));
    json_object_set_new(request->result, "fingerprint", json_string(fingerprint));
    return 0;
}

int registry_rename(struct store *store, struct request *request)
{
    struct row row, other;
    const char *raw = request_arg(request, "new-name");
    char name[NAME_SIZE], new_name[NAME_SIZE];
    if (get_principal(store, request, request_arg(request, "name"), &row, name) != 0)
        return -1;
    if (name_canonical(raw, request->tenant, new_name) != REASON_none)
        return fail(&request->failure, REASON_bad_name, "\"%.253s\": %s", raw,
                    reason_sentence(REASON_bad_name));
    if (strcmp(new_name, request->tenant) == 0)
        return fail(&request->failure, REASON_bad_name, "\"%s\" is the tenant's own name", new_name);
    if (strcmp(name, new_name) == 0)
        return status_result(request, "unchanged", name);
    int rc = find_principal(store, request, new_name, &other);
    if (rc != 0)
        return rc < 0 ? -1
                      : fail(&request->failure, REASON_exists, "there is a %s called %s already",
                             kind_names[other.kind], new_name);
    if (row.kind == KIND_DEVICE && check_device_name(store, request, new_name, row.id) != 0)
        return -1;
    if (store_run(store, SQL_forget_history, "it", row.id, name) < 0 ||
        store_run(store, SQL_rename_principal, "it", row.id, new_name) < 0)
        return store_error(store, request);
    changed(request, row.id);
    request->new_name = row.kind == KIND_DEVICE;
    memcpy(request->old_name, name, sizeof(name));
    return status_result(request, "renamed", new_name);
}

static int change_rule(struct store *store, struct request *request, enum sql sql, const char *done)
{
    struct row row;
    const char *text = request_arg(request, "rule");
    char name[NAME_SIZE];
    if (get_principal(store, request, request_arg(request, "name"), &row, name) != 0)
        return -1;
    struct rule *rule = rule_new(text);
    if (rule == NULL)
        return no_rule(request, text);
    int n = store_run(store, sql, "it", row.id, rule_text(rule));
    rule_free(rule);
    if (n < 0)
        return store_error(store, request);
    if (n > 0)
        changed(request, row.id);
    status_result(request, n > 0 ? done : "unchanged", name);
    json_object_set_new(request->result, "rules", rules_of(store, row.id));
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
    struct row row = { 0 };
    const char *principal = request_arg(request, "principal"), *wanted = request_arg(request, "limit");
    char name[NAME_SIZE];
    uint64_t value;
    snprintf(name, sizeof(name), "%s", request->tenant);
    if (principal != NULL && get_principal(store, request, principal, &row, name) != 0)
        return -1;
    enum limit limit = limit_find(wanted);
    if (limit == LIMIT_COUNT)
        return fail(&request->failure, REASON_bad_argument, "there is no limit \"%.40s\": known are %s",
                    wanted, limit_names());
    int n = set_limit(store, request, row.id, limit, &value);
    if (n < 0)
        return request->failure.reason == REASON_none ? store_error(store, request) : -1;
    if (n > 0)
        changed(request, row.id);
    status_result(request, n > 0 ? "set" : "unchanged", name);
    json_object_set_new(request->result, "kind",
                        json_string(principal != NULL ? kind_names[row.kind] : "tenant"));
    json_object_set_new(request->result, "limit", json_string(limit_name(limit)));
    json_object_set_new(request->result, "value",
                        value == LIMIT_NONE ? json_null() : json_integer((json_int_t)value));
    return 0;
}

/* ---- Endpoints ---- */

/* The canonical name of an endpoint that somebody owns by having published it. */
static int get_endpoint(struct store *store, struct request *request, char name[NAME_SIZE])
{
    const char *raw = request_arg(request, "name");
    if (name_canonical(raw, request->tenant, name) != REASON_none)
        return fail(&request->failure, REASON_bad_name, "\"%.253s\": %s", raw,
                    reason_sentence(REASON_bad_name));
    int64_t owner = store_value(store, SQL_get_owner, "it", request->tenant_id, name);
    if (owner < 0)
        return store_error(store, request);
    if (owner == 0)
        return fail(
            &request->failure, REASON_not_found,
            "nobody has published the name %s in tenant %s: see relayctl list endpoints (give the name "
            "without its port)",
            name, request->tenant);
    return 0;
}

int registry_remove_endpoint(struct store *store, struct request *request)
{
    char name[NAME_SIZE];
    if (get_endpoint(store, request, name) != 0)
        return -1;
    if (store_run(store, SQL_remove_endpoint, "it", request->tenant_id, name) < 0)
        return store_error(store, request);
    request->changed = true;
    memcpy(request->endpoint, name, sizeof(name));
    return status_result(request, "removed", name);
}

/* A name at or below a device's own is that device's for ever. */
static int check_not_own(struct store *store, struct request *request, const char *name)
{
    struct row row;
    for (const char *at = name; at != NULL; at = name_parent(at)) {
        int rc = find_principal(store, request, at, &row);
        if (rc < 0)
            return -1;
        if (rc > 0 && row.kind == KIND_DEVICE)
            return fail(&request->failure, REASON_in_use, "%s is device %s's own name and cannot be moved",
                        name, at);
    }
    return 0;
}

int registry_move_endpoint(struct store *store, struct request *request)
{
    char name[NAME_SIZE], device[NAME_SIZE];
    struct row row;
    if (get_endpoint(store, request, name) != 0 ||
        get_principal(store, request, request_arg(request, "device"), &row, device) != 0 ||
        check_not_own(store, request, name) != 0)
        return -1;
    if (row.kind != KIND_DEVICE)
        return fail(&request->failure, REASON_bad_argument, "%s is a client: only a device can own a name",
                    device);
    bool same = store_value(store, SQL_get_owner, "it", request->tenant_id, name) == row.id;
    if (store_run(store, SQL_move_endpoint, "iti", request->tenant_id, name, row.id) < 0)
        return store_error(store, request);
    request->changed = !same;
    memcpy(request->endpoint, name, sizeof(name));
    status_result(request, same ? "unchanged" : "moved", name);
    json_object_set_new(request->result, "device", json_string(device));
    return 0;
}

/* ---- Lists ---- */

static int rows_result(struct store *store, struct request *request, json_t *rows)
{
    if (rows == NULL)
        return store_error(store, request);
    set_result(request, rows);
    return 0;
}

int registry_list_tenants(struct store *store, struct request *request)
{
    return rows_result(store, request, store_rows(store, SQL_list_tenants, ""));
}

static int list_principals(struct store *store, struct request *request, enum kind kind)
{
    return rows_result(store, request,
                       store_rows(store, SQL_list_principals, "itt", request->tenant_id, kind_names[kind],
                                  (const char *)NULL));
}

int registry_list_devices(struct store *store, struct request *request)
{
    return list_principals(store, request, KIND_DEVICE);
}

int registry_list_clients(struct store *store, struct request *request)
{
    return list_principals(store, request, KIND_CLIENT);
}

int registry_list_keys(struct store *store, struct request *request)
{
    return rows_result(store, request,
                       store_rows(store, SQL_list_keys, "it", request->tenant_id, (const char *)NULL));
}

int registry_list_endpoints(struct store *store, struct request *request)
{
    return rows_result(store, request,
                       store_rows(store, SQL_list_endpoints, "it", request->tenant_id, (const char *)NULL));
}

/* The limits as they are stored; the live step makes them what is shown. */
static int show_tenant(struct store *store, struct request *request)
{
    json_t *rows = store_rows(store, SQL_show_tenant, "i", request->tenant_id);
    json_t *limits = store_rows(store, SQL_list_limits, "ii", request->tenant_id, INT64_C(0));
    json_t *object = json_incref(json_array_get(rows, 0));
    json_decref(rows);
    if (object == NULL || limits == NULL) {
        json_decref(object);
        json_decref(limits);
        return store_error(store, request);
    }
    json_object_set_new(object, "limits", limits);
    set_result(request, object);
    return 0;
}

int registry_show(struct store *store, struct request *request)
{
    struct row row;
    char name[NAME_SIZE];
    if (request_arg(request, "name") == NULL)
        return show_tenant(store, request);
    if (get_principal(store, request, request_arg(request, "name"), &row, name) != 0)
        return -1;
    json_t *rows = store_rows(store, SQL_list_principals, "itt", request->tenant_id, kind_names[row.kind],
                              name);
    json_t *keys = store_rows(store, SQL_list_keys, "it", request->tenant_id, name);
    json_t *endpoints = store_rows(store, SQL_list_endpoints, "it", request->tenant_id, name);
    json_t *limits = store_rows(store, SQL_list_limits, "ii", request->tenant_id, row.id);
    json_t *object = json_incref(json_array_get(rows, 0));
    json_decref(rows);
    if (object == NULL || keys == NULL || endpoints == NULL || limits == NULL) {
        json_decref(object);
        json_decref(keys);
        json_decref(endpoints);
        json_decref(limits);
        return store_error(store, request);
    }
    request->principal_id = row.id;
    json_object_set_new(object, "tenant", json_string(request->tenant));
    json_object_set_new(object, "keys", keys);
    json_object_set_new(object, "endpoints", endpoints);
    json_object_set_new(object, "limits", limits);
    set_result(request, object);
    return 0;
}

int registry_status(struct store *store, struct request *request)
{
    json_t *tenants = store_rows(store, SQL_list_tenants, "");
    bool readable = tenants != NULL && store_readable();
    set_result(request, json_pack("{s:i, s:s}", "tenants", (int)json_array_size(tenants), "store",
                                  !readable         ? "the database cannot be read"
                                  : store_healthy() ? "ok"
                                                    : "the last change could not be written"));
    json_decref(tenants);
    return 0;
}
