#include "relayd/entry.h"

#include "relayd/policy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const entry_kinds[] = { "device", "client" };

int entry_failed(struct store *store, struct request *request)
{
    return store_failed(store, REASON_store_unavailable, &request->failure);
}

int entry_find(struct store *store, struct request *request, const char *name, struct entry *entry)
{
    struct query *query = store_query(store, SQL_find_principal, "it", request->tenant_id, name);
    int rc = query_next(query);
    if (rc > 0) {
        entry->id = query_int(query, 0);
        entry->kind = strcmp(query_text(query, 1), "device") == 0 ? ENTRY_DEVICE : ENTRY_CLIENT;
        entry->expires = query_int(query, 3);
        entry->admin = query_int(query, 4) == 1;
    }
    query_end(query);
    return rc < 0 ? entry_failed(store, request) : rc;
}

int entry_get(struct store *store, struct request *request, const char *raw, struct entry *entry,
              char name[NAME_SIZE])
{
    bool sane = name_canonical(raw, request->tenant, name) == REASON_none;
    int rc = sane ? entry_find(store, request, name, entry) : 0;
    if (rc == 0)
        return fail(&request->failure, REASON_not_found,
                    "tenant %s has no device or client called \"%.253s\": see relayctl list devices, clients",
                    request->tenant, raw);
    return rc < 0 ? -1 : 0;
}

int entry_check_room(struct store *store, struct request *request, enum sql count, int64_t id, int64_t max)
{
    if (request_by_relay(request))
        return 0;
    int64_t n = store_value(store, count, "i", id);
    if (n < 0)
        return entry_failed(store, request);
    if (n >= max)
        return fail(&request->failure, REASON_too_many_registered, "%s",
                    reason_sentence(REASON_too_many_registered));
    return 0;
}

json_t *entry_rules(struct store *store, int64_t id)
{
    json_t *rules = json_array();
    struct query *query = store_query(store, SQL_get_rules, "i", id);
    while (query_next(query) > 0)
        json_array_append_new(rules, json_string(query_text(query, 0)));
    query_end(query);
    return rules;
}

int entry_no_memory(struct request *request)
{
    return fail(&request->failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
}

int entry_no_rule(struct request *request, const char *text)
{
    if (errno == ENOMEM)
        return entry_no_memory(request);
    return fail(&request->failure, REASON_bad_rule, "\"%.200s\" is not a rule: %s", text,
                reason_sentence(REASON_bad_rule));
}

int entry_text(struct store *store, struct request *request, struct query *query, char out[NAME_SIZE])
{
    int rc = query_next(query);
    snprintf(out, NAME_SIZE, "%s", rc > 0 ? query_text(query, 0) : "");
    query_end(query);
    return rc < 0 ? entry_failed(store, request) : 0;
}

int entry_check_name(struct store *store, struct request *request, const char *name, int64_t id)
{
    char other[NAME_SIZE];
    struct query *query = store_query(store, SQL_device_in_the_way, "iti", request->tenant_id, name, id);
    if (entry_text(store, request, query, other) != 0)
        return -1;
    if (other[0] == '\0') {
        query = store_query(store, SQL_endpoint_in_the_way, "iti", request->tenant_id, name, id);
        if (entry_text(store, request, query, other) != 0)
            return -1;
    }
    return other[0] == '\0' ? 0 : entry_name_taken(request, name, other);
}

int entry_name_taken(struct request *request, const char *name, const char *device)
{
    return fail(&request->failure, REASON_in_use,
                "the name %s, or one below it, belongs to device %s: choose another name, or free it with "
                "relayctl remove-endpoint",
                name, device);
}
