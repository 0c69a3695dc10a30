#include "relayd/registry.h"

#include "relayd/entry.h"
#include "relayd/policy.h"
#include "relayd/pubkey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- What add-device and add-client are given ---- */

struct addition {
    enum entry_kind kind;
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

static int read_rules(struct request *request, struct addition *add)
{
    size_t i;
    json_t *text, *list = json_object_get(request->args, "allow");
    add->rules_given = json_array_size(list) > 0;
    json_array_foreach(list, i, text)
        if (rules_add_new(&add->rules, json_string_value(text)) != 0)
            return entry_no_rule(request, json_string_value(text));
    if (!add->rules_given && add->kind == ENTRY_CLIENT && rules_add(&add->rules, "*") != 0)
        return entry_no_memory(request);
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

static int read_addition(struct request *request, enum entry_kind kind, struct addition *add)
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
static int find_key(struct store *store, struct request *request, const char *blob, struct entry *entry,
                    char name[NAME_SIZE])
{
    struct query *query = store_query(store, SQL_find_key, "it", request->tenant_id, blob);
    int rc = query_next(query);
    if (rc > 0) {
        entry->id = query_int(query, 1);
        entry->kind = strcmp(query_text(query, 2), "device") == 0 ? ENTRY_DEVICE : ENTRY_CLIENT;
        snprintf(name, NAME_SIZE, "%s", query_text(query, 3));
    }
    query_end(query);
    return rc < 0 ? entry_failed(store, request) : rc;
}

static int key_in_use(struct request *request, const struct entry *entry, const char *name)
{
    return fail(&request->failure, REASON_in_use,
                "that key belongs to %s %s of tenant %s: use another key, or relayctl remove-%s %s first",
                entry_kinds[entry->kind], name, request->tenant, entry_kinds[entry->kind], name);
}

static int add_rules(struct store *store, struct request *request, int64_t id, const struct rules *rules)
{
    for (size_t i = 0; i < rules->n; i++)
        if (store_run(store, SQL_add_rule, "it", id, rule_text(rules->rule[i])) < 0)
            return entry_failed(store, request);
    return 0;
}

static int add_key(struct store *store, struct request *request, int64_t id, const struct pubkey *key)
{
    if (store_run(store, SQL_add_key, "iitttt", request->tenant_id, id, key->type, key->blob,
                  key->fingerprint, key->comment) < 0)
        return entry_failed(store, request);
    return 0;
}

/* Adds to the result where else the key lives, when a plain login would go there. */
static int add_home(struct store *store, struct request *request, const struct pubkey *key)
{
    char home[NAME_SIZE];
    struct query *query = store_query(store, SQL_home_of_key, "t", key->blob);
    if (entry_text(store, request, query, home) != 0)
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
    request_done(request, status, name);
    json_object_set_new(request->result, "kind", json_string(entry_kinds[add->kind]));
    json_object_set_new(request->result, "fingerprint", json_string(add->key.fingerprint));
    json_object_set_new(request->result, "rules", entry_rules(store, id));
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
                     const struct entry *owner, const char *name)
{
    struct entry entry;
    if (owner->kind != add->kind || (add->named && strcmp(name, add->name) != 0))
        return key_in_use(request, owner, name);
    if (entry_find(store, request, name, &entry) <= 0)
        return -1;
    json_t *stored = entry_rules(store, entry.id);
    bool same = !add->rules_given || rules_equal(&add->rules, stored);
    json_decref(stored);
    if (!same)
        return fail(&request->failure, REASON_exists,
                    "%s %s is there with this key, but with other rules: see relayctl show %s, allow, "
                    "disallow",
                    entry_kinds[add->kind], name, name);
    if (add->expires == 0 || add->expires == entry.expires)
        return addition_result(store, request, add, "unchanged", name, entry.id);
    if (store_run(store, SQL_set_expiry, "ii", entry.id, add->expires) < 0)
        return entry_failed(store, request);
    request_changed(request, entry.id);
    return addition_result(store, request, add, "updated", name, entry.id);
}

static int add_new(struct store *store, struct request *request, const struct addition *add)
{
    struct entry entry;
    int rc = entry_find(store, request, add->name, &entry);
    if (rc != 0)
        return rc < 0
                   ? -1
                   : fail(
                         &request->failure, REASON_exists,
                         "there is a %s called %s with another key: give this one another --name, or add the "
                         "key to it with relayctl add-key %s",
                         entry_kinds[entry.kind], add->name, add->name);
    if (add->kind == ENTRY_DEVICE && entry_check_name(store, request, add->name, 0) != 0)
        return -1;
    if (store_run(store, SQL_add_principal, "itti", request->tenant_id, entry_kinds[add->kind], add->name,
                  add->expires) < 0)
        return entry_failed(store, request);
    int64_t id = store_last_id(store);
    if (add_key(store, request, id, &add->key) != 0 || add_rules(store, request, id, &add->rules) != 0)
        return -1;
    request_changed(request, id);
    request->new_name = add->kind == ENTRY_DEVICE;
    return addition_result(store, request, add, "added", add->name, id);
}

static int add_principal(struct store *store, struct request *request, enum entry_kind kind)
{
    struct addition add;
    struct entry owner;
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
    return add_principal(store, request, ENTRY_DEVICE);
}

int registry_add_client(struct store *store, struct request *request)
{
    return add_principal(store, request, ENTRY_CLIENT);
}

int registry_add_key(struct store *store, struct request *request)
{
    struct entry entry, owner = { 0 };
    struct pubkey key = { 0 };
    char owner_name[NAME_SIZE];
    char name[NAME_SIZE];
    if (entry_get(store, request, request_arg(request, "name"), &entry, name) != 0)
        return -1;
    int rc = pubkey_parse(request_arg(request, "key"), &key, &request->failure);
    if (rc == 0)
        rc = find_key(store, request, key.blob, &owner, owner_name);
    if (rc > 0 && owner.id != entry.id)
        rc = key_in_use(request, &owner, owner_name);
    const char *status = rc > 0 ? "unchanged" : "added";
    if (rc == 0)
        rc = add_key(store, request, entry.id, &key);
    if (rc >= 0) {
        rc = request_done(request, status, name);
        json_object_set_new(request->result, "fingerprint", json_string(key.fingerprint));
    }
    pubkey_clear(&key);
    return rc;
}
