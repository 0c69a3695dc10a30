#include "relayd/connect.h"

#include "relayd/clock.h"
#include "relayd/metrics.h"
#include "relayd/proxy.h"
#include "relayd/publish.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define WRITE_BUDGET (256u * 1024) /* bytes to one channel at a time */
#define DRAIN_CHUNK (65536u - 64)  /* with the head of an evbuffer's chunk: 64 KiB, and no more */

static atomic_uint_fast64_t last_id;

static const struct channel_ops client_ops, device_ops;

/* ---- Who may go where ---- */

/* Until it is torn down, a session that died still stands in the directory: libssh must not be called for
 * it. Nor for one that floods us, as every call may read more of it. */
static struct publication *newest_alive(const struct endpoint *endpoint)
{
    struct publication *publication;
    DL_FOREACH(endpoint->publications, publication)
        if (publication->session->state == SESSION_UP && sshio_alive(publication->session->ssh) &&
            session_backlog(publication->session) < LIMIT_BACKLOG)
            return publication;
    return NULL;
}

/* Who serves it to that client now: the newest session, or for a device's way to itself the very
 * session that asks. NULL if nobody does, or the client has no right to know. */
static struct publication *find_publication(const struct session *client, const char *name, uint16_t port)
{
    if (client->principal->kind == PRINCIPAL_DEVICE)
        return publish_find_loopback(client, port);
    struct endpoint *endpoint = directory_find(client->tenant->directory, name, port);
    if (endpoint == NULL || !rules_allow(&client->principal->rules, name, port))
        return NULL;
    return newest_alive(endpoint);
}

/* The exact reason of a not_reachable, for administrators alone. */
static enum reason why_unreachable(const struct session *session, const char *name, uint16_t port)
{
    bool own;
    int64_t owner = directory_owner(session->tenant->directory, name, &own);
    if (owner == 0)
        return REASON_no_such_name;
    if (!rules_allow(&session->principal->rules, name, port))
        return REASON_no_rule;
    const struct principal *device = principal_find(session->tenant, owner);
    return device != NULL && device->nsessions > 0 ? REASON_not_published : REASON_offline;
}

/* May this session ask for host:port? On success *name is set; a device may only reach what this same
 * session published under a loopback spelling. */
static enum reason check(const struct session *session, const char *host, uint16_t port, char name[NAME_SIZE])
{
    struct publication *own = publish_find_loopback(session, port);
    if (session->nchannels + session->nopens >= LIMIT_CHANNELS)
        return REASON_too_many_channels;
    if (session->principal->kind == PRINCIPAL_DEVICE) {
        if (!name_is_loopback(host) || own == NULL)
            return REASON_not_client;
        snprintf(name, NAME_SIZE, "%s", own->endpoint->name);
        return REASON_none;
    }
    if (name_is_loopback(host))
        return REASON_loopback;
    enum reason reason = name_canonical(host, session->tenant->name, name);
    if (reason != REASON_none)
        return reason;
    return port == 0 ? REASON_bad_port : REASON_none;
}

/* Tells the reason first: libssh's refusal carries none. */
static void refuse(struct session *session, ssh_message message, const struct audit_event *event,
                   const char *detail)
{
    session_refuse_event(session, event, detail);
    session_send_notes(session);
    if (session->state == SESSION_UP && sshio_alive(session->ssh))
        ssh_message_reply_default(message);
    session_touch(session);
}

/* ---- Life ---- */

/* Which of the tenant's lists it is on while it is in this state. */
static struct connect **list_of(const struct connect *connect)
{
    return connect->state == CONNECT_WAITING ? &connect->tenant->waiting : &connect->tenant->connects;
}

static void enlist(struct connect *connect)
{
    DL_APPEND(*list_of(connect), connect);
    connect->tenant->nbridges += connect->state == CONNECT_BRIDGED;
}

static void unlist(struct connect *connect)
{
    DL_DELETE(*list_of(connect), connect);
    connect->tenant->nbridges -= connect->state == CONNECT_BRIDGED;
}

