#include "relayd/tenant.h"

#include "relayd/limits.h"
#include "relayd/store.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define EXPIRY_CHECK_MAX_S 3600 /* the clock may be set: look again at least this often */

void (*tenant_on_expired)(struct principal *principal);

static int load_devices(struct loop *loop, struct tenant *tenant)
{
    int rc;
    struct query *query = store_query(loop->store, SQL_get_devices, "i", tenant->id);
    while ((rc = query_next(query)) > 0) {
        if (directory_set_device(tenant->directory, query_int(query, 0), query_text(query, 1)) != 0) {
            rc = -1;
            break;
        }
    }
    query_end(query);
    return rc;
}

/* Rows at or under a device's own name are history, not ownership. */
static int load_owners(struct loop *loop, struct tenant *tenant)
{
    int rc;
    bool own;
    struct query *query = store_query(loop->store, SQL_get_owners, "i", tenant->id);
    while ((rc = query_next(query)) > 0) {
        const char *name = query_text(query, 0);
        directory_owner(tenant->directory, name, &own);
        if (!own && directory_set_owner(tenant->directory, name, query_int(query, 1)) != 0) {
            rc = -1;
            break;
        }
    }
    query_end(query);
    return rc;
}

/* Ends the query. */
static int load_settings(struct tenant *tenant, struct query *query)
{
    int rc;
    while ((rc = query_next(query)) > 0) {
        if (setting_put(&tenant->settings, query_int(query, 2), query_text(query, 0),
                        (uint16_t)query_int(query, 1), query_text(query, 3), query_int(query, 4) != 0) != 0) {
            rc = -1;
            break;
        }
    }
    query_end(query);
    return rc;
}

/* principal_id 0: those of the tenant itself. */
static int read_limits(struct loop *loop, int64_t tenant_id, int64_t principal_id, struct limits *limits)
{
    int rc;
    struct query *query = store_query(loop->store, SQL_get_limits, "ii", tenant_id, principal_id);
    *limits = principal_id == 0 ? limits_of_tenant : limits_of_principal;
    while ((rc = query_next(query)) > 0)
        limits_set(limits, query_text(query, 0), query_int(query, 1));
    query_end(query);
    return rc;
}

static int load_account(struct loop *loop, int64_t tenant_id, int64_t principal_id, struct account *account)
{
    struct limits limits;
    int rc = read_limits(loop, tenant_id, principal_id, &limits);
    if (rc == 0)
        account_init(account, &limits, loop->now);
    return rc;
}

static int refresh_account(struct loop *loop, int64_t tenant_id, int64_t principal_id,
                           struct account *account)
{
    struct limits limits;
    int rc = read_limits(loop, tenant_id, principal_id, &limits);
    if (rc == 0)
        account_set_limits(account, &limits, loop->now);
    return rc;
}

int tenant_refresh_limits(struct loop *loop, struct tenant *tenant)
{
    return refresh_account(loop, tenant->id, 0, &tenant->account);
}

int principal_refresh_limits(struct loop *loop, struct principal *principal)
{
    return refresh_account(loop, principal->tenant->id, principal->id, &principal->account);
}

struct tenant *tenant_find(const struct loop *loop, int64_t id)
{
    struct tenant *tenant;
    HASH_FIND(hh, loop->tenants, &id, sizeof(id), tenant);
    return tenant;
}

struct tenant *tenant_get(struct loop *loop, int64_t id, const char *name)
{
    struct tenant *tenant = tenant_find(loop, id);
    if (tenant != NULL)
        return tenant;
    tenant = calloc(1, sizeof(*tenant));
    if (tenant == NULL)
        return NULL;
    tenant->id = id;
    tenant->name = strdup(name);
    tenant->directory = directory_new();
    if (tenant->name == NULL || tenant->directory == NULL || load_devices(loop, tenant) != 0 ||
        load_owners(loop, tenant) != 0 ||
        load_settings(tenant, store_query(loop->store, SQL_get_settings, "i", id)) != 0 ||
        load_account(loop, id, 0, &tenant->account) != 0)
        goto fail;
    tenant->account.kind = "tenant";
    tenant->account.name = tenant->name;
    HASH_ADD(hh, loop->tenants, id, sizeof(tenant->id), tenant);
    if (tenant->hh.tbl != NULL)
        return tenant;
fail:
    setting_forget_all(&tenant->settings);
    directory_free(tenant->directory);
    free(tenant->name);
    free(tenant);
    return NULL;
}

void tenant_free(struct loop *loop, struct tenant *tenant)
{
    assert(tenant->sessions == NULL && tenant->share.dirty == NULL);
    HASH_DEL(loop->tenants, tenant);
    setting_forget_all(&tenant->settings);
    directory_free(tenant->directory);
    free(tenant->name);
    free(tenant);
}

