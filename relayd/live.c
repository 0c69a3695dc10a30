#include "relayd/live.h"

#include "relayd/connect.h"
#include "relayd/gate.h"
#include "relayd/keeper.h"
#include "relayd/metrics.h"
#include "relayd/publish.h"
#include "relayd/recipe.h"
#include "relayd/self.h"
#include "relayd/serve.h"
#include "relayd/sshio.h"
#include "relayd/store.h"
#include "relayd/when.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#define BATCH_PASS 256 /* principals of a batch that follow in one pass: about a millisecond */

static json_t *time_text(time_t when)
{
    char text[WHEN_SIZE];
    when_write(when, text);
    return json_string(text);
}

static void add_to(json_t *object, const char *key, json_int_t n)
{
    json_object_set_new(object, key, json_integer(json_integer_value(json_object_get(object, key)) + n));
}

static struct tenant *tenant_of(struct loop *loop, const struct request *request)
{
    return tenant_find(loop, request->tenant_id);
}

/* ---- Applying a change ---- */

/* Who asked for its own end is still owed the answer. */
static void end_session(struct request *request, struct session *session, enum reason reason)
{
    if (session->state == SESSION_DEAD)
        return;
    if (session->id == request->actor.session) {
        while (session->opens != NULL)
            connect_close(session->opens, reason);
        session_leave(session, reason);
    } else {
        session_close(session, reason, NULL);
    }
    request->closed_sessions++;
}

static void revoke_session(struct request *request, struct session *session)
{
    end_session(request, session, REASON_revoked);
}

static bool is_lost(const struct session *session)
{
    return session != NULL && session->state > SESSION_UP;
}

/* A session may have gone and left something in its bridges. */
static bool rests_on_key(const struct connect *connect, int64_t key_id)
{
    return key_id != 0 && connect->state == CONNECT_BRIDGED &&
           (connect->key_id[BRIDGE_CLIENT] == key_id || connect->key_id[BRIDGE_DEVICE] == key_id);
}

/* Closes the bridges that the change makes illegal and those whose session it has closed, with all that
 * they hold. An open whose device has gone is left to a standby. */
static void cut_bridges(struct request *request, struct tenant *tenant)
{
    struct connect *connect, *next;
    DL_FOREACH_SAFE(tenant->connects, connect, next) {
        bool lost = is_lost(connect->client) || is_lost(connect->device);
        bool bridged = connect->state == CONNECT_BRIDGED;
        if (lost ? !bridged : connect_still_allowed(connect) && !rests_on_key(connect, request->key_id))
            continue;
        request->closed_bridges += bridged;
        connect_close(connect, REASON_revoked);
    }
}

static bool key_is_there(struct loop *loop, const struct session *session)
{
    return store_value(loop->store, SQL_key_exists, "ii", session->key_id, session->principal->id) == 1;
}

/* Devices have names that were not theirs: who was faster to publish there loses them. */
static void apply_new_names(struct request *request, struct tenant *tenant)
{
    struct endpoint *endpoint = NULL;
    struct publication *publication;
    bool own;
    while ((endpoint = directory_next(tenant->directory, endpoint)) != NULL) {
        int64_t owner = directory_owner(tenant->directory, endpoint->name, &own);
        if (!own)
            continue;
        DL_FOREACH(endpoint->publications, publication)
            if (publication->session->principal->id != owner)
                revoke_session(request, publication->session);
    }
}

/* May it no longer run what it has just run? */
static bool has_demoted_itself(const struct request *request, const struct session *session)
{
    return session->id == request->actor.session && (self_roles(session) & request->command->roles) == 0;
}

/* The sessions of one principal, against what the registry says now. When it cannot be read they
 * are closed: nobody keeps a right that cannot be checked. -1: the directory is out of date. */
static int apply_principal(struct loop *loop, struct request *request, struct tenant *tenant, int64_t id)
{
    struct session *session;
    struct principal *principal = principal_find(tenant, id);
    if (tenant_refresh_device(loop, tenant, id) != 0)
        return -1;
    if (principal == NULL)
        return 0;
    bool there = principal_refresh(loop, tenant, principal) > 0;
    DL_FOREACH2(tenant->sessions, session, tenant_next)
        if (session->principal == principal &&
            (!there || !key_is_there(loop, session) || !publish_still_allowed(session) ||
             has_demoted_itself(request, session)))
            revoke_session(request, session);
    return 0;
}

/* The principal that has changed, or the next ones of a batch. 1: there are more; -1: the directory is out of
 * date. */
