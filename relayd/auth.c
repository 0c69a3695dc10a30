#define SSH_SUPPRESS_DEPRECATED /* the message interface is the one that fits an event loop */
#include "relayd/auth.h"

#include "relayd/gate.h"
#include "relayd/keeper.h"
#include "relayd/pubkey.h"
#include "relayd/publish.h"
#include "relayd/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define TICK_US 1000000

/* Whom a key stands for. */
struct identity {
    int64_t tenant_id, principal_id, key_id;
    char tenant[NAME_SIZE];
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

/* A text that the user reads before he is logged in. Only for who has proven the key. */
static void send_banner(struct session *session, const char *text)
{
    char line[256];
    snprintf(line, sizeof(line), "relayd: %s\r\n", text);
    ssh_string banner = ssh_string_from_char(line);
    if (banner != NULL)
        ssh_send_issue_banner(session->ssh, banner);
    ssh_string_free(banner);
}

static void refuse_key(struct session *session, ssh_message message, const struct pubkey *key,
                       enum reason reason)
{
    char asked[400];
    snprintf(asked, sizeof(asked), "%.100s@%s %s", ssh_message_auth_user(message), session->address,
             key->fingerprint);
    session_refuse(session, "login", asked, reason, NULL);
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

static void try_key(struct session *session, ssh_message message, struct pubkey *key)
{
    struct identity identity = { 0 };
    const char *user = ssh_message_auth_user(message);
    enum ssh_publickey_state_e proof = ssh_message_auth_publickey_state(message);
    enum reason reason = look_up(session->loop->store, key->blob, user != NULL ? user : "", &identity);

    if (reason != REASON_none) {
        refuse_key(session, message, key, reason);
    } else if (proof == SSH_PUBLICKEY_STATE_NONE) {
        ssh_message_auth_reply_pk_ok_simple(message);
    } else if (proof != SSH_PUBLICKEY_STATE_VALID) {
        ssh_message_reply_default(message);
    } else if (identity.expired) {
        send_banner(session, reason_sentence(REASON_key_expired));
        refuse_key(session, message, key, REASON_key_expired);
    } else {
        hand_over(session, message, key, &identity);
    }
}

static void public_key(struct session *session, ssh_message message)
{
    struct pubkey key;
    struct failure failure = { 0 };
    if (pubkey_from_ssh(ssh_message_auth_pubkey(message), &key, &failure) == 0) {
        try_key(session, message, &key);
    } else {
        session_refuse(session, "login", key.type, failure.reason, failure.text);
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

/* Makes room for one more session. False if there is none to be had. */
static bool make_room(struct session *session, struct principal *principal)
{
    char user[NAME_SIZE + 80], detail[ACCOUNT_TEXT_SIZE];
    struct accounts accounts = session_accounts(principal);
    const struct account *full = accounts_full(&accounts, LIMIT_sessions, session->loop->now);
    if (full == NULL)
        return true;
    bool swaps = principal->kind == PRINCIPAL_DEVICE && full->limits.value[LIMIT_sessions] > 0;
    struct session *other = swaps ? dispensable(principal) : NULL;
    if (other != NULL) {
        session_close(other, REASON_superseded, NULL);
        return true;
    }
    account_describe(full, LIMIT_sessions, detail);
    snprintf(user, sizeof(user), "%s@%s", principal->name, session->address);
    session_refuse(session, "login", user, REASON_too_many_sessions, detail);
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
    if (!make_room(session, principal)) {
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
    if (reason != REASON_none) {
        session_close(session, reason, NULL);
        return;
    }
    session_log(session, LOG_LEVEL_INFO, "logged in as %s from %s port %u, key %s",
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