static void set_state(struct connect *connect, enum connect_state state)
{
    unlist(connect);
    connect->state = state;
    enlist(connect);
}

/* Of milliseconds. */
static int64_t us(unsigned ms)
{
    return (int64_t)ms * 1000;
}

static int set_timer(struct connect *connect, int64_t us)
{
    struct timeval delay = { .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
    return evtimer_add(&connect->timer, &delay);
}

/* The held open is answered, or never can be: it goes before its session does. */
static void release_open(struct connect *connect)
{
    evtimer_del(&connect->timer);
    ssh_message_free(connect->open);
    connect->open = NULL;
    DL_DELETE2(connect->client->opens, connect, open_prev, open_next);
    connect->client->nopens--;
}

/* What it has moved stays with the endpoint. */
static void leave_bytes(const struct connect *connect)
{
    struct endpoint *endpoint = directory_find(connect->tenant->directory, connect->name, connect->port);
    if (endpoint == NULL)
        return;
    endpoint->bytes_up += connect->bridge.end[BRIDGE_CLIENT].bytes;
    endpoint->bytes_down += connect->bridge.end[BRIDGE_DEVICE].bytes;
}

static const char *endpoint_text(const struct connect *connect, char text[NAME_SIZE + 8])
{
    snprintf(text, NAME_SIZE + 8, "%s:%u", connect->name, connect->port);
    return text;
}

/* Its sessions may be gone by now. */
static void record_end(const struct connect *connect, enum reason reason)
{
    char endpoint[NAME_SIZE + 8];
    uint64_t up = connect->bridge.end[BRIDGE_CLIENT].bytes, down = connect->bridge.end[BRIDGE_DEVICE].bytes;
    struct log_subject subject = { .tenant = connect->tenant->name,
                                   .principal = connect->client_name,
                                   .address = connect->address,
                                   .event = event_code(EVENT_bridge_closed),
                                   .reason = reason != REASON_none ? reason_code(reason) : NULL };
    log_write(LOG_LEVEL_INFO, &subject, "bridge %llu closed: %llu bytes to %s, %llu bytes back",
              (unsigned long long)connect->id, (unsigned long long)up, endpoint_text(connect, endpoint),
              (unsigned long long)down);
    struct audit_event event = { .kind = EVENT_bridge_closed,
                                 .reason = reason,
                                 .principal_id = connect->charge.principal[BRIDGE_CLIENT]->id,
                                 .principal = connect->client_name,
                                 .address = connect->address,
                                 .object = endpoint,
                                 .peer = connect->device_name,
                                 .bytes_up = up,
                                 .bytes_down = down,
                                 .duration = clock_ms() - connect->bridged };
    tenant_event(connect->tenant, &event);
}

/* The end of it: nothing points here any more. reason: why it is cut; REASON_none: it has ended by itself. */
static void finish(struct connect *connect, enum reason reason)
{
    unlist(connect);
    if (connect->state == CONNECT_BRIDGED) {
        leave_bytes(connect);
        record_end(connect, reason);
    }
    for (int side = 0; side < 2; side++)
        if (connect->channel[side] != NULL)
            chan_abandon(connect->channel[side]);
    if (connect->open != NULL)
        release_open(connect);
    evtimer_del(&connect->timer);
    charge_end(&connect->charge);
    bridge_clear(&connect->bridge);
    free(connect);
}

/* Before it is BRIDGED: answers the client and ends. */
static void give_up(struct connect *connect, enum reason reason, const char *detail)
{
    char asked[NAME_SIZE + 8];
    struct audit_event event = { .kind = EVENT_connect,
                                 .reason = reason,
                                 .object = endpoint_text(connect, asked),
                                 .peer = connect->device_name };
    if (reason == REASON_not_reachable) {
        event.cause = why_unreachable(connect->client, connect->name, connect->port);
        detail = reason_sentence(event.cause);
    }
    refuse(connect->client, connect->open, &event, detail);
    release_open(connect);
    finish(connect, reason);
}

void connect_close(struct connect *connect, enum reason reason)
{
    if (connect->state == CONNECT_BRIDGED)
        finish(connect, reason);
    else
        give_up(connect, reason, NULL);
}

bool connect_still_allowed(const struct connect *connect)
{
    bool own;
    if (connect->loopback)
        return true;
    /* What either has left behind when it went still needs its right. */
    const struct principal *client = connect->charge.principal[BRIDGE_CLIENT],
                           *device = connect->charge.principal[BRIDGE_DEVICE];
    if (publish_check_right(device, connect->name, connect->port, &own) != REASON_none)
        return false;
    return client->kind == PRINCIPAL_CLIENT && rules_allow(&client->rules, connect->name, connect->port);
}

void connect_cut(struct principal *principal, enum reason reason)
{
    struct connect *connect, *next;
    /* The last of them may free the principal. */
    DL_FOREACH_SAFE(principal->tenant->connects, connect, next)
        if (connect->state == CONNECT_BRIDGED && (connect->charge.principal[BRIDGE_CLIENT] == principal ||
                                                  connect->charge.principal[BRIDGE_DEVICE] == principal))
            finish(connect, reason);
}

/* ---- Opening ---- */

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct connect *connect = arg;
    (void)fd, (void)what;
    if (connect->state == CONNECT_WAITING) {
        connect->due = connect->client->wait_due = true;
        session_mark(connect->client);
        return;
    }
    connect->channel[BRIDGE_DEVICE]->news |= NEWS_TIMEOUT;
    chan_mark(connect->channel[BRIDGE_DEVICE]);
}

