#define SSH_SUPPRESS_DEPRECATED /* the message interface is the one that fits an event loop */
#include "relayd/auth.h"

#include "relayd/enrol.h"
#include "relayd/gate.h"
#include "relayd/keeper.h"
#include "relayd/pubkey.h"
#include "relayd/publish.h"
#include "relayd/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define TICK_US 1000000

/* Whom a key stands for. */
struct identity {
    int64_t tenant_id, principal_id, key_id;
    char tenant[NAME_SIZE], principal[NAME_SIZE];
    bool expired;
};

/* ---- The clock ---- */

static void set_tick(struct session *session)
{
    int64_t left = session->login_by - session->loop->now;
    if (left > TICK_US)
        left = TICK_US;
    session_set_timer(session, left > 1000 ? (unsigned)(left / 1000) : 1);
}

void auth_begin(struct session *session)
{
    session->login_by = session->loop->now + (int64_t)session->loop->config->login_grace * 1000;
    set_tick(session);
}

void auth_tick(struct session *session)
{
    session->silent = session->socket.in_bytes != session->heard_at ? 0 : session->silent + 1;
    session->heard_at = session->socket.in_bytes;
    if (session->loop->now >= session->login_by)
        session_close(session, REASON_login_timeout, NULL);
    else if (session->silent >= LIMIT_LOGIN_SILENCE && gate_is_full())
        session_close(session, REASON_login_timeout, "it was silent while others waited");
    else
        set_tick(session);
}

/* ---- Keys ---- */

static void identity_from_row(struct query *query, struct identity *identity)
{
    int64_t expires = query_int(query, 5);
    identity->tenant_id = query_int(query, 0);
    snprintf(identity->tenant, sizeof(identity->tenant), "%s", query_text(query, 1));
    identity->principal_id = query_int(query, 2);
    snprintf(identity->principal, sizeof(identity->principal), "%s", query_text(query, 4));
    identity->key_id = query_int(query, 6);
    identity->expired = expires != 0 && expires <= time(NULL);
}

/* REASON_none with *identity, unknown_key, or registry_unavailable. */
static enum reason look_up(struct store *store, const char *blob, const char *user, struct identity *identity)
{
    struct query *query = store_query(store, SQL_find_login, "tt", blob, user);
    int rc = query_next(query);
    if (rc > 0)
        identity_from_row(query, identity);
    query_end(query);
    store_set_readable(rc >= 0);
    return rc > 0 ? REASON_none : rc == 0 ? REASON_unknown_key : REASON_registry_unavailable;
}

/* It is about whoever that is. */
static void identify(struct audit_event *event, const struct identity *identity)
{
    event->tenant_id = identity->tenant_id;
    event->tenant = identity->tenant;
    event->principal_id = identity->principal_id;
    event->principal = identity->principal;
}

/* A text that the user reads before he is logged in. Only for who has proven the key. */
static void __attribute__((format(printf, 2, 3))) send_banner(struct session *session, const char *fmt, ...)
{
    char text[1000], line[sizeof(text) + 16];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    snprintf(line, sizeof(line), "relayd: %s\r\n", text);
    ssh_string banner = ssh_string_from_char(line);
    if (banner != NULL)
        ssh_send_issue_banner(session->ssh, banner);
    ssh_string_free(banner);
}

/* What is true of a key that is unknown where the user name leads, for the relay's administrators alone: no
 * tenant is told of it, nor the peer. It is asked of every such key, so that all take the same time. */
static enum reason why_unknown(struct store *store, const char *blob)
{
    struct query *query = store_query(store, SQL_key_known, "t", blob);
    enum reason cause = query_next(query) > 0 ? REASON_other_tenant : REASON_none;
    query_end(query);
    return cause;
}

