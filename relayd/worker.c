#include "relayd/worker.h"

#include "relayd/clock.h"
#include "relayd/console.h"
#include "relayd/limits.h"
#include "relayd/serve.h"
#include "relayd/store.h"
#include "relayd/watch.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utlist.h>

#define MAIL_BUDGET 16 /* mails a pass: a new connection, or session, costs a tenth of a millisecond */
#define STOP_TICK_MS 20
#define LOGIN_NICE 2 /* who is in goes before who comes, who gets a third of a busy core */

/* An accepted socket on its way. */
struct connection {
    struct mail mail; /* first */
    int fd;
    struct source source;
    char address[SOURCE_TEXT_SIZE];
    uint16_t port;
};

struct worker {
    pthread_t thread;
    bool running; /* the thread was started */
    bool stopping;
    struct mail stop; /* must not need memory then */
    struct loop loop;
    struct event *mail_event;
    struct event *stop_tick;
    unsigned ticks_left; /* of drain-timeout */
};

static struct worker *workers;
static unsigned nworkers, nloops; /* as in struct relay */
static void (*answer_request)(struct request *request);
static atomic_uint next_worker; /* for new connections */
static atomic_uint posted;      /* connections on their way */

/* ---- Sending ---- */

static struct worker *worker_of_tenant(int64_t tenant_id)
{
    return &workers[(uint64_t)tenant_id % nworkers];
}

static void post_session(struct session *session)
{
    mailbox_post_always(worker_of_tenant(session->tenant_id)->loop.mailbox, &session->mail);
}

void worker_route(struct request *request)
{
    struct worker *worker = NULL;
    if (request->failure.reason == REASON_none && request->command->steps->live != NULL) {
        if (request->command->steps->scope == SCOPE_TENANT && request->next_worker == 0)
            worker = worker_of_tenant(request->tenant_id);
        else if (request->command->steps->scope == SCOPE_ALL && request->next_worker < nworkers)
            worker = &workers[request->next_worker];
        else if (request->command->steps->scope == SCOPE_LOOPS && request->next_worker < nloops)
            worker = &workers[request->next_worker];
    }
    if (worker == NULL && request->actor.session != 0) {
        worker = worker_of_tenant(request->actor.tenant_id);
        request->mail.kind = MAIL_ANSWER;
    }
    if (worker != NULL)
        mailbox_post_always(worker->loop.mailbox, &request->mail);
    else
        answer_request(request);
}

/* The mailbox has no limit for it: the listener stops at `max-logins`. */
void worker_accept(int fd, const struct sockaddr *address, const struct source *source)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    struct worker *worker = &workers[nworkers + atomic_fetch_add(&next_worker, 1) % nworkers];
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->mail.kind = MAIL_CONNECTION;
    connection->fd = fd;
    connection->source = *source;
    source_address(address, connection->address, &connection->port);
    atomic_fetch_add(&posted, 1);
    mailbox_post_always(worker->loop.mailbox, &connection->mail);
}

unsigned worker_connections(void)
{
    return atomic_load(&posted) + session_live();
}

unsigned worker_logins(void)
{
    return atomic_load(&posted) + session_waiting();
}

/* ---- Receiving ---- */

static void receive_connection(struct worker *worker, struct connection *connection)
{
    if (worker->stopping) {
        close(connection->fd);
    } else {
        int on = 1;
        setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        watch_socket(connection->fd, worker->loop.config->dead_peer_timeout);
        serve_accept(&worker->loop, connection->fd, &connection->source, connection->address,
                     connection->port);
    }
    atomic_fetch_sub(&posted, 1);
    free(connection);
}

static void receive_request(struct worker *worker, struct request *request)
{
    if (request->command->steps->live(&worker->loop, request) > 0) {
        mailbox_post_always(worker->loop.mailbox, &request->mail);
        return;
    }
    request->next_worker++;
    worker_route(request);
}

static unsigned count_bridges(const struct loop *loop)
{
    unsigned n = 0;
    const struct tenant *tenant, *next;
    HASH_ITER(hh, loop->tenants, tenant, next)
        n += tenant->nbridges;
    return n;
}

/* While relayd stops: sessions go when no bridge is left or the time for them is up. */
static void on_stop_tick(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    (void)fd, (void)what;
    worker->ticks_left -= worker->ticks_left > 0;
    if (worker->ticks_left == 0 || count_bridges(&worker->loop) == 0)
        serve_close_all(&worker->loop, REASON_shutdown);
}

static void begin_stop(struct worker *worker)
{
    struct timeval tick = { .tv_usec = STOP_TICK_MS * 1000 };
    worker->stopping = worker->loop.draining = true;
    worker->ticks_left = worker->loop.config->drain_timeout / STOP_TICK_MS;
    event_add(worker->stop_tick, &tick);
}

static void receive(struct worker *worker, struct mail *mail)
{
    switch (mail->kind) {
    case MAIL_CONNECTION:
        receive_connection(worker, (struct connection *)mail);
        break;
    case MAIL_SESSION:
        serve_arrive(&worker->loop, (struct session *)mail);
        break;
    case MAIL_REQUEST:
        receive_request(worker, (struct request *)mail);
        break;
    case MAIL_ANSWER:
        console_answer(&worker->loop, (struct request *)mail);
        break;
    case MAIL_STOP:
        begin_stop(worker);
        break;
    case MAIL_SEEN:
    case MAIL_FORGET:
    case MAIL_ENROL:
        break; /* for the keeper alone */
    }
}