static bool may_wait(const struct connect *connect)
{
    return !connect->loopback && connect->client->loop->now < connect->wait_until;
}

/* Nobody serves it. A name that does not exist or that the client may not reach waits like one that
 * is away: neither the answer nor its time tells them apart. */
static void wait_or_give_up(struct connect *connect, enum reason otherwise)
{
    int64_t left = connect->wait_until - connect->client->loop->now;
    if (may_wait(connect) && set_timer(connect, left) == 0)
        set_state(connect, CONNECT_WAITING);
    else
        give_up(connect, otherwise, NULL);
}

/* Who serves it now, unless that is who was asked and did not answer. */
static struct publication *find_next(const struct connect *connect)
{
    struct publication *publication = find_publication(connect->client, connect->name, connect->port);
    return publication != NULL && publication->session->id == connect->silent ? NULL : publication;
}

/* Asks the device that serves the endpoint now; if nobody does, waits, or gives up with `otherwise`. */
static void start(struct connect *connect, enum reason otherwise)
{
    char requested[1024];
    char detail[ACCOUNT_TEXT_SIZE] = "";
    struct publication *publication = find_next(connect);
    if (publication == NULL) {
        wait_or_give_up(connect, otherwise);
        return;
    }
    enum reason reason = charge_check_device(&connect->charge, publication->session, detail);
    if (reason == REASON_none && set_timer(connect, us(connect->client->loop->config->open_timeout)) != 0)
        reason = REASON_out_of_memory;
    if (reason != REASON_none) {
        give_up(connect, reason, *detail != '\0' ? detail : NULL);
        return;
    }
    set_state(connect, CONNECT_OPENING);
    /* A copy: the call may read from the device, and with it the cancel of this very publication. */
    snprintf(requested, sizeof(requested), "%s", publication->requested);
    connect->device = publication->session;
    charge_device(&connect->charge, connect->device->principal, connect->client->loop->now);
    snprintf(connect->device_name, NAME_SIZE, "%s", connect->device->principal->name);
    connect->key_id[BRIDGE_DEVICE] = connect->device->key_id;
    connect->channel[BRIDGE_DEVICE] = chan_open_forward(connect->device, &device_ops, connect, requested,
                                                        connect->port, connect->client->address,
                                                        connect->client->port);
    if (connect->channel[BRIDGE_DEVICE] == NULL)
        give_up(connect, REASON_out_of_memory, NULL);
    else
        connect->channel[BRIDGE_DEVICE]->client = connect->charge.principal[BRIDGE_CLIENT]->id;
}