/* What the registry says of a principal. 1: read into *fresh; 0: no such; -1: error. */
static int read_principal(struct loop *loop, const struct tenant *tenant, int64_t id, struct principal *fresh)
{
    struct query *query = store_query(loop->store, SQL_get_principal, "ii", tenant->id, id);
    int rc = query_next(query);
    if (rc > 0) {
        fresh->id = id;
        fresh->kind = strcmp(query_text(query, 0), "device") == 0 ? PRINCIPAL_DEVICE : PRINCIPAL_CLIENT;
        fresh->name = strdup(query_text(query, 1));
        fresh->expires = query_int(query, 2);
        fresh->admin = fresh->kind == PRINCIPAL_CLIENT && query_int(query, 3) == 1;
        if (fresh->name == NULL)
            rc = -1;
    }
    query_end(query);
    if (rc <= 0)
        return rc;
    query = store_query(loop->store, SQL_get_rules, "i", id);
    while ((rc = query_next(query)) > 0) {
        /* A rule that no longer parses grants nothing. */
        if (rules_add(&fresh->rules, query_text(query, 0)) != 0 && errno == ENOMEM) {
            rc = -1;
            break;
        }
    }
    query_end(query);
    return rc < 0 ? -1 : 1;
}

static bool has_expired(const struct principal *principal)
{
    return principal->expires != 0 && principal->expires <= time(NULL);
}

static int arm_expiry(struct principal *principal)
{
    int64_t left = principal->expires - time(NULL);
    struct timeval delay = { .tv_sec = left < 0 ? 0 : left < EXPIRY_CHECK_MAX_S ? left : EXPIRY_CHECK_MAX_S };
    return evtimer_add(principal->expiry, &delay);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
    struct principal *principal = arg;
    (void)fd, (void)what;
    /* Out of memory, it ends before its time: better than never. */
    if (has_expired(principal) || arm_expiry(principal) != 0)
        tenant_on_expired(principal);
}

/* -1: out of memory. */
static int watch_expiry(struct loop *loop, struct principal *principal)
{
    if (principal->expiry != NULL)
        event_free(principal->expiry);
    principal->expiry = NULL;
    if (principal->expires == 0)
        return 0;
    principal->expiry = evtimer_new(loop->base, on_expiry, principal);
    return principal->expiry != NULL ? arm_expiry(principal) : -1;
}

static void clear(struct principal *principal)
{
    if (principal->expiry != NULL)
        event_free(principal->expiry);
    principal->expiry = NULL;
    free(principal->name);
    rules_clear(&principal->rules);
}

const char *principal_kind_name(const struct principal *principal)
{
    return principal->kind == PRINCIPAL_DEVICE ? "device" : "client";
}

struct principal *principal_find(const struct tenant *tenant, int64_t id)
{
    struct principal *principal;
    HASH_FIND(hh, tenant->principals, &id, sizeof(id), principal);
    return principal;
}

/* The account borrows the name. */
static void name_account(struct principal *principal)
{
    principal->account.kind = principal_kind_name(principal);
    principal->account.name = principal->name;
}

/* Of what reading it has returned. */
static enum reason why_not(int rc)
{
    return rc < 0 ? REASON_registry_unavailable : REASON_revoked;
}

static struct principal *load_principal(struct loop *loop, struct tenant *tenant, int64_t id,
                                        enum reason *why)
{
    struct principal *principal = calloc(1, sizeof(*principal));
    *why = REASON_out_of_memory;
    if (principal == NULL)
        return NULL;
    principal->tenant = tenant;
    int rc = read_principal(loop, tenant, id, principal);
    if (rc <= 0 || (rc = load_account(loop, tenant->id, id, &principal->account)) < 0) {
        *why = why_not(rc);
        goto fail;
    }
    if (watch_expiry(loop, principal) != 0)
        goto fail;
    name_account(principal);
    HASH_ADD(hh, tenant->principals, id, sizeof(principal->id), principal);
    if (principal->hh.tbl != NULL)
        return principal;
fail:
    clear(principal);
    free(principal);
    return NULL;
}

static void free_unused(struct principal *principal)
{
    if (principal->nsessions > 0 || principal->nconnects > 0)
        return;
    HASH_DEL(principal->tenant->principals, principal);
    clear(principal);
    free(principal);
}

struct principal *principal_acquire(struct loop *loop, struct tenant *tenant, int64_t id, enum reason *why)
{
    struct principal *principal = principal_find(tenant, id);
    int rc = 1;
    if (principal == NULL)
        principal = load_principal(loop, tenant, id, why);
    else if (principal->nsessions == 0) /* what a bridge has left of it may be out of date */
        rc = principal_refresh(loop, tenant, principal);
    if (rc <= 0)
        *why = why_not(rc);
    if (principal == NULL || rc <= 0)
        return NULL;
    principal->nsessions++;
    if (!has_expired(principal))
        return principal;
    *why = REASON_key_expired;
    principal_release(principal);
    return NULL;
}

void principal_release(struct principal *principal)
{
    principal->nsessions--;
    free_unused(principal);
}

struct principal *principal_hold(struct principal *principal)
{
    principal->nconnects++;
    return principal;
}

void principal_let_go(struct principal *principal)
{
    principal->nconnects--;
    free_unused(principal);
}