/* identity: whose the key is; NULL: nobody's. */
static void refuse_key(struct session *session, ssh_message message, const struct pubkey *key,
                       enum event_kind kind, enum reason reason, const struct identity *identity)
{
    char asked[400];
    snprintf(asked, sizeof(asked), "%.100s@%s %s", ssh_message_auth_user(message), session->address,
             key->fingerprint);
    struct audit_event event = { .kind = kind, .reason = reason, .object = asked };
    if (identity != NULL)
        identify(&event, identity);
    if (reason == REASON_unknown_key)
        event.cause = why_unknown(session->loop->store, key->blob);
    session_refuse_event(session, &event, event.cause != REASON_none ? reason_sentence(event.cause) : NULL);
    ssh_message_reply_default(message);
}

/* The key is proven: the session belongs to the tenant from here on. */
static void hand_over(struct session *session, ssh_message message, struct pubkey *key,
                      const struct identity *identity)
{
    session->tenant_id = identity->tenant_id;
    session->key_blob = key->blob;
    key->blob = NULL;
    snprintf(session->fingerprint, sizeof(session->fingerprint), "%s", key->fingerprint);
    session_set_timer(session, 0);
    ssh_message_auth_reply_success(message, 0);
    session_touch(session);
    session_set_state(session, SESSION_HANDOVER);
}

/* ---- Enrolment ---- */

/* Nobody says whether there is such a tenant, nor how many keys wait in it: the keeper finds that out later.
 */
static void invite(struct session *session, const char *tenant, const char *fingerprint)
{
    bool usual = strcmp(tenant, "default") == 0;
    send_banner(session,
                "this key is not registered yet. Its fingerprint is\r\n"
                "    %s\r\n"
                "Ask the relay's administrator to compare that and to approve it, a device's by\r\n"
                "    relayctl %s%s%sadd-device --pending %s --name NAME\r\n"
                "and a client's by add-client. Then this login works.",
                fingerprint, usual ? "" : "--tenant ", usual ? "" : tenant, usual ? "" : " ", fingerprint);
}

/* A proven key that the tenant does not know. Only one in a connection: an agent has others, which nobody
 * meant. */
static void enrol(struct session *session, ssh_message message, const struct pubkey *key, const char *tenant,
                  const char *hint)
{
    enum reason reason = REASON_not_approved;
    struct enrolment *enrolment = enrol_new(tenant, hint, key, session->address, &session->source);
    if (enrolment == NULL || keeper_enrol(enrolment) != 0)
        reason = REASON_store_unavailable;
    if (reason == REASON_not_approved)
        invite(session, tenant, key->fingerprint);
    else
        send_banner(session, "%s", reason_sentence(reason));
    refuse_key(session, message, key, EVENT_enrol, reason, NULL);
    session_close(session, reason, NULL);
}

/* ---- Login ---- */

/* The key is proven, and registered. */
static void let_in(struct session *session, ssh_message message, struct pubkey *key,
                   const struct identity *identity, bool enrols)
{
    if (enrols)
        send_banner(session, "this key is registered in tenant %s already", identity->tenant);
    if (identity->expired) {
        send_banner(session, "%s", reason_sentence(REASON_key_expired));
        refuse_key(session, message, key, EVENT_login, REASON_key_expired, identity);
    } else {
        hand_over(session, message, key, identity);
    }
}

static void try_key(struct session *session, ssh_message message, struct pubkey *key)
{
    struct identity identity = { 0 };
    char tenant[NAME_SIZE], hint[ENROL_HINT_SIZE];
    const char *user = ssh_message_auth_user(message) != NULL ? ssh_message_auth_user(message) : "";
    enum ssh_publickey_state_e proof = ssh_message_auth_publickey_state(message);
    bool enrols = session->loop->config->enrolment && enrol_parse(user, tenant, hint);
    enum reason reason = look_up(session->loop->store, key->blob, enrols ? tenant : user, &identity);
    /* The key may be at home elsewhere. */
    if (enrols && reason == REASON_none && strcmp(identity.tenant, tenant) != 0)
        reason = REASON_unknown_key;

    if (reason != REASON_none && !(enrols && reason == REASON_unknown_key))
        refuse_key(session, message, key, EVENT_login, reason, NULL);
    else if (proof == SSH_PUBLICKEY_STATE_NONE)
        ssh_message_auth_reply_pk_ok_simple(message);
    else if (proof != SSH_PUBLICKEY_STATE_VALID)
        ssh_message_reply_default(message);
    else if (reason != REASON_none)
        enrol(session, message, key, tenant, hint);
    else
        let_in(session, message, key, &identity, enrols);
}