static void receive_mail(struct worker *worker)
{
    struct mail *mail = mailbox_take(worker->loop.mailbox, MAIL_BUDGET);
    while (mail != NULL) {
        struct mail *next = mail->next;
        receive(worker, mail);
        mail = next;
    }
}

/* ---- The thread ---- */

/* The mailbox is emptied at the top of the stack; its event only ends the sleep. */
static void on_mail(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
}

/* A session may be on its way from one worker to another: all end when none is left at all. */
static bool is_done(const struct worker *worker)
{
    /* In this order: a connection is counted as live before it is no longer posted. */
    return worker->stopping && atomic_load(&posted) == 0 && session_live() == 0;
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    bool busy = false;
    if (worker->loop.index >= nworkers)
        setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + LOGIN_NICE); /* Linux: the thread's */
    do {
        int64_t before = clock_us();
        event_base_loop(worker->loop.base, EVLOOP_ONCE | (busy ? EVLOOP_NONBLOCK : 0));
        worker->loop.now = clock_us();
        receive_mail(worker);
        int64_t polled = busy ? worker->loop.now - before : 0;
        /* Twice: what the first pass reads at one end of a bridge, the second writes to the other. */
        busy = serve_pass(&worker->loop, polled) && serve_pass(&worker->loop, polled);
    } while (!is_done(worker));
    return NULL;
}

/* ---- Starting and stopping ---- */

static int init_loop(struct worker *worker, const struct relay *relay, struct failure *failure)
{
    char path[512];
    struct loop *loop = &worker->loop;
    loop->index = (unsigned)(worker - workers);
    loop->relay = relay;
    loop->config = config_hold(&relay->config);
    snprintf(path, sizeof(path), "%s/relayd.db", relay->config.state_dir.text);
    if ((loop->store = store_open(path, STORE_READ, failure)) == NULL ||
        (loop->bind = sshio_bind_new(relay->host_key.path, failure)) == NULL)
        return -1;
    loop->base = event_base_new();
    loop->mailbox = mailbox_new(SIZE_MAX);
    if (loop->base == NULL || loop->mailbox == NULL)
        goto fail;
    worker->mail_event = event_new(loop->base, mailbox_fd(loop->mailbox), EV_READ | EV_PERSIST, on_mail,
                                   NULL);
    worker->stop_tick = event_new(loop->base, -1, EV_PERSIST, on_stop_tick, worker);
    if (worker->mail_event != NULL && worker->stop_tick != NULL && event_add(worker->mail_event, NULL) == 0)
        return 0;
fail:
    return fail(failure, REASON_out_of_memory, "cannot set up a worker: %s",
                reason_sentence(REASON_out_of_memory));
}

/* What came too late for the thread to take. */
static void drop_mail(struct mail *mail)
{
    while (mail != NULL) {
        struct mail *next = mail->next;
        if (mail->kind == MAIL_REQUEST || mail->kind == MAIL_ANSWER) {
            request_free((struct request *)mail);
        } else if (mail->kind != MAIL_STOP) {
            if (mail->kind == MAIL_CONNECTION)
                close(((struct connection *)mail)->fd);
            free(mail);
        }
        mail = next;
    }
}

static void free_worker(struct worker *worker)
{
    struct loop *loop = &worker->loop;
    struct tenant *tenant, *next;
    struct request *request, *later;
    if (loop->mailbox != NULL)
        drop_mail(mailbox_take(loop->mailbox, SIZE_MAX));
    DL_FOREACH_SAFE(loop->waiting, request, later)
        request_free(request);
    HASH_ITER(hh, loop->tenants, tenant, next)
        tenant_free(loop, tenant);
    if (worker->mail_event != NULL)
        event_free(worker->mail_event);
    if (worker->stop_tick != NULL)
        event_free(worker->stop_tick);
    if (loop->base != NULL)
        event_base_free(loop->base);
    mailbox_free(loop->mailbox);
    ssh_bind_free(loop->bind);
    store_close(loop->store);
    config_release(loop->config);
}

int worker_start_all(const struct relay *relay, void (*answer)(struct request *request),
                     struct failure *failure)
{
    answer_request = answer;
    serve_hand_over = post_session;
    tenant_on_expired = serve_expire;
    nworkers = relay->nworkers;
    nloops = relay->nloops;
    workers = calloc(nloops, sizeof(*workers));
    if (workers == NULL)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    for (unsigned i = 0; i < nloops; i++)
        if (init_loop(&workers[i], relay, failure) != 0)
            goto fail;
    for (unsigned i = 0; i < nloops; i++) {
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0) {
            fail(failure, REASON_out_of_memory, "cannot start a thread");
            goto fail;
        }
        workers[i].running = true;
    }
    return 0;
fail:
    worker_stop_all();
    worker_free_all();
    return -1;
}

void worker_stop_all(void)
{
    for (unsigned i = 0; i < nloops; i++) {
        if (!workers[i].running)
            continue;
        workers[i].stop.kind = MAIL_STOP;
        mailbox_post_always(workers[i].loop.mailbox, &workers[i].stop);
    }
    for (unsigned i = 0; i < nloops; i++)
        if (workers[i].running)
            pthread_join(workers[i].thread, NULL);
    /* The last connection to close tidies the write-ahead log up: that must be the keeper's. */
    for (unsigned i = 0; i < nloops; i++) {
        store_close(workers[i].loop.store);
        workers[i].loop.store = NULL;
    }
}

void worker_free_all(void)
{
    for (unsigned i = 0; i < nloops; i++)
        free_worker(&workers[i]);
    free(workers);
    workers = NULL;
    nworkers = nloops = 0;
}
