#include "relayd/serve.h"

#include "relayd/auth.h"
#include "relayd/clock.h"
#include "relayd/connect.h"
#include "relayd/console.h"
#include "relayd/keeper.h"
#include "relayd/publish.h"
#include "relayd/watch.h"

#include <utlist.h>

#define READ_FULL 65536u /* what one read of large packets brings while more waits in the kernel */
#define SHARE_US 200     /* of a tenant a pass, and of */
#define SHARE_MAX_US 2000
#define SLICE_US 100 /* one session; each is over with the first step that ends behind it */

void (*serve_hand_over)(struct session *session);

/* ---- Messages ---- */

static void open_channel(struct session *session, ssh_message message)
{
    int type = ssh_message_subtype(message);
    if (type == SSH_CHANNEL_DIRECT_TCPIP) {
        connect_open(session, message); /* keeps it until the device has answered */
        return;
    }
    if (type == SSH_CHANNEL_SESSION) {
        console_open(session, message);
    } else {
        session_refuse(session, EVENT_channel, type == SSH_CHANNEL_X11 ? "x11" : "other type",
                       REASON_not_supported, NULL);
        session_send_notes(session);
        ssh_message_reply_default(message);
    }
    session_touch(session);
    ssh_message_free(message);
}

static void dispatch(struct session *session, ssh_message message)
{
    if (session->state == SESSION_UP && ssh_message_type(message) == SSH_REQUEST_CHANNEL_OPEN) {
        open_channel(session, message);
        return;
    }
    if (session->state == SESSION_LOGIN)
        auth_message(session, message);
    else if (ssh_message_type(message) == SSH_REQUEST_CHANNEL)
        console_request(session, message);
    else if (ssh_message_type(message) != SSH_REQUEST_AUTH) /* late ones are ignored (RFC 4252, 5.1) */
        ssh_message_reply_default(message);
    ssh_message_free(message);
}

/* ---- Reading ---- */

static bool slice_is_over(const struct session *session)
{
    return clock_us() >= session->loop->slice_end;
}

static bool is_greedy(const struct session *session)
{
    return session->state == SESSION_LOGIN && session->socket.in_bytes > LIMIT_LOGIN_BYTES;
}

/* libssh has no message left for us. */
static void has_emptied(struct session *session)
{
    /* While it had too many, opens passed by what the session publishes. */
    if (session_backlog(session) >= LIMIT_BACKLOG && session->tenant != NULL)
        session->tenant->has_news = session->loop->has_news = true;
    session->emptied_at = session->socket.in_bytes;
}

/* One step of reading: a queued message, or up to 64 KiB from the socket with their callbacks.
 * Returns true if there may be more; of small packets, which come 4 KiB at a time, the event tells anew. */
static bool read_step(struct session *session)
{
    uint64_t before = session->socket.in_bytes;
    ssh_message message = ssh_message_get(session->ssh);
    session_touch(session);
    if (is_greedy(session))
        session_close(session, REASON_too_many_attempts, NULL);
    if (!sshio_alive(session->ssh) || session->state == SESSION_DEAD) {
        ssh_message_free(message);
        return false;
    }
    if (message == NULL) {
        has_emptied(session);
        return session->socket.in_bytes - before >= READ_FULL;
    }
    dispatch(session, message);
    return session->state != SESSION_DEAD && session->state != SESSION_HANDOVER;
}

/* Reads until the slice is over. Returns true if messages are left that libssh has read: they come before
 * anything else that might read more, or a flood would pile up. */
static bool read_some(struct session *session)
{
    session->io_due = false;
    do {
        if (!read_step(session))
            return false;
    } while (!slice_is_over(session));
    session->io_due = true;
    session_mark(session);
    return session_backlog(session) != 0;
}

/* ---- One session ---- */

static void on_timer_due(struct session *session)
{
    session->timer_due = false;
    if (session->state == SESSION_LOGIN)
        auth_tick(session);
    else if (session->state == SESSION_LEAVING)
        session_close(session, session->end_reason, NULL);
    else if (session->npublications == 0 && session->nchannels > 0)
        session_set_timer(session, PUBLISH_REFUSED_GRACE_MS);
    else if (session->npublications == 0)
        session_close(session, REASON_nothing_published, NULL);
}

/* Each channel that is on the work list now, once: those that are blocked put themselves back. They call no
 * libssh and cost little; only when some did, at either end of their bridges, does the rest have to wait. */
static void serve_channels(struct session *session)
{
    uint64_t calls = session->loop->calls;
    for (unsigned n = session->nwork; n > 0 && session->work != NULL && session->state != SESSION_DEAD; n--) {
        struct channel *channel = session->work;
        session_unlist_work(channel);
        chan_serve(channel);
        if (session->loop->calls != calls && slice_is_over(session)) {
            session_mark(session);
            break;
        }
    }
}

