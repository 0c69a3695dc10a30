#include "relayd/registry.h"

#include "relayd/enrol.h"
#include "relayd/entry.h"
#include "relayd/limits.h"
#include "relayd/policy.h"
#include "relayd/pubkey.h"
#include "relayd/when.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PENDING_LINE_MAX 16384 /* a type and a key: of 12,000 bytes at most */

/* ---- What add-device and add-client are given ---- */

struct addition {
    enum entry_kind kind;
    struct pubkey key;
    char name[NAME_SIZE]; /* the one that is there already, once it is found */
    bool named;           /* --name was given */
    bool rules_given;     /* --allow was given */
    struct rules rules;
    int64_t expires; /* 0: never */
    bool admin;      /* --admin was given */

    /* Once it is stored. */
    enum { ADDED, UNCHANGED, UPDATED } outcome;
    int64_t id;
};

static const char *const outcomes[] = { "added", "unchanged", "updated" };

static const char *text_of(const json_t *args, const char *name)
{
    return json_string_value(json_object_get(args, name));
}

static int read_expiry(struct request *request, const json_t *args, int64_t *expires)
{
    const char *text = text_of(args, "expires");
    *expires = 0;
    if (text == NULL)
        return 0;
    *expires = when_parse(text, time(NULL), 1);
    if (*expires == 0)
        return fail(&request->failure, REASON_bad_argument, "--expires %.40s: expected %s", text,
                    when_expected);
    if (*expires <= time(NULL))
        return fail(&request->failure, REASON_bad_argument, "--expires %.40s: that time has passed", text);
    return 0;
}

static int read_rules(struct request *request, const json_t *args, struct addition *add)
{
    size_t i;
    json_t *text, *list = json_object_get(args, "allow");
    add->rules_given = json_array_size(list) > 0;
    json_array_foreach(list, i, text)
        if (rules_add_new(&add->rules, json_string_value(text)) != 0)
            return entry_no_rule(request, json_string_value(text));
    if (!add->rules_given && add->kind == ENTRY_CLIENT && rules_add(&add->rules, "*") != 0)
        return entry_no_memory(request);
    return 0;
}