static int apply_principals(struct loop *loop, struct request *request, struct tenant *tenant)
{
    const int64_t *ids = request->nbatch > 0 ? request->batch : &request->principal_id;
    size_t n = request->nbatch > 0 ? request->nbatch : 1;
    if (request->old_name[0] != '\0')
        keeper_forget_history(tenant->id, request->principal_id, request->old_name);
    for (unsigned i = 0; i < BATCH_PASS && request->applied < n; i++, request->applied++)
        if (ids[request->applied] != 0 && apply_principal(loop, request, tenant, ids[request->applied]) != 0)
            return -1;
    if (request->applied < n)
        return 1;
    if (request->new_name)
        apply_new_names(request, tenant);
    return 0;
}

/* A name has another owner, or none, or its endpoints other settings. -1: the directory is out of date. */
static int apply_owner(struct loop *loop, struct request *request, struct tenant *tenant)
{
    struct endpoint *endpoint = NULL;
    struct publication *publication;
    bool own;
    if (tenant_refresh_owner(loop, tenant, request->endpoint) != 0)
        return -1;
    int64_t owner = directory_owner(tenant->directory, request->endpoint, &own);
    keeper_forget_name(tenant->id, request->endpoint, owner);
    while ((endpoint = directory_next(tenant->directory, endpoint)) != NULL) {
        if (strcmp(endpoint->name, request->endpoint) != 0)
            continue;
        DL_FOREACH(endpoint->publications, publication)
            if (publication->session->principal->id != owner)
                revoke_session(request, publication->session);
    }
    return 0;
}

static void close_all_sessions(struct request *request, struct tenant *tenant)
{
    struct session *session;
    DL_FOREACH2(tenant->sessions, session, tenant_next)
        if (session->state != SESSION_DEAD) {
            session_close(session, REASON_revoked, NULL);
            request->closed_sessions++;
        }
}

static void tell_closed(struct request *request)
{
    json_object_set_new(request->result, "closed",
                        json_pack("{s:i, s:i}", "sessions", (int)request->closed_sessions, "bridges",
                                  (int)request->closed_bridges));
}

int live_apply(struct loop *loop, struct request *request)
{
    struct tenant *tenant = tenant_of(loop, request);
    if (tenant != NULL && request->changed) {
        bool all = request->principal_id == 0 && request->nbatch == 0 && request->endpoint[0] == '\0';
        int rc = all ? -1
                     : (request->endpoint[0] != '\0' ? apply_owner : apply_principals)(loop, request, tenant);
        if (rc > 0)
            return rc;
        /* A tenant that cannot follow the change goes as well, and is loaded anew at the next login:
         * its names would have wrong owners for ever. */
        bool gone = rc < 0;
        if (gone)
            close_all_sessions(request, tenant);
        cut_bridges(request, tenant);
        serve_reap(loop);
        if (gone)
            tenant_free(loop, tenant);
        else if (!loop->draining)
            connect_resume(tenant); /* some may be allowed now what they wait for */
    }
    tell_closed(request);
    return 0;
}

/* Nothing that is there is cut: a lowered limit only refuses what is new. */
int live_limit(struct loop *loop, struct request *request)
{
    struct tenant *tenant = tenant_of(loop, request);
    int rc = 0;
    if (tenant != NULL && request->changed && request->principal_id == 0) {
        rc = tenant_refresh_limits(loop, tenant);
    } else if (tenant != NULL && request->changed) {
        struct principal *principal = principal_find(tenant, request->principal_id);
        rc = principal != NULL ? principal_refresh_limits(loop, principal) : 0;
    }
    if (rc != 0)
        return fail(&request->failure, REASON_durable_not_applied, "%s: %s",
                    reason_sentence(REASON_durable_not_applied),
                    reason_sentence(REASON_registry_unavailable));
    if (tenant != NULL)
        connect_repace(tenant);
    tell_closed(request);
    return 0;
}

static bool is_digits(const char *text)
{
    return *text != '\0' && text[strspn(text, "0123456789")] == '\0';
}