static struct connect *connect_new(struct session *session, ssh_message message, const char *name,
                                   uint16_t port)
{
    struct connect *connect = calloc(1, sizeof(*connect));
    if (connect == NULL || bridge_init(&connect->bridge) != 0) {
        free(connect);
        return NULL;
    }
    connect->id = atomic_fetch_add(&last_id, 1) + 1;
    connect->tenant = session->tenant;
    connect->client = session;
    connect->open = message;
    connect->since = time(NULL);
    charge_client(&connect->charge, session);
    connect->port = port;
    connect->loopback = session->principal->kind == PRINCIPAL_DEVICE;
    snprintf(connect->name, sizeof(connect->name), "%s", name);
    snprintf(connect->client_name, sizeof(connect->client_name), "%s", session->principal->name);
    connect->key_id[BRIDGE_CLIENT] = session->key_id;
    snprintf(connect->address, sizeof(connect->address), "%s", session->address);
    evtimer_assign(&connect->timer, session->loop->base, on_timeout, connect);
    enlist(connect);
    DL_APPEND2(session->opens, connect, open_prev, open_next);
    session->nopens++;
    connect->wait_until = session->loop->now + us(session->loop->config->wait_for_device);
    return connect;
}

void connect_open(struct session *session, ssh_message message)
{
    const char *host = ssh_message_channel_request_open_destination(message), *detail = NULL;
    uint16_t port = (uint16_t)ssh_message_channel_request_open_destination_port(message);
    char name[NAME_SIZE], asked[320], full[ACCOUNT_TEXT_SIZE];
    struct accounts accounts = session_accounts(session->principal);
    host = host != NULL ? host : "";
    enum reason reason = check(session, host, port, name);
    if (reason == REASON_none && session->loop->draining)
        reason = REASON_shutdown;
    if (reason == REASON_none && (reason = charge_admit(&accounts, session->loop->now, full)) != REASON_none)
        detail = full;
    struct audit_event event = { .kind = EVENT_connect, .object = asked };
    if (reason == REASON_none && session->loop->config->wait_for_device == 0 &&
        find_publication(session, name, port) == NULL) {
        reason = REASON_not_reachable;
        event.cause = why_unreachable(session, name, port);
        detail = reason_sentence(event.cause);
    }
    struct connect *connect = reason == REASON_none ? connect_new(session, message, name, port) : NULL;
    if (connect != NULL) {
        start(connect, REASON_not_reachable);
        return;
    }
    snprintf(asked, sizeof(asked), "%.300s:%u", host, port);
    event.reason = reason == REASON_none ? REASON_out_of_memory : reason;
    refuse(session, message, &event, detail);
    ssh_message_free(message);
}

void connect_resume(struct tenant *tenant)
{
    struct connect *connect, *next;
    tenant->has_news = false;
    DL_FOREACH_SAFE(tenant->waiting, connect, next)
        if (find_next(connect) != NULL)
            start(connect, REASON_not_reachable);
}

void connect_expire(struct session *session)
{
    struct connect *connect, *next;
    session->wait_due = false;
    DL_FOREACH_SAFE2(session->opens, connect, next, open_next)
    if (connect->due && connect->state == CONNECT_WAITING)
        give_up(connect, connect->silent != 0 ? REASON_open_timeout : REASON_not_reachable, NULL);
}

void connect_lose_opens(struct session *session)
{
    while (session->opens != NULL)
        finish(session->opens, REASON_peer_left);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    struct connect *connect = arg;
    (void)fd, (void)what;
    for (int side = 0; side < 2; side++)
        if (connect->channel[side] != NULL)
            chan_mark(connect->channel[side]);
}

/* If the endpoint is set so, the device's service hears first who connects. -1: out of memory. */
static int introduce(struct connect *connect)
{
    unsigned char header[PROXY_SIZE];
    char local[SOURCE_TEXT_SIZE];
    uint16_t local_port;
    const struct session *client = connect->client;
    const struct setting *setting = setting_find(connect->tenant->settings, connect->name, connect->port);
    if (setting == NULL || !setting->proxy_protocol)
        return 0;
    sshio_local(client->ssh, local, &local_port);
    struct proxy proxy = {
        .address = client->address,
        .port = client->port,
        .local = local,
        .endpoint = connect->name,
        .endpoint_port = connect->port,
        .principal = connect->client_name,
        .tenant = connect->tenant->name,
    };
    return bridge_introduce(&connect->bridge, BRIDGE_CLIENT, header, proxy_header(&proxy, header));
}