int principal_refresh(struct loop *loop, struct tenant *tenant, struct principal *principal)
{
    struct principal fresh = { 0 };
    int rc = read_principal(loop, tenant, principal->id, &fresh);
    if (rc > 0 && has_expired(&fresh))
        rc = 0;
    if (rc <= 0) {
        clear(&fresh);
        rules_clear(&principal->rules);
        principal->admin = false;
        return rc;
    }
    clear(principal);
    principal->kind = fresh.kind;
    principal->name = fresh.name;
    principal->expires = fresh.expires;
    principal->admin = fresh.admin;
    principal->rules = fresh.rules;
    name_account(principal);
    return watch_expiry(loop, principal) == 0 ? 1 : -1;
}

int tenant_refresh_device(struct loop *loop, struct tenant *tenant, int64_t principal_id)
{
    struct query *query = store_query(loop->store, SQL_get_principal, "ii", tenant->id, principal_id);
    int rc = query_next(query);
    if (rc >= 0) {
        bool device = rc > 0 && strcmp(query_text(query, 0), "device") == 0;
        rc = directory_set_device(tenant->directory, principal_id, device ? query_text(query, 1) : NULL);
    }
    query_end(query);
    if (rc < 0)
        return -1;
    setting_forget_device(&tenant->settings, principal_id);
    return load_settings(
        tenant, store_query(loop->store, SQL_get_settings_of_device, "ii", tenant->id, principal_id));
}

int tenant_refresh_owner(struct loop *loop, struct tenant *tenant, const char *name)
{
    bool own;
    int64_t owner = store_value(loop->store, SQL_get_owner, "it", tenant->id, name);
    if (owner < 0)
        return -1;
    directory_owner(tenant->directory, name, &own);
    if (!own && directory_set_owner(tenant->directory, name, owner) != 0)
        return -1;
    setting_forget_name(&tenant->settings, name);
    return load_settings(tenant, store_query(loop->store, SQL_get_settings_of_name, "it", tenant->id, name));
}

/* False when the worker, which others share, has done enough for the tenant's shells in this second. */
static bool may_tell(struct tenant *tenant)
{
    time_t now = time(NULL);
    if (now != tenant->told_second)
        tenant->told = 0;
    tenant->told_second = now;
    return tenant->told < LIMIT_TOLD;
}

/* False if there were too many. */
static bool tell(struct follower *follower, const struct audit_event *event)
{
    struct tenant *tenant = follower->principal->tenant;
    if (tenant->told >= LIMIT_TOLD)
        return false;
    tenant->told++;
    if (follower->untold != tenant->untold)
        follower->tell(follower, NULL);
    follower->untold = tenant->untold;
    follower->tell(follower, event);
    return true;
}

static bool tell_principal(const struct principal *principal, const struct audit_event *event)
{
    struct follower *follower;
    if (principal != NULL)
        DL_FOREACH(principal->followers, follower)
            if (!tell(follower, event))
                return false;
    return true;
}

static bool tell_clients(const struct tenant *tenant, const struct principal *but,
                         const struct audit_event *event)
{
    struct follower *follower;
    if (event->kind == EVENT_publish || event->kind == EVENT_withdraw)
        DL_FOREACH2(tenant->clients, follower, tenant_next)
            if (follower->principal != but && !tell(follower, event))
                return false;
    return true;
}

/* The device at the other end of what a client has opened; NULL if it is none, or has left. */
static struct principal *other_end(const struct tenant *tenant, const struct audit_event *event)
{
    if (event->kind != EVENT_connect && event->kind != EVENT_bridge_closed)
        return NULL;
    return principal_find(tenant, directory_device(tenant->directory, event->peer));
}

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

void tenant_event(struct tenant *tenant, const struct audit_event *event)
{
    struct audit_event whole = *event;
    whole.tenant_id = tenant->id;
    whole.tenant = tenant->name;
    whole.principal = or_empty(event->principal);
    whole.address = or_empty(event->address);
    whole.object = or_empty(event->object);
    whole.peer = or_empty(event->peer);
    audit(&whole);
    if (tenant->nfollowers == 0)
        return;
    const struct principal *subject = principal_find(tenant, whole.principal_id);
    const struct principal *other = other_end(tenant, &whole);
    if (!may_tell(tenant) || !tell_principal(subject, &whole) ||
        (other != subject && !tell_principal(other, &whole)) || !tell_clients(tenant, subject, &whole))
        tenant->untold++;
}

void tenant_follow(struct principal *principal, struct follower *follower)
{
    follower->principal = principal;
    follower->untold = principal->tenant->untold;
    DL_APPEND(principal->followers, follower);
    principal->tenant->nfollowers++;
    if (principal->kind == PRINCIPAL_CLIENT)
        DL_APPEND2(principal->tenant->clients, follower, tenant_prev, tenant_next);
}

void tenant_unfollow(struct follower *follower)
{
    DL_DELETE(follower->principal->followers, follower);
    follower->principal->tenant->nfollowers--;
    if (follower->tenant_prev != NULL)
        DL_DELETE2(follower->principal->tenant->clients, follower, tenant_prev, tenant_next);
    follower->principal = NULL;
    follower->tenant_prev = follower->tenant_next = NULL;
}