static int disconnect(struct loop *loop, struct request *request)
{
    struct tenant *tenant = tenant_of(loop, request);
    struct session *session;
    const char *which = request_arg(request, "session");
    char name[NAME_SIZE] = "";
    uint64_t id = is_digits(which) ? strtoull(which, NULL, 10) : 0;
    if (id == 0 && name_canonical(which, request->tenant, name) != REASON_none)
        name[0] = '\0';
    if (tenant != NULL) {
        DL_FOREACH2(tenant->sessions, session, tenant_next) {
            if (id != 0 ? session->id != id : strcmp(session->principal->name, name) != 0)
                continue;
            end_session(request, session, REASON_disconnected);
        }
        cut_bridges(request, tenant);
        serve_reap(loop);
    }
    if (request->closed_sessions == 0)
        return fail(&request->failure, REASON_not_found,
                    "tenant %s has no live session %.200s: see relayctl list sessions", request->tenant,
                    which);
    json_decref(request->result);
    request->result = json_pack("{s:s, s:{s:i, s:i}}", "status", "disconnected", "closed", "sessions",
                                (int)request->closed_sessions, "bridges", (int)request->closed_bridges);
    return 0;
}

int live_disconnect(struct loop *loop, struct request *request)
{
    int rc = disconnect(loop, request);
    command_record(request);
    return rc;
}

/* ---- Lists ---- */

static json_t *session_object(const struct session *session)
{
    char address[80];
    snprintf(address, sizeof(address), "%s port %u", session->address, session->port);
    const char *banner = ssh_get_clientbanner(session->ssh);
    char client[128];
    log_escape(banner != NULL ? banner : "", client, sizeof(client));
    /* Up is towards the devices: of a client what it sends, of a device what it gets. */
    bool device = session->principal->kind == PRINCIPAL_DEVICE;
    uint64_t in = session->socket.in_bytes, out = session->socket.out_bytes;
    return json_pack("{s:I, s:s, s:s, s:i, s:i, s:I, s:I, s:s, s:o, s:s}", "id", (json_int_t)session->id,
                     "principal", session->principal->name, "kind", principal_kind_name(session->principal),
                     "endpoints", (int)session->npublications, "bridges", (int)connect_count(session),
                     "bytes_up", (json_int_t)(device ? out : in), "bytes_down",
                     (json_int_t)(device ? in : out), "address", address, "since", time_text(session->since),
                     "client", client);
}

static json_t *list_sessions(const struct tenant *tenant, const char *principal)
{
    json_t *rows = json_array();
    const struct session *session;
    if (tenant == NULL)
        return rows;
    DL_FOREACH2(tenant->sessions, session, tenant_next)
        if (principal == NULL || strcmp(session->principal->name, principal) == 0)
            json_array_append_new(rows, session_object(session));
    return rows;
}

int live_list_sessions(struct loop *loop, struct request *request)
{
    request->result = list_sessions(tenant_of(loop, request), NULL);
    return 0;
}

static json_t *bridge_object(const struct connect *connect)
{
    char endpoint[NAME_SIZE + 8];
    snprintf(endpoint, sizeof(endpoint), "%s:%u", connect->name, connect->port);
    const struct bridge_end *ends = connect->bridge.end;
    return json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:I, s:I}", "id", (json_int_t)connect->id,
                     "endpoint", endpoint, "client", connect->client_name, "device", connect->device_name,
                     "bytes_up", (json_int_t)ends[BRIDGE_CLIENT].bytes, "bytes_down",
                     (json_int_t)ends[BRIDGE_DEVICE].bytes, "held",
                     (json_int_t)bridge_waiting(&connect->bridge), "since", time_text(connect->since),
                     "client_session", connect->client != NULL ? (json_int_t)connect->client->id : 0,
                     "device_session", connect->device != NULL ? (json_int_t)connect->device->id : 0);
}

int live_list_bridges(struct loop *loop, struct request *request)
{
    const struct tenant *tenant = tenant_of(loop, request);
    const struct connect *connect;
    request->result = json_array();
    if (tenant != NULL)
        DL_FOREACH(tenant->connects, connect)
            if (connect->state == CONNECT_BRIDGED)
                json_array_append_new(request->result, bridge_object(connect));
    return 0;
}

/* What goes on at each endpoint, by "name:port": bridges and their bytes. */
static json_t *count_traffic(const struct tenant *tenant)
{
    json_t *traffic = json_object();
    const struct connect *connect;
    DL_FOREACH(tenant->connects, connect) {
        char key[NAME_SIZE + 8];
        if (connect->state != CONNECT_BRIDGED)
            continue;
        snprintf(key, sizeof(key), "%s:%u", connect->name, connect->port);
        if (json_object_get(traffic, key) == NULL)
            json_object_set_new(traffic, key, json_object());
        json_t *row = json_object_get(traffic, key);
        add_to(row, "bridges", 1);
        add_to(row, "bytes_up", (json_int_t)connect->bridge.end[BRIDGE_CLIENT].bytes);
        add_to(row, "bytes_down", (json_int_t)connect->bridge.end[BRIDGE_DEVICE].bytes);
    }
    return traffic;
}

