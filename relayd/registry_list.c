#include "relayd/registry.h"

#include "relayd/entry.h"
#include "relayd/limits.h"

#include <errno.h>

/* How long a list may be. */
static size_t room_for(const struct request *request)
{
    return request_by_relay(request) ? SIZE_MAX : LIMIT_LIST;
}

static int rows_result(struct store *store, struct request *request, json_t *rows)
{
    if (rows == NULL && errno == E2BIG)
        return fail(&request->failure, REASON_too_many_registered,
                    "that list has more than %u MiB: ask the relay's administrator for it, or show one NAME",
                    LIMIT_LIST >> 20);
    if (rows == NULL)
        return entry_failed(store, request);
    request_result(request, rows);
    return 0;
}

int registry_list_tenants(struct store *store, struct request *request)
{
    return rows_result(store, request, store_rows(store, SQL_list_tenants, ""));
}

static int list_principals(struct store *store, struct request *request, enum entry_kind kind)
{
    return rows_result(store, request,
                       store_rows_within(store, room_for(request), SQL_list_principals, "itt",
                                         request->tenant_id, entry_kinds[kind], (const char *)NULL));
}

int registry_list_devices(struct store *store, struct request *request)
{
    return list_principals(store, request, ENTRY_DEVICE);
}

int registry_list_clients(struct store *store, struct request *request)
{
    return list_principals(store, request, ENTRY_CLIENT);
}

/* name: NULL for all. A key whose home is elsewhere shows that another tenant has it too: that is for the
 * relay's administrator to know. */
static json_t *list_keys(struct store *store, const struct request *request, const char *name)
{
    size_t i;
    json_t *row,
        *rows = store_rows_within(store, room_for(request), SQL_list_keys, "it", request->tenant_id, name);
    if (!request_by_relay(request))
        json_array_foreach(rows, i, row)
            json_object_del(row, "home");
    return rows;
}

int registry_list_keys(struct store *store, struct request *request)
{
    return rows_result(store, request, list_keys(store, request, NULL));
}

int registry_list_pending(struct store *store, struct request *request)
{
    return rows_result(store, request, store_rows(store, SQL_list_pending, "i", request->tenant_id));
}

int registry_list_endpoints(struct store *store, struct request *request)
{
    return rows_result(store, request,
                       store_rows_within(store, room_for(request), SQL_list_endpoints, "it",
                                         request->tenant_id, (const char *)NULL));
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
        return entry_failed(store, request);
    }
    json_object_set_new(object, "limits", limits);
    request_result(request, object);
    return 0;
}

int registry_show(struct store *store, struct request *request)
{
    struct entry entry;
    char name[NAME_SIZE];
    if (request_arg(request, "name") == NULL)
        return show_tenant(store, request);
    if (entry_get(store, request, request_arg(request, "name"), &entry, name) != 0)
        return -1;
    json_t *rows = store_rows(store, SQL_list_principals, "itt", request->tenant_id, entry_kinds[entry.kind],
                              name);
    json_t *keys = list_keys(store, request, name);
    json_t *endpoints = store_rows(store, SQL_list_endpoints, "it", request->tenant_id, name);
    json_t *limits = store_rows(store, SQL_list_limits, "ii", request->tenant_id, entry.id);
    json_t *object = json_incref(json_array_get(rows, 0));
    json_decref(rows);
    if (object == NULL || keys == NULL || endpoints == NULL || limits == NULL) {
        json_decref(object);
        json_decref(keys);
        json_decref(endpoints);
        json_decref(limits);
        return entry_failed(store, request);
    }
    request->principal_id = entry.id;
    json_object_set_new(object, "tenant", json_string(request->tenant));
    json_object_set_new(object, "keys", keys);
    json_object_set_new(object, "endpoints", endpoints);
    json_object_set_new(object, "limits", limits);
    request_result(request, object);
    return 0;
}

int registry_status(struct store *store, struct request *request)
{
    json_t *tenants = store_rows(store, SQL_list_tenants, "");
    bool readable = tenants != NULL && store_readable();
    request_result(request, json_pack("{s:i, s:s}", "tenants", (int)json_array_size(tenants), "store",
                                      !readable         ? "the database cannot be read"
                                      : store_healthy() ? "ok"
                                                        : "the last change could not be written"));
    json_decref(tenants);
    return 0;
}
