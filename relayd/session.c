#include "relayd/session.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

static atomic_uint_fast64_t last_id;
static atomic_uint live;
static atomic_uint waiting;

unsigned session_live(void)
{
    return atomic_load(&live);
}

unsigned session_waiting(void)
{
    return atomic_load(&waiting);
}

#define LEAVE_MS 3000 /* for the last answer to reach the peer */

static const char *const state_names[] = { "login", "hand-over", "up", "leaving", "dead" };

struct log_subject session_subject(const struct session *session)
{
    return (struct log_subject){
        .tenant = session->tenant != NULL ? session->tenant->name : NULL,
        .principal = session->principal != NULL ? session->principal->name : NULL,
        .session = session->id,
        .address = session->address,
    };
}

void session_set_state(struct session *session, enum session_state state)
{
    assert(state > session->state);
    session_log(session, LOG_LEVEL_DEBUG, "%s -> %s", state_names[session->state], state_names[state]);
    session->state = state;
}

/* ---- What libevent calls: record and mark ---- */

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct session *session = arg;
    (void)fd, (void)what;
    session->io_due = true;
    session_mark(session);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct session *session = arg;
    (void)fd, (void)what;
    session->timer_due = true;
    session_mark(session);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct session *session = arg;
    (void)fd, (void)what;
    session->tick_due = true;
    session_mark(session);
}

/* ---- Life ---- */

int session_attach(struct session *session, struct loop *loop)
{
    evutil_socket_t fd = ssh_get_fd(session->ssh);
    session->loop = loop;
    session->pass = 0; /* of another loop */
    DL_APPEND(loop->sessions, session);
    loop->nsessions++;
    event_assign(&session->read_event, loop->base, fd, EV_READ | EV_PERSIST, on_ready, session);
    event_assign(&session->write_event, loop->base, fd, EV_WRITE | EV_PERSIST, on_ready, session);
    evtimer_assign(&session->timer, loop->base, on_timer, session);
    evtimer_assign(&session->tick, loop->base, on_tick, session);
    return event_add(&session->read_event, NULL);
}

static void remove_events(struct session *session)
{
    event_del(&session->read_event);
    event_del(&session->write_event);
    event_del(&session->timer);
    event_del(&session->tick);
}

void session_detach(struct session *session)
{
    struct loop *loop = session->loop;
    remove_events(session);
    session_unmark(session);
    if (session->in_touched)
        DL_DELETE2(loop->touched, session, touched_prev, touched_next);
    session->in_touched = false;
    DL_DELETE(loop->sessions, session);
    loop->nsessions--;
    session->loop = NULL;
}

struct session *session_new(struct loop *loop, int fd, const char *address, uint16_t port,
                            session_global_request *on_global_request)
{
    struct session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        evutil_closesocket(fd);
        return NULL;
    }
    session->mail.kind = MAIL_SESSION;
    session->id = atomic_fetch_add(&last_id, 1) + 1;
    session->since = time(NULL);
    session->dead_peer_timeout = loop->config->dead_peer_timeout;
    snprintf(session->address, sizeof(session->address), "%s", address);
    session->port = port;
    session->ssh = sshio_accept(loop->bind, fd, &session->socket, &session->raw, loop->config->rekey_limit);
    if (session->ssh == NULL) {
        free(session);
        return NULL;
    }
    atomic_fetch_add(&live, 1);
    atomic_fetch_add(&waiting, 1);
    session->callbacks.userdata = session;
    session->callbacks.global_request_function = on_global_request;
    ssh_callbacks_init(&session->callbacks);
    ssh_set_callbacks(session->ssh, &session->callbacks);
    if (session_attach(session, loop) != 0)
        session_close(session, REASON_out_of_memory, NULL);
    ssh_handle_key_exchange(session->ssh); /* sends our banner; the rest comes with the peer's */
    session_touch(session);
    return session;
}

struct accounts session_accounts(struct principal *principal)
{
    struct accounts accounts = { 0 };
    accounts_add(&accounts, &principal->account);
    accounts_add(&accounts, &principal->tenant->account);
    return accounts;
}

static void charge(const struct session *session, int amount)
{
    struct accounts accounts = session_accounts(session->principal);
    accounts_charge(&accounts, LIMIT_sessions, amount);
}

