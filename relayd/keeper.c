#include "relayd/keeper.h"

#include "relayd/audit.h"
#include "relayd/clock.h"
#include "relayd/hash.h"
#include "relayd/limits.h"
#include "relayd/log.h"
#include "relayd/store.h"
#include "relayd/trail.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define RETRY_MS 1000 /* after which what could not be written is tried again */

/* One row to write behind. Rows are kept by what they are about: however often a device publishes
 * and cancels, there is one row to write. */
struct seen {
    struct mail mail; /* first */
    UT_hash_handle hh;
    int64_t tenant_id, principal_id;
    int64_t key_id; /* of a login */
    int64_t time;
    uint16_t port;  /* 0: a login, else an endpoint */
    bool published; /* the endpoint's row is to be made if there is none */
    char *text;     /* the address, or the endpoint's name; behind key */
    char key[];
};

/* Rows to delete, and not to write: those of a name but one principal's, or those that a principal
 * has at or under a name. */
struct forget {
    struct mail mail; /* first */
    int64_t tenant_id, principal_id;
    bool but_principal;
    char name[NAME_SIZE];
};

static struct keeper {
    pthread_t thread;
    struct mailbox *mailbox;
    struct store *store;
    void (*route)(struct request *request);
    struct seen *unwritten;       /* hash by key, oldest first; the thread's own */
    struct enrolment *enrolments; /* that are not written yet; the thread's own */
    atomic_uint nenrolments;      /* and those on their way to it */
    int64_t retry_at;             /* of clock_us(): not to write before; 0: now */
} keeper;

/* ---- What workers saw ---- */

static struct seen *seen_new(const char *key, const char *text)
{
    size_t key_size = strlen(key) + 1, text_size = strlen(text) + 1;
    struct seen *seen = calloc(1, sizeof(*seen) + key_size + text_size);
    if (seen == NULL)
        return NULL;
    seen->mail.kind = MAIL_SEEN;
    seen->time = time(NULL);
    seen->text = seen->key + key_size;
    memcpy(seen->key, key, key_size);
    memcpy(seen->text, text, text_size);
    return seen;
}

static int post_seen(struct seen *seen)
{
    if (mailbox_post(keeper.mailbox, &seen->mail) == 0)
        return 0;
    free(seen);
    return -1;
}

void keeper_saw_login(int64_t principal_id, int64_t key_id, const char *address)
{
    char key[64];
    snprintf(key, sizeof(key), "%lld key %lld", (long long)principal_id, (long long)key_id);
    struct seen *seen = seen_new(key, address);
    if (seen == NULL)
        return;
    seen->principal_id = principal_id;
    seen->key_id = key_id;
    post_seen(seen);
}

int keeper_saw_endpoint(int64_t tenant_id, int64_t principal_id, const char *name, uint16_t port,
                        bool published)
{
    char key[NAME_SIZE + 48];
    snprintf(key, sizeof(key), "%lld at %u %s", (long long)principal_id, port, name);
    struct seen *seen = seen_new(key, name);
    if (seen == NULL)
        return -1;
    seen->tenant_id = tenant_id;
    seen->principal_id = principal_id;
    seen->port = port;
    seen->published = published;
    return post_seen(seen);
}

static void post_forget(int64_t tenant_id, int64_t principal_id, bool but_principal, const char *name)
{
    struct forget *forget = calloc(1, sizeof(*forget));
    if (forget == NULL) {
        log_error("no memory to take back what was published as %s: see relayctl list endpoints", name);
        return;
    }
    forget->mail.kind = MAIL_FORGET;
    forget->tenant_id = tenant_id;
    forget->principal_id = principal_id;
    forget->but_principal = but_principal;
    snprintf(forget->name, sizeof(forget->name), "%s", name);
    mailbox_post_always(keeper.mailbox, &forget->mail);
}

void keeper_forget_name(int64_t tenant_id, const char *name, int64_t owner)
{
    post_forget(tenant_id, owner, true, name);
}

void keeper_forget_history(int64_t tenant_id, int64_t principal_id, const char *name)
{
    post_forget(tenant_id, principal_id, false, name);
}

/* ---- Writing ---- */

static int write_endpoint(const struct seen *seen)
{
    struct store *store = keeper.store;
    int n = store_run(store, SQL_seen_endpoint, "itiii", seen->tenant_id, seen->text, (int64_t)seen->port,
                      seen->principal_id, seen->time);
    if (n == 0 && seen->published)
        n = store_run(store, SQL_own_endpoint, "itiii", seen->tenant_id, seen->text, (int64_t)seen->port,
                      seen->principal_id, seen->time);
    return n < 0 ? -1 : 0;
}