static void record_begin(struct connect *connect)
{
    char endpoint[NAME_SIZE + 8];
    connect->bridged = clock_ms();
    struct audit_event event = { .kind = EVENT_connect, .object = endpoint, .peer = connect->device_name };
    session_log_event(connect->client, LOG_LEVEL_INFO, &event,
                      "bridge %llu opened to %s (device session %llu)", (unsigned long long)connect->id,
                      endpoint_text(connect, endpoint), (unsigned long long)connect->device->id);
    session_event(connect->client, &event);
}

/* The device has confirmed: accept the client's channel and join the two. False: it is over. */
static bool join(struct connect *connect)
{
    ssh_channel accepted = NULL;
    connect->channel[BRIDGE_DEVICE]->state = CHANNEL_OPEN;
    if (introduce(connect) != 0) {
        give_up(connect, REASON_out_of_memory, NULL);
        return false;
    }
    if (sshio_alive(connect->client->ssh))
        accepted = ssh_message_channel_request_open_reply_accept(connect->open);
    session_touch(connect->client);
    release_open(connect);
    connect->channel[BRIDGE_CLIENT] = chan_adopt(connect->client, accepted, &client_ops, connect);
    if (connect->channel[BRIDGE_CLIENT] == NULL) {
        /* A CLOSE alone would look like the service's own: ssh -W would exit 0. */
        if (accepted != NULL)
            session_close(connect->client, REASON_out_of_memory, NULL);
        finish(connect, REASON_out_of_memory);
        return false;
    }
    set_state(connect, CONNECT_BRIDGED);
    evtimer_assign(&connect->timer, connect->client->loop->base, on_due, connect);
    record_begin(connect);
    chan_mark(connect->channel[BRIDGE_CLIENT]);
    return true;
}

/* It did not answer, and another may be asked: nothing that came from it may reach the client. */
static void forget_device(struct connect *connect)
{
    connect->channel[BRIDGE_DEVICE] = NULL;
    connect->device = NULL;
    bridge_reset(&connect->bridge);
    charge_held(&connect->charge, &connect->bridge);
    charge_forget_device(&connect->charge);
}

static void demote(struct publication *publication)
{
    struct endpoint *endpoint = publication->endpoint;
    bool served = endpoint->publications == publication;
    directory_demote(publication);
    if (served && endpoint->publications != publication)
        publish_record_standby(endpoint->publications);
}

/* The device did not answer: the standbys of what was asked for serve from now on, and its channel stays
 * behind to be closed if the answer ever comes. */
static void time_out(struct connect *connect)
{
    struct publication *publication = publish_find(connect->device, connect->name, connect->port);
    if (publication != NULL)
        demote(publication);
    if (!may_wait(connect)) {
        give_up(connect, REASON_open_timeout, NULL);
        return;
    }
    connect->silent = connect->device->id;
    chan_abandon(connect->channel[BRIDGE_DEVICE]);
    forget_device(connect);
    start(connect, REASON_open_timeout);
}

/* The answer of the device may have come. True if there is a bridge now. */
static bool answered(struct connect *connect)
{
    struct channel *channel = connect->channel[BRIDGE_DEVICE];
    if ((channel->news & NEWS_CONFIRMED) != 0) {
        return join(connect);
    } else if ((channel->news & NEWS_REFUSED) != 0) {
        char detail[200];
        snprintf(detail, sizeof(detail), "%s", ssh_get_error(connect->device->ssh));
        give_up(connect, REASON_open_refused, detail);
    } else if ((channel->news & NEWS_TIMEOUT) != 0) {
        time_out(connect);
    }
    return false;
}

/* ---- Relaying ---- */