void session_enter(struct session *session, struct tenant *tenant, struct principal *principal)
{
    assert(!session->in_dirty); /* its share changes */
    atomic_fetch_sub(&waiting, 1);
    session->tenant = tenant;
    session->principal = principal;
    DL_APPEND2(tenant->sessions, session, tenant_prev, tenant_next);
    session_set_state(session, SESSION_UP);
    charge(session, 1);
}

void session_close(struct session *session, enum reason reason, const char *detail)
{
    if (session->state == SESSION_DEAD)
        return;
    if (session->state == SESSION_UP)
        charge(session, -1);
    if (session->state != SESSION_LEAVING) { /* which has its reason already */
        session->end_reason = reason;
        snprintf(session->end_detail, sizeof(session->end_detail), "%s", detail != NULL ? detail : "");
    }
    session_set_state(session, SESSION_DEAD);
    session_touch(session);
}

void session_leave(struct session *session, enum reason reason)
{
    if (session->state != SESSION_UP)
        return;
    charge(session, -1);
    session_set_state(session, SESSION_LEAVING);
    session->end_reason = reason;
    session_set_timer(session, LEAVE_MS);
}

/* Whoever was let in leaves; who was not is refused, unless he said why before, or only looked by. */
static void record_end(struct session *session)
{
    struct audit_event event = { .kind = EVENT_logout, .object = session->fingerprint };
    bool left = session->end_reason == REASON_peer_left;
    event.reason = left ? REASON_none : session->end_reason;
    event.duration = (int64_t)(time(NULL) - session->since) * 1000;
    if (session->tenant == NULL)
        event.kind = EVENT_login;
    if (session->tenant == NULL && (session->tenant_id != 0 || left)) {
        session_log(session, LOG_LEVEL_INFO, "closed: %s%s%s", reason_sentence(session->end_reason),
                    session->end_detail[0] != '\0' ? ": " : "", session->end_detail);
        return;
    }
    session_event(session, &event);
    session_log_event(session, LOG_LEVEL_INFO, &event, "closed: %s%s%s", reason_sentence(session->end_reason),
                      session->end_detail[0] != '\0' ? ": " : "", session->end_detail);
}

void session_free(struct session *session)
{
    struct note *note, *next;
    assert(session->channels == NULL && session->publications == NULL);
    session_log_refusals(session);
    record_end(session);
    if (session->end_reason != REASON_peer_left)
        sshio_disconnect(session->ssh, reason_sentence(session->end_reason));
    session_detach(session);
    if (session->tenant != NULL) {
        DL_DELETE2(session->tenant->sessions, session, tenant_prev, tenant_next);
        principal_release(session->principal);
    } else {
        atomic_fetch_sub(&waiting, 1);
    }
    DL_FOREACH_SAFE(session->notes, note, next)
        free(note);
    DL_FOREACH_SAFE(session->refusals, note, next)
        free(note);
    ssh_free(session->ssh);
    free(session->key_blob);
    free(session);
    atomic_fetch_sub(&live, 1);
}

/* ---- Scheduling ---- */

static struct share *share_of(struct session *session)
{
    return session->tenant != NULL ? &session->tenant->share : &session->loop->strangers;
}

void session_mark(struct session *session)
{
    struct share *share = share_of(session);
    if (session->in_dirty)
        return;
    session->in_dirty = true;
    if (share->dirty == NULL)
        DL_APPEND(session->loop->shares, share);
    DL_APPEND2(share->dirty, session, dirty_prev, dirty_next);
}

void session_unmark(struct session *session)
{
    struct share *share = share_of(session);
    if (!session->in_dirty)
        return;
    session->in_dirty = false;
    DL_DELETE2(share->dirty, session, dirty_prev, dirty_next);
    if (share->dirty == NULL)
        DL_DELETE(session->loop->shares, share);
}

void session_touch(struct session *session)
{
    session->loop->calls++;
    if (session->in_touched)
        return;
    session->in_touched = true;
    DL_APPEND2(session->loop->touched, session, touched_prev, touched_next);
}

uint64_t session_backlog(const struct session *session)
{
    return session->socket.in_bytes - session->emptied_at;
}

/* Bytes of payload and of frames that were made so far, at the least: length, padding, MAC or tag. */
static uint64_t bytes_made(const struct session *session)
{
    return session->raw.out_bytes + 25 * session->raw.out_packets;
}