static void public_key(struct session *session, ssh_message message)
{
    struct pubkey key;
    struct failure failure = { 0 };
    if (pubkey_from_ssh(ssh_message_auth_pubkey(message), &key, &failure) == 0) {
        try_key(session, message, &key);
    } else {
        session_refuse(session, EVENT_login, key.type, failure.reason, failure.text);
        ssh_message_reply_default(message);
    }
    pubkey_clear(&key);
}

void auth_message(struct session *session, ssh_message message)
{
    int type = ssh_message_type(message);
    if (type == SSH_REQUEST_SERVICE && strcmp(ssh_message_service_service(message), "ssh-userauth") == 0) {
        ssh_message_service_reply_success(message);
    } else if (type == SSH_REQUEST_AUTH) {
        if (++session->attempts > LIMIT_LOGIN_ATTEMPTS)
            session_close(session, REASON_too_many_attempts, NULL);
        else if (ssh_message_subtype(message) == SSH_AUTH_METHOD_PUBLICKEY)
            public_key(session, message);
        else
            ssh_message_reply_default(message); /* names the one method that there is */
    } else {
        session_close(session, REASON_protocol_error, "a message before the login");
    }
    session_touch(session);
}

/* ---- The tenant ---- */

/* Which session of a device has to go for a newer one: its oldest standby; else its oldest, as it may be
 * dead and not know it. NULL if it has none. */
static struct session *dispensable(const struct principal *principal)
{
    struct session *session, *oldest = NULL;
    DL_FOREACH2(principal->tenant->sessions, session, tenant_next) {
        if (session->principal != principal || session->state != SESSION_UP)
            continue;
        if (publish_is_standby(session))
            return session;
        oldest = oldest != NULL ? oldest : session;
    }
    return oldest;
}

/* Two hosts with one key throw each other out. */
static void count_swap(struct session *session, const struct session *other, const struct identity *identity)
{
    struct principal *principal = other->principal;
    time_t now = time(NULL);
    if (now - principal->swapped_at > LIMIT_SWAPS_S)
        principal->swaps = 0;
    principal->swapped_at = now;
    if (++principal->swaps % LIMIT_SWAPS != 0)
        return;
    struct audit_event event = { .kind = EVENT_duplicate_publisher, .peer = other->address };
    identify(&event, identity);
    session_log_event(session, LOG_LEVEL_WARN, &event,
                      "%s throws its sessions out again and again: do two hosts have one key?",
                      principal->name);
    session_event(session, &event);
}

/* Makes room for one more session. False if there is none to be had. */
static bool make_room(struct session *session, struct principal *principal, const struct identity *identity)
{
    char user[NAME_SIZE + 80], detail[ACCOUNT_TEXT_SIZE];
    struct accounts accounts = session_accounts(principal);
    const struct account *full = accounts_full(&accounts, LIMIT_sessions, session->loop->now);
    if (full == NULL)
        return true;
    bool swaps = principal->kind == PRINCIPAL_DEVICE && full->limits.value[LIMIT_sessions] > 0;
    struct session *other = swaps ? dispensable(principal) : NULL;
    if (other != NULL) {
        count_swap(session, other, identity);
        session_close(other, REASON_superseded, NULL);
        return true;
    }
    account_describe(full, LIMIT_sessions, detail);
    snprintf(user, sizeof(user), "%s@%s", principal->name, session->address);
    struct audit_event event = { .kind = EVENT_login, .reason = REASON_too_many_sessions, .object = user };
    identify(&event, identity);
    session_refuse_event(session, &event, detail);
    return false;
}