static int trim_history(const struct seen *seen)
{
    return store_run(keeper.store, SQL_trim_history, "ii", seen->principal_id, (int64_t)LIMIT_HISTORY) < 0
               ? -1
               : 0;
}

static int write_login(const struct seen *seen)
{
    struct store *store = keeper.store;
    if (store_run(store, SQL_seen_principal, "iit", seen->principal_id, seen->time, seen->text) < 0)
        return -1;
    return store_run(store, SQL_seen_key, "ii", seen->key_id, seen->time) < 0 ? -1 : 0;
}

static int write_seen(const struct seen *seen)
{
    return seen->port == 0 ? write_login(seen) : write_endpoint(seen);
}

static int by_principal(const struct seen *a, const struct seen *b)
{
    return (a->principal_id > b->principal_id) - (a->principal_id < b->principal_id);
}

static int by_age(const struct seen *a, const struct seen *b)
{
    return (a->time > b->time) - (a->time < b->time);
}

static bool is_last_of_principal(const struct seen *seen)
{
    const struct seen *next = seen->hh.next;
    return next == NULL || next->principal_id != seen->principal_id;
}

/* A history is trimmed once, behind all that is new: it costs as much as writing hundreds of rows. */
static int write_all_unwritten(void)
{
    bool grown = false;
    if (store_begin(keeper.store) != 0)
        return -1;
    HASH_SORT(keeper.unwritten, by_principal);
    for (struct seen *seen = keeper.unwritten; seen != NULL; seen = seen->hh.next) {
        if (write_seen(seen) != 0)
            return -1;
        grown = grown || seen->published;
        if (!is_last_of_principal(seen))
            continue;
        if (grown && trim_history(seen) != 0)
            return -1;
        grown = false;
    }
    /* There may be no row, or none that differs from what is there: then SQLite writes nothing, and all seems
     * well. */
    if (!store_healthy() && store_run(keeper.store, SQL_probe, "") < 0)
        return -1;
    return store_commit(keeper.store);
}

static void drop_unwritten(struct seen *seen)
{
    HASH_DEL(keeper.unwritten, seen);
    free(seen);
}

static void drop_all_unwritten(void)
{
    struct seen *seen, *next;
    HASH_ITER(hh, keeper.unwritten, seen, next)
        drop_unwritten(seen);
}

/* Rows that cannot be written stay and are tried again, so nothing that the disk refuses now is
 * lost until more than LIMIT_WRITES_BEHIND wait. */
static void flush_unwritten(void)
{
    struct failure failure;
    bool was_healthy = store_healthy();
    if ((keeper.unwritten == NULL && was_healthy) || clock_us() < keeper.retry_at)
        return;
    if (write_all_unwritten() == 0) {
        drop_all_unwritten();
        keeper.retry_at = 0;
        if (!was_healthy)
            log_info("the registry can be written again");
        return;
    }
    store_failed(keeper.store, REASON_store_unavailable, &failure);
    store_rollback(keeper.store);
    HASH_SORT(keeper.unwritten, by_age);
    keeper.retry_at = clock_us() + RETRY_MS * 1000;
    if (was_healthy)
        log_error("%s", failure.text);
}

/* Without memory to keep it. */
static void write_at_once(struct seen *seen)
{
    struct failure failure;
    if (store_begin(keeper.store) != 0 || write_seen(seen) != 0 || store_commit(keeper.store) != 0) {
        store_failed(keeper.store, REASON_store_unavailable, &failure);
        store_rollback(keeper.store);
        log_error("lost that %s was seen: %s", seen->text, failure.text);
    }
    free(seen);
}

static void keep_seen(struct seen *seen)
{
    struct seen *old;
    HASH_FIND_STR(keeper.unwritten, seen->key, old);
    if (old != NULL) {
        seen->published = seen->published || old->published;
        drop_unwritten(old);
    } else if (HASH_COUNT(keeper.unwritten) >= LIMIT_WRITES_BEHIND) {
        drop_unwritten(keeper.unwritten); /* the oldest */
    }
    HASH_ADD_STR(keeper.unwritten, key, seen);
    if (seen->hh.tbl == NULL)
        write_at_once(seen);
}

static bool is_forgotten(const struct seen *seen, const struct forget *forget)
{
    if (seen->port == 0 || seen->tenant_id != forget->tenant_id)
        return false;
    if (forget->but_principal)
        return seen->principal_id != forget->principal_id && strcmp(seen->text, forget->name) == 0;
    return seen->principal_id == forget->principal_id && name_is_under(seen->text, forget->name);
}

/* A publish may have been on its way while the name was taken from its publisher: what it has
 * written, or would write, goes. */
