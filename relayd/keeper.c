#include "relayd/keeper.h"

#include "relayd/limits.h"
#include "relayd/log.h"
#include "relayd/store.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 512     /* mails a pass */
#define RETRY_MS 1000 /* how long what could not be written waits for the next try */

/* One row to write behind. */
struct seen {
    struct mail mail; /* first */
    int64_t tenant_id, principal_id, key_id;
    int64_t time;
    uint16_t port; /* 0: a login, else an endpoint */
    char text[];   /* the address, or the endpoint's name */
};

static struct keeper {
    pthread_t thread;
    struct mailbox *mailbox;
    struct store *store;
    void (*route)(struct request *request);
    struct mail *unwritten, **unwritten_end; /* seen, oldest first; the thread's own */
    size_t nunwritten;
} keeper;

/* ---- Write-behind ---- */

static void post_seen(struct seen *seen, const char *text, size_t len)
{
    seen->mail.kind = MAIL_SEEN;
    seen->time = time(NULL);
    memcpy(seen->text, text, len);
    if (mailbox_post(keeper.mailbox, &seen->mail) != 0)
        free(seen);
}

void keeper_saw_login(int64_t principal_id, int64_t key_id, const char *address)
{
    size_t len = strlen(address) + 1;
    struct seen *seen = calloc(1, sizeof(*seen) + len);
    if (seen == NULL)
        return;
    seen->principal_id = principal_id;
    seen->key_id = key_id;
    post_seen(seen, address, len);
}

void keeper_saw_endpoint(int64_t tenant_id, int64_t principal_id, const char *name, uint16_t port)
{
    size_t len = strlen(name) + 1;
    struct seen *seen = calloc(1, sizeof(*seen) + len);
    if (seen == NULL)
        return;
    seen->tenant_id = tenant_id;
    seen->principal_id = principal_id;
    seen->port = port;
    post_seen(seen, name, len);
}

static int write_seen(const struct seen *seen)
{
    struct store *store = keeper.store;
    if (seen->port == 0)
        return store_run(store, SQL_seen_principal, "iit", seen->principal_id, seen->time, seen->text) < 0 ||
                       store_run(store, SQL_seen_key, "ii", seen->key_id, seen->time) < 0
                   ? -1
                   : 0;
    return store_run(store, SQL_seen_endpoint, "itiii", seen->tenant_id, seen->text, (int64_t)seen->port,
                     seen->principal_id, seen->time) < 0 ||
                   store_run(store, SQL_trim_history, "ii", seen->principal_id, (int64_t)LIMIT_HISTORY) < 0
               ? -1
               : 0;
}

static int write_all_unwritten(void)
{
    if (store_begin(keeper.store) != 0)
        return -1;
    for (struct mail *mail = keeper.unwritten; mail != NULL; mail = mail->next)
        if (write_seen((struct seen *)mail) != 0)
            return -1;
    return store_commit(keeper.store);
}

static void drop_oldest_unwritten(void)
{
    struct mail *mail = keeper.unwritten;
    keeper.unwritten = mail->next;
    if (keeper.unwritten == NULL)
        keeper.unwritten_end = &keeper.unwritten;
    keeper.nunwritten--;
    free(mail);
}

/* Rows that cannot be written stay and are tried again: nothing that the disk refuses now is lost
 * until more than LIMIT_WRITES_BEHIND wait. */
static void flush_unwritten(void)
{
    struct failure failure;
    bool was_healthy = store_healthy();
    if (keeper.unwritten == NULL)
        return;
    if (write_all_unwritten() == 0) {
        while (keeper.unwritten != NULL)
            drop_oldest_unwritten();
        if (!was_healthy)
            log_info("the registry can be written again");
        return;
    }
    store_failed(keeper.store, REASON_store_unavailable, &failure);
    store_rollback(keeper.store);
    if (was_healthy)
        log_error("%s", failure.text);
    while (keeper.nunwritten > LIMIT_WRITES_BEHIND)
        drop_oldest_unwritten();
}

static void keep_seen(struct mail *mail)
{
    mail->next = NULL;
    *keeper.unwritten_end = mail;
    keeper.unwritten_end = &mail->next;
    keeper.nunwritten++;
}

/* ---- Requests ---- */

void keeper_request(struct request *request)
{
    mailbox_post_always(keeper.mailbox, &request->mail);
}

static int find_tenant(struct request *request)
{
    if (request->command->steps->scope != SCOPE_TENANT)
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
    if (store_begin(keeper.store) != 0)
        return store_failed(keeper.store, REASON_store_unavailable, &request->failure);
    if (find_tenant(request) != 0 || request->command->steps->store(keeper.store, request) != 0)
        return -1;
    if (request->changed ? store_commit(keeper.store) != 0 : store_run(keeper.store, SQL_commit, "") < 0)
        return store_failed(keeper.store, REASON_store_unavailable, &request->failure);
    return 0;
}

static void serve_request(struct request *request)
{
    if (request->command->steps->store != NULL && run_step(request) != 0) {
        store_rollback(keeper.store);
        request->changed = false;
    }
    keeper.route(request);
}

/* ---- The thread ---- */

/* Requests wait for the rows that were posted before them, so that what a worker saw earlier is
 * there when a command looks. Returns false when it is time to stop. */
static bool serve_mail(struct mail *mail)
{
    bool go_on = true;
    while (mail != NULL) {
        struct mail *next = mail->next;
        if (mail->kind == MAIL_SEEN) {
            keep_seen(mail);
        } else {
            flush_unwritten();
            if (mail->kind == MAIL_REQUEST)
                serve_request((struct request *)mail);
            else
                go_on = false;
        }
        mail = next;
    }
    flush_unwritten();
    return go_on;
}

static void *run(void *arg)
{
    struct pollfd pollfd = { .fd = mailbox_fd(keeper.mailbox), .events = POLLIN };
    (void)arg;
    do {
        poll(&pollfd, 1, keeper.unwritten != NULL ? RETRY_MS : -1);
    } while (serve_mail(mailbox_take(keeper.mailbox, BATCH)));
    while (keeper.unwritten != NULL)
        drop_oldest_unwritten();
    return NULL;
}

int keeper_start(const char *path, void (*route)(struct request *request), struct failure *failure)
{
    keeper.route = route;
    keeper.unwritten_end = &keeper.unwritten;
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