/* The columns of an endpoint in the order in which people look at them. row: the registry's, or one like it.
 */
static json_t *endpoint_object(const json_t *row, const struct endpoint *endpoint, const json_t *traffic)
{
    const struct publication *publication;
    json_t *object = json_object();
    int publishers = 0;
    if (endpoint != NULL)
        DL_COUNT(endpoint->publications, publication, publishers);
    json_object_set(object, "name", json_object_get(row, "name"));
    json_object_set(object, "port", json_object_get(row, "port"));
    json_object_set(object, "device", json_object_get(row, "device"));
    json_object_update_new(object,
                           json_pack("{s:b, s:i}", "online", endpoint != NULL, "publishers", publishers));
    const json_t *counts = endpoint != NULL ? json_object_get(traffic, endpoint->key) : NULL;
    add_to(object, "bridges", json_integer_value(json_object_get(counts, "bridges")));
    add_to(object, "bytes_up", json_integer_value(json_object_get(counts, "bytes_up")));
    add_to(object, "bytes_down", json_integer_value(json_object_get(counts, "bytes_down")));
    if (endpoint != NULL) {
        add_to(object, "bytes_up", (json_int_t)endpoint->bytes_up);
        add_to(object, "bytes_down", (json_int_t)endpoint->bytes_down);
        json_object_set_new(object, "last_seen", time_text(time(NULL)));
    } else {
        json_object_set(object, "last_seen", json_object_get(row, "last_seen"));
    }
    json_object_set(object, "proxy_protocol", json_object_get(row, "proxy_protocol"));
    json_object_set(object, "note", json_object_get(row, "note"));
    return object;
}

/* Like a row of the registry, for an endpoint whose row is not written yet. */
static json_t *unwritten_row(const struct tenant *tenant, const struct endpoint *endpoint)
{
    const struct setting *setting = setting_find(tenant->settings, endpoint->name, endpoint->port);
    return json_pack("{s:s, s:i, s:s, s:s, s:b}", "name", endpoint->name, "port", endpoint->port, "device",
                     endpoint->publications->session->principal->name, "note",
                     setting != NULL ? setting->note : "", "proxy_protocol",
                     setting != NULL && setting->proxy_protocol);
}

/* The rows of the registry with what is live; rows that are not written yet are added. */
static json_t *list_endpoints(const struct tenant *tenant, json_t *rows, const char *device)
{
    json_t *list = json_array(), *traffic = count_traffic(tenant), *met = json_object(), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        json_int_t port = json_integer_value(json_object_get(row, "port"));
        const struct endpoint *endpoint = directory_find(tenant->directory, name, (uint16_t)port);
        json_array_append_new(list, endpoint_object(row, endpoint, traffic));
        if (endpoint != NULL)
            json_object_set_new(met, endpoint->key, json_true());
    }
    for (struct endpoint *endpoint = NULL;
         (endpoint = directory_next(tenant->directory, endpoint)) != NULL;) {
        const char *owner = endpoint->publications->session->principal->name;
        if (json_object_get(met, endpoint->key) != NULL || (device != NULL && strcmp(owner, device) != 0))
            continue;
        row = unwritten_row(tenant, endpoint);
        json_array_append_new(list, endpoint_object(row, endpoint, traffic));
        json_decref(row);
    }
    json_decref(traffic);
    json_decref(met);
    return list;
}

static json_t *offline_endpoints(json_t *rows)
{
    json_t *list = json_array(), *row;
    size_t i;
    json_array_foreach(rows, i, row)
        json_array_append_new(list, endpoint_object(row, NULL, NULL));
    return list;
}

static json_t *annotate_endpoints(struct loop *loop, struct request *request, json_t *rows,
                                  const char *device)
{
    struct tenant *tenant = tenant_of(loop, request);
    return tenant != NULL ? list_endpoints(tenant, rows, device) : offline_endpoints(rows);
}

int live_list_endpoints(struct loop *loop, struct request *request)
{
    json_t *list = annotate_endpoints(loop, request, request->result, NULL);
    json_decref(request->result);
    request->result = list;
    return 0;
}