static void serve_forget(struct forget *forget)
{
    struct seen *seen, *next;
    HASH_ITER(hh, keeper.unwritten, seen, next)
        if (is_forgotten(seen, forget))
            drop_unwritten(seen);
    int n = forget->but_principal
                ? store_run(keeper.store, SQL_forget_endpoint, "iti", forget->tenant_id, forget->name,
                            forget->principal_id)
                : store_run(keeper.store, SQL_forget_history, "it", forget->principal_id, forget->name);
    if (n < 0)
        log_error("cannot take back what was published as %s: see relayctl list endpoints", forget->name);
    free(forget);
}

/* ---- Keys that ask to be approved ---- */

static void drop_enrolment(struct enrolment *enrolment)
{
    free(enrolment);
    atomic_fetch_sub(&keeper.nenrolments, 1);
}

int keeper_enrol(struct enrolment *enrolment)
{
    bool room = atomic_fetch_add(&keeper.nenrolments, 1) < LIMIT_ENROLMENTS_BEHIND;
    if (room && store_healthy() && mailbox_post(keeper.mailbox, &enrolment->mail) == 0)
        return 0;
    drop_enrolment(enrolment);
    return -1;
}

/* Once too many wait, all who ask in a second are one row: or strangers would wash away the trail of a tenant
 * that is not theirs. */
static void tell_enrolment(const struct enrolment *enrolment)
{
    bool alone = enrolment->outcome == ENROL_KEPT;
    struct log_subject subject = { .tenant = enrolment->tenant };
    struct audit_event event = { .kind = EVENT_enrol,
                                 .reason = enrolment->outcome == ENROL_FULL ? REASON_too_many_pending
                                                                            : REASON_none,
                                 .tenant_id = enrolment->tenant_id,
                                 .tenant = enrolment->tenant,
                                 .address = alone ? enrolment->address : "",
                                 .object = alone ? enrolment->fingerprint : "" };
    if (enrolment->outcome == ENROL_IGNORED || enrolment->outcome == ENROL_AGAIN)
        return;
    audit(&event);
    if (enrolment->outcome != ENROL_FULL)
        log_write(LOG_LEVEL_INFO, &subject, "key %s from %s waits to be approved", enrolment->fingerprint,
                  enrolment->address);
    else
        log_write(LOG_LEVEL_WARN, &subject, "key %s from %s is not kept: %s", enrolment->fingerprint,
                  enrolment->address, reason_sentence(REASON_too_many_pending));
}

static int write_enrolments(void)
{
    struct enrolment *enrolment;
    if (store_begin(keeper.store) != 0)
        return -1;
    DL_FOREACH(keeper.enrolments, enrolment)
        if (enrol_write(keeper.store, enrolment) != 0)
            return -1;
    return store_commit(keeper.store);
}

/* Those that the disk refuses are lost: they will ask again. */
static void flush_enrolments(void)
{
    struct failure failure;
    struct enrolment *enrolment, *next;
    if (keeper.enrolments == NULL)
        return;
    bool written = write_enrolments() == 0;
    if (!written) {
        store_failed(keeper.store, REASON_store_unavailable, &failure);
        store_rollback(keeper.store);
        log_error("lost keys that asked to be approved: %s", failure.text);
    }
    DL_FOREACH_SAFE(keeper.enrolments, enrolment, next) {
        if (written)
            tell_enrolment(enrolment);
        DL_DELETE(keeper.enrolments, enrolment);
        drop_enrolment(enrolment);
    }
}

/* ---- Requests ---- */

void keeper_request(struct request *request)
{
    mailbox_post_always(keeper.mailbox, &request->mail);
}

size_t keeper_waiting(void)
{
    return mailbox_waiting(keeper.mailbox);
}

/* Over SSH: the tenant is the session's, by its id, and it must still be what it was when the command was
 * authorised. Whoever was removed or demoted by an earlier change does nothing any more. */
static int check_actor(struct request *request)
{
    const struct actor *actor = &request->actor;
    request->tenant_id = actor->tenant_id;
    bool as_admin = (request->command->roles & actor->roles & ~(unsigned)ROLE_TENANT) == 0;
    int64_t may = store_value(keeper.store, SQL_actor_may, "iiii", actor->tenant_id, actor->principal_id,
                              actor->key_id, (int64_t)as_admin);
    if (may < 0)
        return store_failed(keeper.store, REASON_registry_unavailable, &request->failure);
    if (may == 0)
        return fail(&request->failure, REASON_revoked, "%s", reason_sentence(REASON_revoked));
    return 0;
}