/* Bytes that the socket has not taken, at the least. */
static uint64_t unsent(const struct session *session)
{
    uint64_t made = bytes_made(session) - session->flushed_made;
    uint64_t sent = session->socket.out_bytes - session->flushed_socket;
    return made > sent ? made - sent : 0;
}

/* libssh closes the descriptor by itself, and its number is reused at once: the events must go in
 * the same pass. */
void session_settle(struct session *session)
{
    if (!sshio_alive(session->ssh)) {
        /* libssh closes the descriptor when the peer goes, and leaves it open when it breaks the
         * protocol. Asking for the farewell overwrites the error. */
        char error[sizeof(session->end_detail)];
        snprintf(error, sizeof(error), "%s", ssh_get_error(session->ssh));
        const char *farewell = ssh_get_disconnect_message(session->ssh);
        bool left = farewell != NULL || ssh_get_fd(session->ssh) < 0;
        session_close(session, left ? REASON_peer_left : REASON_protocol_error,
                      farewell != NULL ? farewell : error);
    }
    if (session->state != SESSION_DEAD && unsent(session) > LIMIT_UNSENT)
        session_close(session, REASON_protocol_error, "it does not read what it is sent");
    if (session->state == SESSION_DEAD) {
        remove_events(session);
        return;
    }
    /* Most calls into libssh may read: what they queued has to be fetched, though the socket is empty. */
    if (session->socket.in_bytes != session->emptied_at) {
        session->io_due = true;
        session_mark(session);
    }
    if (session->socket.out_bytes != session->sent_at)
        session_watch(session);
    bool armed = event_pending(&session->write_event, EV_WRITE, NULL) != 0;
    bool wanted = sshio_write_pending(session->ssh);
    if (!wanted) {
        session->flushed_made = bytes_made(session);
        session->flushed_socket = session->socket.out_bytes;
        /* Some other call has emptied the socket's buffer: there will be no event for it. */
        if (session->wants_write)
            session_mark(session);
        session->wants_write = false;
    }
    if (!wanted && armed)
        event_del(&session->write_event);
    if (wanted && !armed && event_add(&session->write_event, NULL) != 0)
        session_close(session, REASON_out_of_memory, NULL);
}

void session_set_timer(struct session *session, unsigned ms)
{
    struct timeval delay = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };
    session->timer_due = false;
    if (ms == 0)
        evtimer_del(&session->timer);
    else if (evtimer_add(&session->timer, &delay) != 0)
        session_close(session, REASON_out_of_memory, NULL);
}

/* Before the login its time is bounded as a whole. */
void session_watch(struct session *session)
{
    static const struct timeval second = { .tv_sec = 1 };
    if (session->state == SESSION_UP && !evtimer_pending(&session->tick, NULL))
        evtimer_add(&session->tick, &second);
}

/* While a rekey that we began waits for the peer, libssh takes whatever is written and keeps it
 * where no limit sees it. A write that sent no packet shows it; any later packet ends it. */
void session_park(struct session *session)
{
    session->parked_at = session->raw.out_packets + 1;
    session_watch(session);
}

bool session_parked(const struct session *session)
{
    return session->parked_at == session->raw.out_packets + 1;
}

bool session_may_write(struct session *session)
{
    if (session->state == SESSION_DEAD || !sshio_alive(session->ssh))
        return false;
    if (sshio_write_pending(session->ssh)) {
        session->wants_write = true;
        return false;
    }
    if (session_parked(session))
        return false;
    session->parked_at = 0;
    return true;
}

void session_doubt(struct session *session)
{
    session->doubted = LIMIT_ANSWER + 1;
    session_watch(session);
}

void session_list_work(struct channel *channel)
{
    struct session *session = channel->session;
    channel->in_work = true;
    DL_APPEND2(session->work, channel, work_prev, work_next);
    session->nwork++;
}

void session_unlist_work(struct channel *channel)
{
    struct session *session = channel->session;
    channel->in_work = false;
    DL_DELETE2(session->work, channel, work_prev, work_next);
    session->nwork--;
}

/* ---- Events and refusals ---- */