/* Adds to the rows of principals, by id, what their sessions say. */
static void annotate_principals(const struct tenant *tenant, json_t *rows)
{
    json_t *by_id = json_object(), *row;
    size_t i;
    char id[24];
    const struct session *session;
    json_array_foreach(rows, i, row) {
        snprintf(id, sizeof(id), "%lld", (long long)json_integer_value(json_object_get(row, "id")));
        json_object_set(by_id, id, row);
        json_object_del(row, "id");
        json_object_set_new(row, "online", json_false());
        json_object_set_new(row, "sessions", json_integer(0));
    }
    if (tenant != NULL)
        DL_FOREACH2(tenant->sessions, session, tenant_next) {
            snprintf(id, sizeof(id), "%lld", (long long)session->principal->id);
            if ((row = json_object_get(by_id, id)) == NULL)
                continue;
            json_object_set_new(row, "online", json_true());
            add_to(row, "sessions", 1);
            json_object_set_new(row, "address", json_string(session->address));
            json_object_set_new(row, "last_seen", time_text(time(NULL)));
        }
    json_decref(by_id);
}

/* The columns of a principal in the order in which people look at them. */
static json_t *in_order(json_t *row)
{
    static const char *const names[] = { "tenant",   "name",    "kind",      "admin", "online",
                                         "sessions", "address", "last_seen", "keys",  "rules",
                                         "expires",  "created", "endpoints" };
    json_t *ordered = json_object();
    if (json_is_null(json_object_get(row, "admin"))) /* a device */
        json_object_del(row, "admin");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (json_object_get(row, names[i]) != NULL)
            json_object_set(ordered, names[i], json_object_get(row, names[i]));
    return ordered;
}

int live_list_principals(struct loop *loop, struct request *request)
{
    json_t *list = json_array(), *row;
    size_t i;
    annotate_principals(tenant_of(loop, request), request->result);
    json_array_foreach(request->result, i, row) {
        json_t *ordered = in_order(row);
        json_object_del(ordered, "kind");
        json_array_append_new(list, ordered);
    }
    json_decref(request->result);
    request->result = list;
    return 0;
}

static json_t *limit_value(uint64_t value)
{
    return value == LIMIT_NONE ? json_null() : json_integer((json_int_t)value);
}

/* The limits with what is used of them. stored: those that were set; account: NULL if nobody is here. */
static json_t *limit_rows(const struct loop *loop, const json_t *stored, const struct limits *defaults,
                          const struct account *account)
{
    struct limits limits = *defaults;
    json_t *rows = json_array(), *row;
    size_t i;
    json_array_foreach(stored, i, row) {
        const json_t *value = json_object_get(row, "value");
        limits_set(&limits, json_string_value(json_object_get(row, "name")),
                   json_is_integer(value) ? json_integer_value(value) : -1);
    }
    for (enum limit limit = 0; limit < LIMIT_COUNT; limit++) {
        uint64_t used = account != NULL ? account_used(account, limit, loop->now) : 0;
        json_array_append_new(rows,
                              json_pack("{s:s, s:o, s:I, s:o, s:s}", "limit", limit_name(limit), "value",
                                        limit_value(limits.value[limit]), "used", (json_int_t)used, "default",
                                        limit_value(defaults->value[limit]), "unit", limit_unit(limit)));
    }
    return rows;
}

static int show_tenant(struct loop *loop, struct request *request)
{
    const struct tenant *tenant = tenant_of(loop, request);
    const json_t *stored = json_object_get(request->result, "limits");
    json_object_set_new(
        request->result, "limits",
        limit_rows(loop, stored, &limits_of_tenant, tenant != NULL ? &tenant->account : NULL));
    return 0;
}

int live_show(struct loop *loop, struct request *request)
{
    if (request->principal_id == 0)
        return show_tenant(loop, request);
    const struct tenant *tenant = tenant_of(loop, request);
    const struct principal *principal = tenant != NULL ? principal_find(tenant, request->principal_id) : NULL;
    json_t *limits = limit_rows(loop, json_object_get(request->result, "limits"), &limits_of_principal,
                                principal != NULL ? &principal->account : NULL);
    json_t *rows = json_array();
    const char *name = json_string_value(json_object_get(request->result, "name"));
    json_array_append(rows, request->result);
    annotate_principals(tenant_of(loop, request), rows);
    json_t *endpoints = annotate_endpoints(loop, request, json_object_get(request->result, "endpoints"),
                                           name);
    json_object_set_new(request->result, "endpoints", endpoints);
    json_t *shown = in_order(request->result);
    json_object_set_new(shown, "sessions", list_sessions(tenant, name));
    json_object_set_new(shown, "limits", limits);
    json_decref(rows);
    json_decref(request->result);
    request->result = shown;
    return 0;
}