static void serve_session(struct session *session)
{
    if (session->state == SESSION_DEAD || !sshio_alive(session->ssh)) {
        session_touch(session);
        return;
    }
    bool flooded = session->io_due && read_some(session);
    /* What had arrived by then is no silence, and an end is no word. */
    if (session->timer_due && session->state != SESSION_DEAD && sshio_alive(session->ssh))
        on_timer_due(session);
    watch_serve(session);
    if (flooded || session->state == SESSION_HANDOVER)
        return;
    if (session->wait_due)
        connect_expire(session);
    session_send_notes(session);
    serve_channels(session);
    if (session->state == SESSION_LEAVING && session->nchannels == 0)
        session_close(session, session->end_reason, NULL);
    session_touch(session);
}

/* ---- Teardown ---- */

/* Order matters: first nobody may find it, then the opens that it waits for and the channels that
 * others are joined to, then the session itself. */
static void tear_down(struct session *session)
{
    struct channel *channel, *next;
    if (session->tenant != NULL) {
        publish_withdraw_all(session);
        keeper_saw_login(session->principal->id, session->key_id, session->address);
    }
    connect_lose_opens(session);
    DL_FOREACH_SAFE(session->channels, channel, next)
        chan_lose(channel);
    auth_end(session);
    session_free(session);
}

/* Losing a channel may touch other sessions, and libssh may end those in turn: until none is left. */
void serve_reap(struct loop *loop)
{
    while (loop->touched != NULL) {
        struct session *session = loop->touched;
        DL_DELETE2(loop->touched, session, touched_prev, touched_next);
        session->in_touched = false;
        if (session->state == SESSION_HANDOVER && sshio_alive(session->ssh)) {
            session_detach(session);
            serve_hand_over(session);
            continue;
        }
        session_settle(session);
        if (session->state == SESSION_DEAD)
            tear_down(session);
    }
}

/* ---- The pass ---- */

/* Once a pass, however many sessions have published. */
static void resume_waiting(struct loop *loop)
{
    struct tenant *tenant, *next;
    if (!loop->has_news || loop->draining)
        return;
    loop->has_news = false;
    HASH_ITER(hh, loop->tenants, tenant, next)
        if (tenant->has_news)
            connect_resume(tenant);
}

/* Each session once at the most: who is marked again comes behind all others. What a session leaves to be
 * torn down is a part of its tenant's share. Nobody waits behind strangers: they have workers of their own.
 */
static void serve_share(struct loop *loop, struct share *share, int64_t limit)
{
    int64_t now = clock_us(), end = share == &loop->strangers ? INT64_MAX : now + limit;
    for (; share->dirty != NULL && share->dirty->pass != loop->pass && now < end; now = clock_us()) {
        struct session *session = share->dirty;
        session_unmark(session);
        session->pass = loop->pass;
        loop->slice_end = now + SLICE_US;
        serve_session(session);
        if (session->state == SESSION_DEAD || !sshio_alive(session->ssh))
            serve_reap(loop);
    }
    serve_reap(loop);
}

bool serve_pass(struct loop *loop, int64_t polled)
{
    int64_t limit = polled < SHARE_US ? SHARE_US : polled < SHARE_MAX_US ? polled : SHARE_MAX_US;
    loop->pass++;
    while (loop->shares != NULL && loop->shares->pass != loop->pass) {
        struct share *share = loop->shares;
        share->pass = loop->pass;
        serve_share(loop, share, limit);
        if (share->dirty != NULL) { /* behind the others */
            DL_DELETE(loop->shares, share);
            DL_APPEND(loop->shares, share);
        }
    }
    resume_waiting(loop);
    serve_reap(loop);
    return loop->shares != NULL;
}

void serve_accept(struct loop *loop, int fd, const struct source *source, const char *address, uint16_t port)
{
    struct session *session = session_new(loop, fd, address, port, publish_on_global_request);
    if (session == NULL)
        return;
    session->source = *source;
    auth_begin(session);
}

void serve_arrive(struct loop *loop, struct session *session)
{
    if (session_attach(session, loop) != 0) {
        session_close(session, REASON_out_of_memory, NULL);
        return;
    }
    auth_arrive(session);
    session->io_due = true; /* what came behind the authentication may be in libssh already */
    session_mark(session);
    session_touch(session);
}

void serve_close_all(struct loop *loop, enum reason reason)
{
    struct session *session;
    DL_FOREACH(loop->sessions, session)
        session_close(session, reason, NULL);
}

void serve_expire(struct principal *principal)
{
    struct session *session;
    struct audit_event event = { .kind = EVENT_expire,
                                 .principal_id = principal->id,
                                 .principal = principal->name };
    tenant_event(principal->tenant, &event);
    DL_FOREACH2(principal->tenant->sessions, session, tenant_next)
        if (session->principal == principal)
            session_close(session, REASON_key_expired, NULL);
    connect_cut(principal, REASON_key_expired);
}