/* One timer for both directions: for that which is due first. -1: out of memory. */
static int wait_for_turn(struct connect *connect, int64_t now)
{
    int64_t delay = INT64_MAX;
    for (int side = 0; side < 2; side++) {
        int64_t left = connect->charge.pace[side].due - now;
        if (left > 0 && left < delay)
            delay = left;
    }
    return set_timer(connect, delay);
}

/* How many bytes may go to this end now; with 0 the timer marks it when it is its turn. */
static size_t allowed_to(struct connect *connect, enum bridge_side side)
{
    int64_t now = connect->channel[side]->session->loop->now;
    size_t queued = evbuffer_get_length(connect->bridge.end[side].out);
    size_t allowed = charge_allowed(&connect->charge, side, queued, now);
    /* Without its timer it would wait for ever: rather too early. */
    return allowed > 0 || wait_for_turn(connect, now) == 0 ? allowed : connect->charge.pace[side].paid;
}

static bool write_some(struct connect *connect, enum bridge_side side, size_t allowed, size_t *budget)
{
    struct evbuffer_iovec front;
    struct channel *channel = connect->channel[side];
    evbuffer_peek(connect->bridge.end[side].out, -1, NULL, &front, 1);
    size_t n = chan_write(channel, front.iov_base, front.iov_len < allowed ? front.iov_len : allowed);
    bridge_wrote(&connect->bridge, side, n);
    charge_written(&connect->charge, side, n, channel->session->loop->now);
    metrics_add(side == BRIDGE_DEVICE ? METRIC_bytes_up : METRIC_bytes_down, n);
    *budget -= n < *budget ? n : *budget;
    return n > 0;
}

static void drain_some(struct connect *connect, enum bridge_side side)
{
    static _Thread_local unsigned char space[DRAIN_CHUNK];
    struct bridge_end *end = &connect->bridge.end[side];
    size_t room = bridge_room(&connect->bridge, side),
           most = end->held < DRAIN_CHUNK ? end->held : DRAIN_CHUNK;
    size_t n = chan_read_held(connect->channel[side], space, most < room ? most : room);
    if (bridge_drained(&connect->bridge, side, space, n) != 0)
        session_close(connect->channel[side]->session, REASON_out_of_memory, NULL);
}

/* From here on this end's session may go without a word to the bridge. */
static void leave(struct connect *connect, enum bridge_side side)
{
    connect->channel[side] = NULL;
    *(side == BRIDGE_CLIENT ? &connect->client : &connect->device) = NULL;
}

/* Does all that can be done at one end now. True if bytes wait for the peer. */
static bool relay(struct connect *connect, enum bridge_side side)
{
    struct channel *channel = connect->channel[side];
    size_t budget = WRITE_BUDGET, allowed;
    while (channel->session->state == SESSION_UP && sshio_alive(channel->session->ssh)) {
        switch (bridge_next(&connect->bridge, side)) {
        case BRIDGE_WRITE:
            if ((allowed = allowed_to(connect, side)) == 0)
                return false;
            if (!write_some(connect, side, allowed, &budget))
                return true;
            if (budget == 0) {
                session_mark(channel->session);
                return true;
            }
            break;
        case BRIDGE_DRAIN:
            drain_some(connect, side);
            break;
        case BRIDGE_EOF:
            chan_send_eof(channel);
            bridge_sent_eof(&connect->bridge, side);
            break;
        case BRIDGE_CLOSE:
            chan_close(channel);
            bridge_sent_close(&connect->bridge, side);
            leave(connect, side);
            chan_abandon(channel);
            return false;
        case BRIDGE_WAIT:
            return false;
        }
    }
    return false;
}

/* The other end may now have something to write, to drain, or to close. */
static void wake_other(struct connect *connect, enum bridge_side side)
{
    enum bridge_side other = side == BRIDGE_CLIENT ? BRIDGE_DEVICE : BRIDGE_CLIENT;
    struct channel *channel = connect->channel[other];
    enum bridge_action action = bridge_next(&connect->bridge, other);
    if (channel == NULL || action == BRIDGE_WAIT ||
        (action == BRIDGE_WRITE && charge_waits(&connect->charge, other, channel->session->loop->now)))
        return;
    /* On the work list already, it waits for its peer: marking it would only make both ends spin. */
    if (action != BRIDGE_WRITE || !channel->in_work)
        chan_mark(channel);
}