void session_event(struct session *session, const struct audit_event *event)
{
    struct audit_event whole = *event;
    whole.address = session->address;
    if (session->tenant == NULL) {
        whole.tenant_id = whole.tenant_id != 0 ? whole.tenant_id : AUDIT_STRANGERS;
        audit(&whole);
        return;
    }
    whole.principal_id = session->principal->id;
    whole.principal = session->principal->name;
    tenant_event(session->tenant, &whole);
}

static struct note *note_new(const char *text)
{
    size_t len = strlen(text) + 1;
    struct note *note = malloc(sizeof(*note) + len);
    if (note == NULL)
        return NULL;
    note->time = time(NULL);
    memcpy(note->text, text, len);
    return note;
}

static void add_note(struct session *session, const char *text)
{
    struct note *note = session->nnotes < LIMIT_REFUSALS ? note_new(text) : NULL;
    if (note == NULL)
        return;
    DL_APPEND(session->notes, note);
    session->nnotes++;
    session_mark(session);
}

static void remember(struct session *session, const char *text)
{
    struct note *note = note_new(text), *oldest = session->refusals;
    if (note == NULL)
        return;
    DL_APPEND(session->refusals, note);
    if (++session->nrefusals <= LIMIT_REFUSALS_KEPT)
        return;
    DL_DELETE(session->refusals, oldest);
    session->nrefusals--;
    free(oldest);
}

static void log_refusal(const struct session *session, const struct refusal *refusal)
{
    if (refusal->count <= LIMIT_REFUSALS)
        return;
    unsigned more = refusal->count - LIMIT_REFUSALS;
    if (refusal == &session->refused[LIMIT_REFUSALS_KINDS - 1])
        session_log(session, LOG_LEVEL_WARN, "refused %u more times, for other reasons", more);
    else
        session_log(session, LOG_LEVEL_WARN, "refused %s %u more times: %s: %s", event_code(refusal->what),
                    more, reason_code(refusal->reason), reason_sentence(refusal->reason));
}

void session_log_refusals(struct session *session)
{
    for (unsigned i = 0; i < LIMIT_REFUSALS_KINDS; i++)
        log_refusal(session, &session->refused[i]);
    memset(session->refused, 0, sizeof(session->refused));
}

static struct refusal *find_refusal(struct session *session, enum event_kind what, enum reason reason)
{
    struct refusal *refusal = session->refused;
    for (unsigned i = 0; i < LIMIT_REFUSALS_KINDS - 1; i++, refusal++) {
        if (refusal->count == 0)
            *refusal = (struct refusal){ .what = what, .reason = reason };
        if (refusal->reason == reason && refusal->what == what)
            break;
    }
    return refusal;
}

/* A flood of refusals must not become a flood of lines, nor of notes, as sending one reads from the
 * peer. */
static bool is_flood(struct session *session, enum event_kind what, enum reason reason)
{
    time_t now = time(NULL);
    if (session->refused_second != now)
        session_log_refusals(session);
    session->refused_second = now;
    return ++find_refusal(session, what, reason)->count > LIMIT_REFUSALS;
}

void session_refuse_event(struct session *session, const struct audit_event *event, const char *detail)
{
    char text[640], plain[300];
    session_event(session, event);
    if (is_flood(session, event->kind, event->reason)) {
        session_watch(session); /* it logs them */
        return;
    }
    log_quote(event->object, plain, sizeof(plain));
    snprintf(text, sizeof(text), "refused %s %s: %s: %s", event_code(event->kind), plain,
             reason_code(event->reason), reason_sentence(event->reason));
    session_log_event(session, LOG_LEVEL_WARN, event, "%s%s%s%s", text, detail != NULL ? " (" : "",
                      detail != NULL ? detail : "", detail != NULL ? ")" : "");
    if (session->state == SESSION_UP) {
        add_note(session, text);
        remember(session, text);
    }
}

void session_refuse(struct session *session, enum event_kind what, const char *asked, enum reason reason,
                    const char *detail)
{
    struct audit_event event = { .kind = what, .reason = reason, .object = asked };
    session_refuse_event(session, &event, detail);
}

void session_send_notes(struct session *session)
{
    while (session->notes != NULL) {
        struct note *note = session->notes;
        DL_DELETE(session->notes, note);
        session->nnotes--;
        if (session->state == SESSION_UP && sshio_alive(session->ssh))
            ssh_send_debug(session->ssh, note->text, 1);
        session_touch(session);
        free(note);
    }
}