/* Enters the tenant, or returns why not. */
static enum reason enter(struct session *session, const struct identity *identity)
{
    struct tenant *tenant = tenant_get(session->loop, identity->tenant_id, identity->tenant);
    if (tenant == NULL)
        return REASON_registry_unavailable;
    enum reason why;
    struct principal *principal = principal_acquire(session->loop, tenant, identity->principal_id, &why);
    if (principal == NULL)
        return why;
    if (!make_room(session, principal, identity)) {
        principal_release(principal);
        return REASON_too_many_sessions;
    }
    session->key_id = identity->key_id;
    session_enter(session, tenant, principal);
    return REASON_none;
}

/* The name of the tenant that the login selected, "" if it is gone. */
static void tenant_name(struct session *session, char name[NAME_SIZE])
{
    struct query *query = store_query(session->loop->store, SQL_get_tenant, "i", session->tenant_id);
    snprintf(name, NAME_SIZE, "%s", query_next(query) > 0 ? query_text(query, 0) : "");
    query_end(query);
}

void auth_arrive(struct session *session)
{
    char name[NAME_SIZE];
    struct identity identity = { 0 };
    tenant_name(session, name);
    enum reason reason = look_up(session->loop->store, session->key_blob, name, &identity);
    if (reason == REASON_none && identity.tenant_id != session->tenant_id)
        reason = REASON_revoked;
    if (reason == REASON_none)
        reason = identity.expired ? REASON_key_expired : enter(session, &identity);
    free(session->key_blob);
    session->key_blob = NULL;
    struct audit_event event = { .kind = EVENT_login, .reason = reason, .object = session->fingerprint };
    if (reason != REASON_none) {
        identify(&event, &identity);
        if (reason != REASON_too_many_sessions) /* that one is told already */
            session_event(session, &event);
        session_close(session, reason, NULL);
        return;
    }
    session_event(session, &event);
    session_log_event(session, LOG_LEVEL_INFO, &event, "logged in as %s from %s port %u, key %s",
                      principal_kind_name(session->principal), session->address, session->port,
                      session->fingerprint);
    keeper_saw_login(session->principal->id, session->key_id, session->address);
    gate_login(&session->source);
}

/* ---- The end ---- */

/* Did it begin with something else than a version (RFC 4253, 4.2: 255 bytes at most)? libssh ends such a
 * session as if the peer had left. */
static bool is_no_ssh(const struct session *session)
{
    const char *version = ssh_get_clientbanner(session->ssh);
    return version != NULL ? strncmp(version, "SSH-", 4) != 0 : session->socket.in_bytes > 255;
}

/* What it has done wrong, that never logged in. Who connects and soon leaves without a word, as health
 * checks do, has done nothing; nor has who proved a key, or could not be looked up. */
static enum penalty penalty_for(const struct session *session)
{
    if (session->tenant_id != 0 || !store_readable())
        return PENALTY_none;
    switch (session->end_reason) {
    case REASON_login_timeout:
        return PENALTY_too_slow;
    case REASON_protocol_error:
        return PENALTY_garbage;
    case REASON_too_many_attempts:
        return PENALTY_bad_login;
    case REASON_not_approved:
    case REASON_store_unavailable: /* it asked, and has to ask again */
        return PENALTY_enrol;
    case REASON_peer_left:
        if (session->socket.in_bytes == 0)
            return session->silent >= LIMIT_LOGIN_SILENCE ? PENALTY_too_slow : PENALTY_none;
        if (is_no_ssh(session))
            return PENALTY_garbage;
        return session->attempts > 0 ? PENALTY_bad_login : PENALTY_left_early;
    default:
        return PENALTY_none;
    }
}

void auth_end(const struct session *session)
{
    if (session->tenant != NULL)
        gate_logout(&session->source);
    else
        gate_fail(&session->source, penalty_for(session));
}