static int read_name(struct request *request, const json_t *args, struct addition *add)
{
    const char *name = text_of(args, "name");
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

/* The key that waits under that fingerprint, or is registered by now. */
static int read_pending(struct store *store, struct request *request, const char *fingerprint,
                        struct pubkey *key)
{
    char line[PENDING_LINE_MAX];
    struct query *query = store_query(store, SQL_get_pending, "it", request->tenant_id, fingerprint);
    int rc = query_next(query);
    if (rc > 0)
        snprintf(line, sizeof(line), "%s %s", query_text(query, 0), query_text(query, 1));
    query_end(query);
    if (rc < 0)
        return entry_failed(store, request);
    if (rc > 0)
        return pubkey_parse(line, key, &request->failure);
    return fail(
        &request->failure, REASON_not_found,
        "no key %.80s waits in tenant %s: see relayctl list pending. A key waits for 7 days after its "
        "last login as " ENROL_USER,
        fingerprint, request->tenant);
}

static int read_key(struct store *store, struct request *request, const json_t *args, struct pubkey *key)
{
    const char *pending = text_of(args, "pending");
    return pending != NULL ? read_pending(store, request, pending, key)
                           : pubkey_parse(text_of(args, "key"), key, &request->failure);
}

static int read_addition(struct store *store, struct request *request, const json_t *args,
                         enum entry_kind kind, struct addition *add)
{
    memset(add, 0, sizeof(*add));
    add->kind = kind;
    if (read_key(store, request, args, &add->key) != 0)
        return -1;
    if (read_name(request, args, add) != 0 || read_rules(request, args, add) != 0)
        return -1;
    add->admin = json_is_true(json_object_get(args, "admin"));
    return read_expiry(request, args, &add->expires);
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

/* A key that a tenant's administrator adds has no home: nobody can disturb another tenant's key by
 * registering it too. */
static int add_key(struct store *store, struct request *request, int64_t id, const struct pubkey *key)
{
    if (store_run(store, SQL_add_key, "iitttti", request->tenant_id, id, key->type, key->blob,
                  key->fingerprint, key->comment, (int64_t)request_by_relay(request)) < 0 ||
        store_run(store, SQL_approve_pending, "it", request->tenant_id, key->blob) < 0)
        return entry_failed(store, request);
    return 0;
}

/* Adds to the result as whom the key must log in, if not anybody will do. A tenant's administrator is told so
 * of every key: else the note would show whether another tenant has it. */
static int add_note(struct store *store, struct request *request, const struct pubkey *key)
{
    char home[NAME_SIZE], note[3 * NAME_SIZE + 80];
    const char *tenant = request->tenant;
    struct query *query = store_query(store, SQL_home_of_key, "t", key->blob);
    if (entry_text(store, request, query, home) != 0)
        return -1;
    if (!request_by_relay(request))
        snprintf(note, sizeof(note), "this key must log in as user %s", tenant);
    else if (home[0] == '\0')
        snprintf(note, sizeof(note), "this key has no home: it must log in as user %s", tenant);
    else if (strcmp(home, tenant) != 0)
        snprintf(note, sizeof(note),
                 "this key's home is tenant %s: to reach tenant %s it must log in as user %s", home, tenant,
                 tenant);
    else
        return 0;
    json_object_set_new(request->result, "note", json_string(note));
    return 0;
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
static int add_again(struct store *store, struct request *request, struct addition *add,
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
    if (add->admin && !entry.admin)
        return fail(&request->failure, REASON_exists,
                    "client %s is there with this key, but is no administrator: see relayctl set-admin",
                    name);
    add->id = entry.id;
    snprintf(add->name, sizeof(add->name), "%s", name);
    bool moves = add->expires != 0 && add->expires != entry.expires;
    add->outcome = moves ? UPDATED : UNCHANGED;
    if (moves && store_run(store, SQL_set_expiry, "ii", entry.id, add->expires) < 0)
        return entry_failed(store, request);
    return 0;
}

/* Whether the name is free of what others own is checked behind. */
static int add_new(struct store *store, struct request *request, struct addition *add)
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
    if (entry_check_room(store, request, SQL_count_principals, request->tenant_id, LIMIT_REGISTERED) != 0)
        return -1;
    if (store_run(store, SQL_add_principal, "itti", request->tenant_id, entry_kinds[add->kind], add->name,
                  add->expires) < 0)
        return entry_failed(store, request);
    add->outcome = ADDED;
    add->id = store_last_id(store);
    if (add_key(store, request, add->id, &add->key) != 0)
        return -1;
    if (add->admin && store_run(store, SQL_set_admin, "ii", add->id, INT64_C(1)) < 0)
        return entry_failed(store, request);
    return add_rules(store, request, add->id, &add->rules);
}

static int add_either(struct store *store, struct request *request, struct addition *add)
{
    struct entry owner;
    char name[NAME_SIZE];
    int rc = find_key(store, request, add->key.blob, &owner, name);
    return rc < 0 ? -1 : rc > 0 ? add_again(store, request, add, &owner, name) : add_new(store, request, add);
}

/* ---- One of them ---- */

static int add_one(struct store *store, struct request *request, struct addition *add)
{
    if (add_either(store, request, add) != 0)
        return -1;
    bool new_name = add->outcome == ADDED && add->kind == ENTRY_DEVICE;
    if (new_name && entry_check_name(store, request, add->name, add->id) != 0)
        return -1;
    if (add->outcome != UNCHANGED)
        request_changed(request, add->id);
    request->new_name = new_name;
    request_done(request, outcomes[add->outcome], add->name);
    json_object_set_new(request->result, "kind", json_string(entry_kinds[add->kind]));
    json_object_set_new(request->result, "fingerprint", json_string(add->key.fingerprint));
    json_object_set_new(request->result, "rules", entry_rules(store, add->id));
    if (add->expires != 0) {
        char expires[WHEN_SIZE];
        when_write(add->expires, expires);
        json_object_set_new(request->result, "expires", json_string(expires));
    }
    if (add->admin)
        json_object_set_new(request->result, "admin", json_true());
    return add_note(store, request, &add->key);
}

/* ---- A batch ---- */

/* The arguments of one line: a JSON object, or a line of authorized_keys. NULL with failure set. */
static json_t *line_args(struct request *request, const char *line)
{
    struct usage usage;
    json_error_t why = { .text = "out of memory" };
    char error[256] = "";
    json_t *args = line[0] == '{' ? json_loads(line, JSON_REJECT_DUPLICATES, &why)
                                  : json_pack("{s:s}", "key", line);
    usage_parse("[--name NAME] [--expires WHEN] [--allow RULE]... KEY...", &usage);
    if (args != NULL && usage_check(&usage, args, error, sizeof(error)) == 0)
        return args;
    fail(&request->failure, REASON_bad_argument, "%s", args != NULL ? error : why.text);
    json_decref(args);
    return NULL;
}

/* What the line does not say, the options do. */
static int add_defaults(struct request *request, json_t *args)
{
    static const char *const names[] = { "expires", "allow" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        json_t *value = json_object_get(request->args, names[i]);
        if (value != NULL && json_object_get(args, names[i]) == NULL &&
            json_object_set(args, names[i], value) != 0)
            return entry_no_memory(request);
    }
    return 0;
}

static int add_line(struct store *store, struct request *request, enum entry_kind kind, const char *line,
                    int64_t *changed, size_t counts[])
{
    struct addition add = { 0 };
    json_t *args = line_args(request, line);
    if (args == NULL)
        return -1;
    int rc = add_defaults(request, args);
    if (rc == 0)
        rc = read_addition(store, request, args, kind, &add);
    if (rc == 0)
        rc = add_either(store, request, &add);
    if (rc == 0)
        counts[add.outcome]++;
    if (rc == 0 && add.outcome != UNCHANGED)
        *changed = add.id;
    addition_clear(&add);
    json_decref(args);
    return rc;
}

/* "line 7: ..."; line: from 0 on. */
static int at_line(struct request *request, size_t line)
{
    char text[sizeof(request->failure.text)];
    memcpy(text, request->failure.text, sizeof(text));
    return fail(&request->failure, request->failure.reason, "line %zu: %s", line + 1, text);
}

/* The same as entry_check_name() of all devices with an id above last: one by one that would take a look at
 * all names for each of them. */
static int check_names(struct store *store, struct request *request, int64_t last)
{
    char name[NAME_SIZE], other[NAME_SIZE];
    struct query *query = store_query(store, SQL_batch_in_the_way, "ii", request->tenant_id, last);
    int rc = query_next(query);
    int64_t id = rc > 0 ? query_int(query, 0) : 0;
    if (rc > 0) {
        snprintf(name, sizeof(name), "%s", query_text(query, 1));
        snprintf(other, sizeof(other), "%s", query_text(query, 2));
    }
    query_end(query);
    if (rc <= 0)
        return rc == 0 ? 0 : entry_failed(store, request);
    size_t line = 0;
    while (line + 1 < request->nbatch && request->batch[line] != id)
        line++;
    entry_name_taken(request, name, other);
    return at_line(request, line);
}

static int add_lines(struct store *store, struct request *request, enum entry_kind kind, const json_t *lines,
                     size_t counts[])
{
    size_t i;
    json_t *line;
    json_array_foreach(lines, i, line) {
        const char *text = json_string_value(line) + strspn(json_string_value(line), " \t\r");
        if (*text == '\0' || *text == '#')
            continue;
        if (add_line(store, request, kind, text, &request->batch[i], counts) != 0)
            return at_line(request, i);
    }
    return 0;
}

static int add_batch(struct store *store, struct request *request, enum entry_kind kind, const json_t *lines)
{
    size_t counts[] = { 0, 0, 0 };
    int64_t last = store_value(store, SQL_last_principal, "");
    if (last < 0)
        return entry_failed(store, request);
    if (request_batch(request, json_array_size(lines)) != 0 ||
        add_lines(store, request, kind, lines, counts) != 0)
        return -1;
    request->changed = counts[ADDED] + counts[UPDATED] > 0;
    request->new_name = kind == ENTRY_DEVICE && counts[ADDED] > 0;
    if (request->new_name && check_names(store, request, last) != 0)
        return -1;
    request_result(request,
                   json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "status",
                             request->changed ? "added" : "unchanged", "tenant", request->tenant, "kind",
                             entry_kinds[kind], "added", (json_int_t)counts[ADDED], "unchanged",
                             (json_int_t)counts[UNCHANGED], "updated", (json_int_t)counts[UPDATED]));
    return 0;
}

/* ---- The commands ---- */

static int add_principal(struct store *store, struct request *request, enum entry_kind kind)
{
    struct addition add;
    const json_t *batch = json_object_get(request->args, "batch");
    bool single = request_arg(request, "name") != NULL || request_flag(request, "admin");
    if (batch != NULL && single)
        return fail(&request->failure, REASON_bad_argument,
                    "--name and --admin are for one key: in a batch each line has its name");
    if (batch != NULL)
        return add_batch(store, request, kind, batch);
    int rc = read_addition(store, request, request->args, kind, &add);
    if (rc == 0)
        rc = add_one(store, request, &add);
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
    int rc = read_key(store, request, request->args, &key);
    if (rc == 0)
        rc = find_key(store, request, key.blob, &owner, owner_name);
    if (rc > 0 && owner.id != entry.id)
        rc = key_in_use(request, &owner, owner_name);
    const char *status = rc > 0 ? "unchanged" : "added";
    if (rc == 0)
        rc = entry_check_room(store, request, SQL_count_keys, entry.id, LIMIT_KEYS);
    if (rc == 0) {
        rc = add_key(store, request, entry.id, &key);
        request_changed(request, entry.id);
    }
    if (rc >= 0) {
        request_done(request, status, name);
        json_object_set_new(request->result, "fingerprint", json_string(key.fingerprint));
        rc = add_note(store, request, &key);
    }
    pubkey_clear(&key);
    return rc;
}