int live_list_tenants(struct loop *loop, struct request *request)
{
    json_t *row;
    size_t i;
    json_array_foreach(request->result, i, row) {
        const struct session *session;
        int sessions = 0;
        json_int_t id = json_integer_value(json_object_get(row, "id"));
        struct tenant *tenant = tenant_find(loop, id);
        if (tenant != NULL)
            DL_COUNT2(tenant->sessions, session, sessions, tenant_next);
        add_to(row, "sessions", sessions);
        add_to(row, "bridges", tenant != NULL ? (json_int_t)tenant->nbridges : 0);
        if (loop->index + 1 == loop->relay->nworkers)
            json_object_del(row, "id");
    }
    return 0;
}

/* ---- relayd itself ---- */

/* What malloc has given out and not got back, in all threads. */
static json_t *memory_object(void)
{
    struct mallinfo2 info = mallinfo2();
    return json_pack("{s:I}", "heap_used", (json_int_t)(info.uordblks + info.hblkhd));
}

static json_t *counters_object(void)
{
    json_t *counters = json_object();
    for (enum metric metric = 0; metric < METRIC_COUNT; metric++)
        json_object_set_new(counters, metric_name(metric), json_integer((json_int_t)metrics_value(metric)));
    return counters;
}

/* What has come since the start; what was done has the reason "ok". */
static json_t *event_rows(void)
{
    json_t *rows = json_array();
    for (enum event_kind kind = 0; kind < EVENT_COUNT; kind++)
        for (enum reason reason = 0; reason < REASON_COUNT; reason++) {
            json_int_t count = (json_int_t)metrics_events(kind, reason);
            if (count > 0)
                json_array_append_new(rows, json_pack("{s:s, s:s, s:I}", "event", event_code(kind), "reason",
                                                      reason == REASON_none ? "ok" : reason_code(reason),
                                                      "count", count));
        }
    return rows;
}

static json_t *queues_object(void)
{
    return json_pack("{s:I, s:I, s:I}", "keeper", (json_int_t)keeper_waiting(), "events",
                     (json_int_t)audit_waiting(), "log_bytes", (json_int_t)log_waiting());
}

int live_status(struct loop *loop, struct request *request)
{
    const struct tenant *tenant, *next;
    if (loop->index == 0) {
        json_t *status = json_pack("{s:s, s:s, s:I, s:i}", "version", PACKAGE_VERSION, "libssh",
                                   sshio_version(), "uptime", (json_int_t)(time(NULL) - loop->relay->started),
                                   "workers", (int)loop->relay->nworkers);
        size_t held;
        uint64_t refused;
        gate_count(&held, &refused);
        json_object_update_new(status, json_pack("{s:I, s:I}", "sources_held", (json_int_t)held,
                                                 "connections_refused", (json_int_t)refused));
        json_object_update(status, request->result);
        json_object_set_new(status, "sessions", json_integer(0));
        json_object_set_new(status, "waiting", json_integer(session_waiting()));
        json_object_set_new(status, "memory", memory_object());
        json_object_set_new(status, "queues", queues_object());
        json_object_set_new(status, "counters", counters_object());
        json_object_set_new(status, "events", event_rows());
        json_decref(request->result);
        request->result = status;
    }
    add_to(request->result, "sessions", loop->nsessions);
    json_int_t endpoints = 0, bridges = 0;
    HASH_ITER(hh, loop->tenants, tenant, next) {
        bridges += tenant->nbridges;
        endpoints += directory_count(tenant->directory);
    }
    add_to(request->result, "endpoints", endpoints);
    add_to(request->result, "bridges", bridges);
    add_to(json_object_get(request->result, "queues"), "workers", (json_int_t)mailbox_waiting(loop->mailbox));
    return 0;
}

int live_host_key(struct loop *loop, struct request *request)
{
    struct place place = { .port = loop->relay->port };
    char host[300], line[600];
    const struct host_key *key = &loop->relay->host_key;
    if (request->result != NULL)
        return 0; /* an earlier worker has answered */
    if (loop->config->public_address.text[0] != '\0')
        place_parse(loop->config->public_address.text, &place);
    else
        gethostname(place.host, sizeof(place.host) - 1);
    place_known_hosts(&place, host, sizeof(host));
    snprintf(line, sizeof(line), "%s %s", host, key->line);
    request->result = json_pack("{s:s, s:s, s:s}", "known_hosts", line, "fingerprint", key->fingerprint,
                                "key", key->line);
    return 0;
}
