#include "relayd/publish.h"

#include "relayd/keeper.h"
#include "relayd/store.h"

#include <stdio.h>
#include <string.h>
#include <utlist.h>

/* Whose name is it, and may this device publish there? */
enum reason publish_check_right(const struct principal *device, const char *name, uint16_t port, bool *own)
{
    const struct directory *directory = device->tenant->directory;
    int64_t owner = directory_owner(directory, name, own);
    *own = *own && owner == device->id;
    if (*own)
        return REASON_none;
    if (owner != 0 && owner != device->id)
        return REASON_not_owner;
    if (owner == 0 && directory_owned(directory, device->id) >= LIMIT_OWNED_NAMES)
        return REASON_too_many_endpoints;
    return rules_allow(&device->rules, name, port) ? REASON_none : REASON_not_allowed;
}

struct publication *publish_find(const struct session *session, const char *name, uint16_t port)
{
    struct publication *publication;
    DL_FOREACH2(session->publications, publication, of_next)
        if (publication->endpoint->port == port && strcmp(publication->endpoint->name, name) == 0)
            return publication;
    return NULL;
}

/* The name that a request means: a loopback spelling is the device's own (D2). */
static enum reason resolve(const struct session *session, const char *requested, char name[NAME_SIZE])
{
    if (!name_is_loopback(requested))
        return name_canonical(requested, session->tenant->name, name);
    snprintf(name, NAME_SIZE, "%s", session->principal->name);
    return REASON_none;
}

static enum reason check(const struct session *session, const char *requested, uint16_t *port,
                         char name[NAME_SIZE], bool *own)
{
    enum reason reason;
    *own = false;
    if (session->principal->kind != PRINCIPAL_DEVICE)
        return REASON_not_device;
    if ((reason = resolve(session, requested, name)) != REASON_none)
        return reason;
    if (session->npublications >= LIMIT_PUBLICATIONS)
        return REASON_too_many_published;
    if (*port == 0)
        *port = directory_free_port(session->tenant->directory, name);
    if (*port == 0)
        return REASON_bad_port;
    if ((reason = publish_check_right(session->principal, name, *port, own)) != REASON_none)
        return reason;
    if (publish_find(session, name, *port) != NULL)
        return REASON_duplicate;
    return !*own && !store_healthy() ? REASON_store_unavailable : REASON_none;
}

/* A name outside the device's own must have its row, or it could not be promised. */
static enum reason claim(struct session *session, const char *name, uint16_t port)
{
    bool own;
    struct directory *directory = session->tenant->directory;
    bool was_mine = directory_owner(directory, name, &own) != 0;
    if (directory_set_owner(directory, name, session->principal->id) != 0)
        return REASON_out_of_memory;
    if (keeper_saw_endpoint(session->tenant->id, session->principal->id, name, port, true) == 0)
        return REASON_none;
    if (!was_mine)
        directory_set_owner(directory, name, 0);
    return REASON_store_unavailable;
}

/* An endpoint counts once, however many sessions serve it, so that a device that comes back beside its
 * dead session needs no room twice. Returns the account that has none, or NULL. */
static struct account *without_room(const struct session *session, const char *name, uint16_t port)
{
    struct accounts accounts = session_accounts(session->principal);
    if (directory_find(session->tenant->directory, name, port) != NULL)
        return NULL;
    return accounts_full(&accounts, LIMIT_endpoints, session->loop->now);
}

/* Charges what has come to be served, or is served no more, since there were `before` endpoints. */
static void charge_since(const struct session *session, unsigned before)
{
    struct accounts accounts = session_accounts(session->principal);
    int64_t now = directory_count(session->tenant->directory);
    accounts_charge(&accounts, LIMIT_endpoints, now - before);
}

static void record(struct session *session, enum event_kind kind, const char *verb, const char *endpoint)
{
    struct audit_event event = { .kind = kind, .object = endpoint };
    session_log_event(session, LOG_LEVEL_INFO, &event, "%s %s", verb, endpoint);
    session_event(session, &event);
}

/* The decision stands at once; its row is written behind. What is refused leaves neither. */
static enum reason publish(struct session *session, const char *requested, uint16_t *port,
                           char detail[ACCOUNT_TEXT_SIZE])
{
    char name[NAME_SIZE];
    bool own;
    struct tenant *tenant = session->tenant;
    unsigned before = directory_count(tenant->directory);
    enum reason reason = check(session, requested, port, name, &own);
    if (reason != REASON_none)
        return reason;
    const struct account *full = without_room(session, name, *port);
    if (full != NULL) {
        account_describe(full, LIMIT_endpoints, detail);
        return REASON_too_many_served;
    }
    struct publication *publication = directory_publish(tenant->directory, session, name, *port, requested);
    if (publication == NULL)
        return REASON_out_of_memory;
    if (own)
        keeper_saw_endpoint(tenant->id, session->principal->id, name, *port, true);
    else
        reason = claim(session, name, *port);
    if (reason != REASON_none) {
        directory_withdraw(tenant->directory, publication);
        return reason;
    }
    DL_APPEND2(session->publications, publication, of_prev, of_next);
    session->npublications++;
    charge_since(session, before);
    if (publication->next != NULL && publication->next->session->state == SESSION_UP)
        session_doubt(publication->next->session);
    tenant->has_news = session->loop->has_news = true; /* for the opens that wait: connect_resume() */
    record(session, EVENT_publish, "published", publication->endpoint->key);
    return REASON_none;
}