static int find_tenant(struct request *request)
{
    if (request->actor.session != 0)
        return check_actor(request);
    enum command_scope scope = request->command->steps->scope;
    if (scope == SCOPE_ALL || scope == SCOPE_LOOPS ||
        (scope == SCOPE_ANY && strcmp(request->tenant, COMMAND_ALL_TENANTS) == 0))
        return 0;
    request->tenant_id = store_value(keeper.store, SQL_find_tenant, "t", request->tenant);
    if (request->tenant_id < 0)
        return store_failed(keeper.store, REASON_registry_unavailable, &request->failure);
    if (request->tenant_id == 0)
        return fail(&request->failure, REASON_not_found,
                    "there is no tenant \"%.253s\": see relayctl list tenants", request->tenant);
    return 0;
}

static int run_step(struct request *request)
{
    return find_tenant(request) != 0 ? -1 : request->command->steps->store(keeper.store, request);
}

/* Durable before it goes on. */
static int run_change(struct request *request)
{
    if (store_begin(keeper.store) != 0)
        return store_failed(keeper.store, REASON_store_unavailable, &request->failure);
    if (run_step(request) != 0)
        return -1;
    if (request->changed ? store_commit(keeper.store) == 0 : store_run(keeper.store, SQL_commit, "") >= 0)
        return 0;
    return store_failed(keeper.store, REASON_store_unavailable, &request->failure);
}

static void serve_request(struct request *request)
{
    const struct command_steps *steps = request->command->steps;
    enum request_progress queued = REQUEST_QUEUED;
    if (!atomic_compare_exchange_strong(&request->progress, &queued, REQUEST_TAKEN)) {
        fail(&request->failure, REASON_timeout, "%s", reason_sentence(REASON_timeout));
    } else if (steps->store != NULL && (steps->changes ? run_change : run_step)(request) != 0) {
        store_rollback(keeper.store);
        request->changed = false;
    } else {
        atomic_store(&request->progress, REQUEST_STORED);
    }
    if (steps->changes)
        command_record(request);
    keeper.route(request);
}

/* ---- The thread ---- */

/* The last try, and what it does not write is lost. */
static void flush_for_good(void)
{
    keeper.retry_at = 0;
    flush_unwritten();
    if (keeper.unwritten != NULL)
        log_error("lost %u rows of what devices and clients did last: the registry cannot be written",
                  HASH_COUNT(keeper.unwritten));
    drop_all_unwritten();
}

/* Requests wait for the rows that were posted before them, so that what a worker saw earlier is
 * there when a command looks. Returns false when it is time to stop. */
static bool serve_mail(struct mail *mail)
{
    bool go_on = true;
    while (mail != NULL) {
        struct mail *next = mail->next;
        if (mail->kind == MAIL_SEEN) {
            keep_seen((struct seen *)mail);
        } else if (mail->kind == MAIL_ENROL) {
            DL_APPEND(keeper.enrolments, (struct enrolment *)mail);
        } else {
            flush_unwritten();
            flush_enrolments();
            if (mail->kind == MAIL_REQUEST)
                serve_request((struct request *)mail);
            else if (mail->kind == MAIL_FORGET)
                serve_forget((struct forget *)mail);
            else
                go_on = false;
        }
        mail = next;
    }
    flush_unwritten();
    flush_enrolments();
    return go_on;
}

/* Takes all that is there before it writes: what a device that publishes and cancels without end has
 * posted meanwhile costs one row, and one wait for the disk. Events come last. */
static void *run(void *arg)
{
    struct pollfd pollfds[2] = { { .fd = mailbox_fd(keeper.mailbox), .events = POLLIN },
                                 { .events = POLLIN } };
    (void)arg;
    do {
        trail_serve(keeper.store);
        int delay = trail_delay();
        bool waits = keeper.unwritten != NULL || !store_healthy();
        pollfds[1].fd = trail_waits() ? -1 : audit_fd();
        poll(pollfds, 2, waits && delay > RETRY_MS ? RETRY_MS : delay);
    } while (serve_mail(mailbox_take(keeper.mailbox, SIZE_MAX)));
    flush_for_good();
    trail_end(keeper.store);
    return NULL;
}

int keeper_start(const char *path, void (*route)(struct request *request), struct failure *failure)
{
    keeper.route = route;
    keeper.mailbox = mailbox_new(LIMIT_WRITES_BEHIND);
    if (keeper.mailbox == NULL)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    keeper.store = store_open(path, STORE_WRITE, failure);
    if (keeper.store == NULL)
        goto fail;
    if (pthread_create(&keeper.thread, NULL, run, NULL) == 0)
        return 0;
    fail(failure, REASON_out_of_memory, "cannot start a thread");
fail:
    store_close(keeper.store);
    mailbox_free(keeper.mailbox);
    return -1;
}

void keeper_stop(void)
{
    static struct mail stop = { .kind = MAIL_STOP };
    mailbox_post_always(keeper.mailbox, &stop);
    pthread_join(keeper.thread, NULL);
    store_close(keeper.store);
    mailbox_free(keeper.mailbox);
}