static bool serve_bridged(struct connect *connect, enum bridge_side side)
{
    unsigned news = connect->channel[side]->news;
    if ((news & NEWS_EOF) != 0)
        bridge_receive_eof(&connect->bridge, side);
    if ((news & NEWS_CLOSE) != 0)
        bridge_receive_close(&connect->bridge, side);
    charge_set_room(&connect->charge, &connect->bridge);
    bool more = relay(connect, side);
    charge_held(&connect->charge, &connect->bridge);
    wake_other(connect, side);
    if (bridge_over(&connect->bridge)) {
        finish(connect, REASON_none);
        return false;
    }
    return more;
}

static bool client_serve(struct channel *channel)
{
    return serve_bridged(channel->owner, BRIDGE_CLIENT);
}

static bool device_serve(struct channel *channel)
{
    struct connect *connect = channel->owner;
    /* Data, EOF and CLOSE may have come in the same read as the confirmation. */
    if (connect->state == CONNECT_BRIDGED || answered(connect))
        return serve_bridged(connect, BRIDGE_DEVICE);
    return false;
}

/* Inside libssh's callback. An EOF that came before in the same read is told first. */
static size_t receive(struct channel *channel, enum bridge_side side, const void *data, size_t len)
{
    struct connect *connect = channel->owner;
    if ((channel->news & NEWS_EOF) != 0)
        bridge_receive_eof(&connect->bridge, side);
    charge_set_room(&connect->charge, &connect->bridge);
    size_t taken = bridge_receive(&connect->bridge, side, data, len);
    charge_held(&connect->charge, &connect->bridge);
    return taken;
}

static size_t client_receive(struct channel *channel, const void *data, size_t len)
{
    return receive(channel, BRIDGE_CLIENT, data, len);
}

/* Data may come before the confirmation if the device misbehaves: it is kept like any other. */
static size_t device_receive(struct channel *channel, const void *data, size_t len)
{
    return receive(channel, BRIDGE_DEVICE, data, len);
}

/* One session of a bridge is gone: the other end still gets what is queued for it. */
static void lose_end(struct connect *connect, enum bridge_side side)
{
    leave(connect, side);
    bridge_lose(&connect->bridge, side);
    charge_held(&connect->charge, &connect->bridge);
    if (bridge_over(&connect->bridge))
        finish(connect, REASON_none);
    else
        wake_other(connect, side);
}

static void client_lose(struct channel *channel)
{
    lose_end(channel->owner, BRIDGE_CLIENT);
}

/* A device that leaves before it answers: a standby may serve. */
static void device_lose(struct channel *channel)
{
    struct connect *connect = channel->owner;
    if (connect->state == CONNECT_BRIDGED) {
        lose_end(connect, BRIDGE_DEVICE);
        return;
    }
    forget_device(connect);
    start(connect, REASON_device_gone);
}

void connect_repace(struct tenant *tenant)
{
    struct connect *connect;
    DL_FOREACH(tenant->connects, connect) {
        bool has_waited = connect->charge.pace[BRIDGE_CLIENT].due > 0 ||
                          connect->charge.pace[BRIDGE_DEVICE].due > 0;
        if (connect->state != CONNECT_BRIDGED || !has_waited)
            continue;
        connect->charge.pace[BRIDGE_CLIENT].due = connect->charge.pace[BRIDGE_DEVICE].due = 0;
        event_active(&connect->timer, EV_TIMEOUT, 0);
    }
}

static const struct channel_ops client_ops = { client_receive, client_serve, client_lose };
static const struct channel_ops device_ops = { device_receive, device_serve, device_lose };

unsigned connect_count(const struct session *session)
{
    unsigned n = 0;
    const struct channel *channel;
    DL_FOREACH(session->channels, channel)
        if (channel->ops == &client_ops || channel->ops == &device_ops)
            n += ((const struct connect *)channel->owner)->state == CONNECT_BRIDGED;
    return n;
}