static void on_publish(struct session *session, ssh_message message)
{
    const char *requested = ssh_message_global_request_address(message);
    uint16_t asked = (uint16_t)ssh_message_global_request_port(message), port = asked;
    char text[320], detail[ACCOUNT_TEXT_SIZE] = "";
    requested = requested != NULL ? requested : "";
    enum reason reason = publish(session, requested, &port, detail);
    if (reason == REASON_none) {
        session_set_timer(session, 0);
        ssh_message_global_request_reply_success(message, port);
        return;
    }
    snprintf(text, sizeof(text), "%.300s:%u", requested, asked);
    session_refuse(session, EVENT_publish, text, reason, *detail != '\0' ? detail : NULL);
    if (session->principal->kind == PRINCIPAL_DEVICE && session->npublications == 0 &&
        !evtimer_pending(&session->timer, NULL))
        session_set_timer(session, PUBLISH_REFUSED_GRACE_MS);
    ssh_message_reply_default(message);
}

void publish_record_standby(const struct publication *standby)
{
    struct audit_event event = { .kind = EVENT_standby_serves, .object = standby->endpoint->key };
    if (standby->session->state == SESSION_UP)
        session_event(standby->session, &event);
}

static void withdraw(struct session *session, struct publication *publication)
{
    char endpoint[NAME_SIZE + 8];
    snprintf(endpoint, sizeof(endpoint), "%s", publication->endpoint->key);
    keeper_saw_endpoint(session->tenant->id, session->principal->id, publication->endpoint->name,
                        publication->endpoint->port, false);
    DL_DELETE2(session->publications, publication, of_prev, of_next);
    session->npublications--;
    unsigned before = directory_count(session->tenant->directory);
    struct publication *standby = publication == publication->endpoint->publications ? publication->next
                                                                                     : NULL;
    directory_withdraw(session->tenant->directory, publication);
    charge_since(session, before);
    record(session, EVENT_withdraw, "withdrew", endpoint);
    if (standby != NULL)
        publish_record_standby(standby);
}

static void on_cancel(struct session *session, ssh_message message)
{
    const char *requested = ssh_message_global_request_address(message);
    uint16_t port = (uint16_t)ssh_message_global_request_port(message);
    char name[NAME_SIZE], text[320];
    struct publication *publication = NULL;
    requested = requested != NULL ? requested : "";
    if (resolve(session, requested, name) == REASON_none)
        publication = publish_find(session, name, port);
    if (publication != NULL) {
        withdraw(session, publication);
        ssh_message_global_request_reply_success(message, 0);
        return;
    }
    snprintf(text, sizeof(text), "%.300s:%u", requested, port);
    session_refuse(session, EVENT_withdraw, text, REASON_not_found, NULL);
    ssh_message_reply_default(message);
}

void publish_on_global_request(ssh_session ssh, ssh_message message, void *arg)
{
    struct session *session = arg;
    int type = ssh_message_subtype(message);
    (void)ssh;
    session_touch(session);
    if (session->state != SESSION_UP)
        ssh_message_reply_default(message);
    else if (type == SSH_GLOBAL_REQUEST_TCPIP_FORWARD)
        on_publish(session, message);
    else if (type == SSH_GLOBAL_REQUEST_CANCEL_TCPIP_FORWARD)
        on_cancel(session, message);
    else if (type == SSH_GLOBAL_REQUEST_KEEPALIVE || type == SSH_GLOBAL_REQUEST_NO_MORE_SESSIONS)
        ssh_message_global_request_reply_success(message, 0);
    else
        ssh_message_reply_default(message);
}

void publish_withdraw_all(struct session *session)
{
    while (session->publications != NULL)
        withdraw(session, session->publications);
}

bool publish_still_allowed(const struct session *session)
{
    const struct principal *device = session->principal;
    struct publication *publication;
    bool own;
    DL_FOREACH2(session->publications, publication, of_next)
        if (device->kind != PRINCIPAL_DEVICE ||
            publish_check_right(device, publication->endpoint->name, publication->endpoint->port, &own) !=
                REASON_none)
            return false;
    return true;
}

bool publish_is_standby(const struct session *session)
{
    struct publication *publication;
    DL_FOREACH2(session->publications, publication, of_next)
        if (publication->endpoint->publications == publication)
            return false;
    return session->publications != NULL;
}

struct publication *publish_find_loopback(const struct session *session, uint16_t port)
{
    struct publication *publication;
    DL_FOREACH2(session->publications, publication, of_next)
        if (publication->endpoint->port == port && name_is_loopback(publication->requested))
            return publication;
    return NULL;
}
