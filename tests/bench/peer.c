#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#define READ_FULL 65536u
#define READ_BUDGET 4 /* reads of one session before its lanes and the other sessions have their turn */
#define WRITE_CHUNK 32768u

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    _exit(1);
}

/* ---- Connecting and logging in ---- */

static void mark(struct peer *peer)
{
    if (peer->is_due)
        return;
    peer->is_due = true;
    LL_PREPEND2(peer->loop->due, peer, next_due);
}

static void gone(struct peer *peer)
{
    if (peer->step == PEER_GONE)
        return;
    snprintf(peer->error, sizeof(peer->error), "step %d: %s", peer->step,
             peer->ssh != NULL ? ssh_get_error(peer->ssh) : "cannot connect");
    peer->step = PEER_GONE;
    if (peer->ssh == NULL)
        close(peer->fd); /* else libssh has it */
    ssh_free(peer->ssh);
    peer->ssh = NULL;
    peer->work = peer->writers = NULL;
    peer->on_gone(peer);
}

static void watch(struct peer *peer, int operation)
{
    struct epoll_event event = { .events = EPOLLIN | (peer->wants_write ? EPOLLOUT : 0), .data.ptr = peer };
    if (epoll_ctl(peer->loop->epoll, operation, peer->fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

void peer_start(struct peer *peer)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(peer->server->port) };
    struct sockaddr_in from = { .sin_family = AF_INET };
    int on = 1;
    peer->step = PEER_CONNECTING;
    peer->ssh = NULL;
    peer->wants_write = true;
    memset(&peer->socket, 0, sizeof(peer->socket));
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (peer->fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (inet_pton(AF_INET, peer->server->host, &to.sin_addr) != 1)
        die("%s: not an IPv4 address", peer->server->host);
    from.sin_addr.s_addr = htonl(0x7f000001u + peer->number % 65000u);
    if (peer->server->spread && bind(peer->fd, (struct sockaddr *)&from, sizeof(from)) != 0)
        die("bind: %s", strerror(errno));
    int error = connect(peer->fd, (struct sockaddr *)&to, sizeof(to)) != 0 ? errno : 0;
    if (error != 0 && error != EINPROGRESS && error != ECONNREFUSED)
        die("connect: %s", strerror(error));
    peer->refused = error == ECONNREFUSED;
    watch(peer, EPOLL_CTL_ADD);
}

void peer_start_later(struct peer *peer, unsigned ms)
{
    peer->start_at = now_ns() + ms * 1000000ull;
    DL_APPEND2(peer->loop->later, peer, later_prev, later_next);
}

/* Starts those whose time has come; returns the milliseconds until the next, or -1. */
static int start_again(struct loop *loop)
{
    struct peer *peer;
    uint64_t now = now_ns();
    while ((peer = loop->later) != NULL && peer->start_at <= now) {
        DL_DELETE2(loop->later, peer, later_prev, later_next);
        peer_start(peer);
    }
    return peer != NULL ? (int)((peer->start_at - now) / 1000000) + 1 : -1;
}

static void set(ssh_session ssh, enum ssh_options_e option, const void *value)
{
    if (value != NULL && ssh_options_set(ssh, option, value) != 0)
        die("libssh: %s", ssh_get_error(ssh));
}

static int connected(struct peer *peer)
{
    int error = 0;
    bool no = false;
    socklen_t len = sizeof(error);
    struct sockaddr_storage to;
    socklen_t to_len = sizeof(to);
    getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error != 0 || peer->refused)
        return SSH_ERROR;
    if (getpeername(peer->fd, (struct sockaddr *)&to, &to_len) != 0)
        return SSH_AGAIN;
    peer->ssh = ssh_new();
    set(peer->ssh, SSH_OPTIONS_PROCESS_CONFIG, &no);
    set(peer->ssh, SSH_OPTIONS_HOST, peer->server->host);
    set(peer->ssh, SSH_OPTIONS_USER, peer->user);
    set(peer->ssh, SSH_OPTIONS_KNOWNHOSTS, "/dev/null");
    set(peer->ssh, SSH_OPTIONS_GLOBAL_KNOWNHOSTS, "/dev/null");
    set(peer->ssh, SSH_OPTIONS_HOSTKEYS, "ssh-ed25519");
    set(peer->ssh, SSH_OPTIONS_KEY_EXCHANGE, peer->server->kex);
    set(peer->ssh, SSH_OPTIONS_CIPHERS_C_S, peer->server->cipher);
    set(peer->ssh, SSH_OPTIONS_CIPHERS_S_C, peer->server->cipher);
    set(peer->ssh, SSH_OPTIONS_HMAC_C_S, peer->server->mac);
    set(peer->ssh, SSH_OPTIONS_HMAC_S_C, peer->server->mac);
    set(peer->ssh, SSH_OPTIONS_FD, &peer->fd);
    ssh_set_blocking(peer->ssh, 0);
    ssh_set_counters(peer->ssh, &peer->socket, NULL);
    return SSH_OK;
}

/* SSH_OK: on to the next step. */
static int step(struct peer *peer)
{
    int bound;
    switch (peer->step) {
    case PEER_CONNECTING:
        return connected(peer);
    case PEER_HANDSHAKE:
        return ssh_connect(peer->ssh);
    case PEER_LOGIN:
        switch (ssh_userauth_publickey(peer->ssh, NULL, peer->key)) {
        case SSH_AUTH_SUCCESS:
            return SSH_OK;
        case SSH_AUTH_AGAIN:
            return SSH_AGAIN;
        default:
            return SSH_ERROR;
        }
    case PEER_PUBLISH:
        if (peer->publish == NULL)
            return SSH_OK;
        return ssh_channel_listen_forward(peer->ssh, peer->publish->host, peer->publish->port, &bound);
    default:
        return SSH_AGAIN;
    }
}

static void advance(struct peer *peer)
{
    int result;
    while (peer->step < PEER_UP && (result = step(peer)) != SSH_AGAIN) {
        if (result != SSH_OK) {
            gone(peer);
            return;
        }
        peer->step++;
        if (peer->step == PEER_UP) {
            peer->on_up(peer); /* which may have ended it, and started it again */
            return;
        }
    }
}

void peer_leave(struct peer *peer)
{
    if (peer->ssh != NULL)
        ssh_disconnect(peer->ssh);
    gone(peer);
}

/* ---- Lanes ---- */

static void lane_mark(struct lane *lane)
{
    mark(lane->peer);
    if (lane->in_work)
        return;
    lane->in_work = true;
    DL_APPEND2(lane->peer->work, lane, work_prev, work_next);
}

static int on_data(ssh_session ssh, ssh_channel channel, void *data, uint32_t len, int is_stderr, void *arg)
{
    struct lane *lane = arg;
    (void)ssh, (void)channel, (void)is_stderr;
    lane->in += len;
    lane->last = ((unsigned char *)data)[len - 1];
    lane_mark(lane);
    return (int)len;
}

static void on_eof(ssh_session ssh, ssh_channel channel, void *arg)
{
    struct lane *lane = arg;
    (void)ssh, (void)channel;
    lane->ended = true;
    lane_mark(lane);
}

static void on_close(ssh_session ssh, ssh_channel channel, void *arg)
{
    struct lane *lane = arg;
    (void)ssh, (void)channel;
    lane->closed = true;
    lane_mark(lane);
}

static void on_response(ssh_session ssh, ssh_channel channel, bool success, void *arg)
{
    struct lane *lane = arg;
    (void)channel;
    if (!success)
        die("a channel was refused: %s", ssh_get_error(ssh));
    lane->opened = true;
    lane_mark(lane);
}

static struct lane *lane_new(struct peer *peer, ssh_channel channel)
{
    struct lane *lane = calloc(1, sizeof(*lane));
    if (lane == NULL || channel == NULL)
        die("no channel: %s", ssh_get_error(peer->ssh));
    lane->peer = peer;
    lane->channel = channel;
    lane->callbacks.userdata = lane;
    lane->callbacks.channel_data_function = on_data;
    lane->callbacks.channel_eof_function = on_eof;
    lane->callbacks.channel_close_function = on_close;
    lane->callbacks.channel_open_response_function = on_response;
    ssh_callbacks_init(&lane->callbacks);
    ssh_set_channel_callbacks(channel, &lane->callbacks);
    return lane;
}

struct lane *lane_open(struct peer *peer, const struct address *target, const struct lane_ops *ops, void *arg)
{
    struct lane *lane = lane_new(peer, ssh_channel_new(peer->ssh));
    lane->ops = ops;
    lane->arg = arg;
    lane->started = now_ns();
    mark(peer);
    if (ssh_channel_open_forward(lane->channel, target->host, target->port, "127.0.0.1", 1) == SSH_ERROR)
        die("cannot open %s:%d: %s", target->host, target->port, ssh_get_error(peer->ssh));
    return lane;
}

void lane_write_byte(struct lane *lane, unsigned char byte)
{
    mark(lane->peer);
    if (ssh_channel_write(lane->channel, &byte, 1) != 1)
        die("cannot write: %s", ssh_get_error(lane->peer->ssh));
}

void lane_send(struct lane *lane, uint64_t bytes, bool eof_after)
{
    lane->to_write = bytes;
    lane->eof_after = eof_after;
    lane->in_writers = true;
    DL_APPEND2(lane->peer->writers, lane, writers_prev, writers_next);
    mark(lane->peer);
}

void lane_close(struct lane *lane)
{
    if (lane->in_writers)
        DL_DELETE2(lane->peer->writers, lane, writers_prev, writers_next);
    lane->in_writers = false;
    if (ssh_channel_close(lane->channel) == SSH_AGAIN)
        ssh_channel_close(lane->channel); /* the first call may have sent the EOF alone */
    mark(lane->peer);
}

static bool may_write(const struct peer *peer)
{
    return ssh_get_fd(peer->ssh) != -1 && (ssh_get_status(peer->ssh) & SSH_WRITE_PENDING) == 0;
}

static void write_some(struct lane *lane)
{
    static const unsigned char zeros[WRITE_CHUNK];
    uint32_t window;
    while (lane->to_write > 0 && may_write(lane->peer) &&
           (window = ssh_channel_window_size(lane->channel)) > 0) {
        uint32_t n = window < WRITE_CHUNK ? window : WRITE_CHUNK;
        n = lane->to_write < n ? (uint32_t)lane->to_write : n;
        int written = ssh_channel_write(lane->channel, zeros, n);
        if (written <= 0)
            return;
        lane->to_write -= (uint64_t)written;
    }
    if (lane->to_write > 0)
        return;
    lane->in_writers = false;
    DL_DELETE2(lane->peer->writers, lane, writers_prev, writers_next);
    if (lane->eof_after)
        ssh_channel_send_eof(lane->channel);
}

static void serve_lane(struct lane *lane)
{
    if (lane->opened && lane->ops->opened != NULL)
        lane->ops->opened(lane);
    lane->opened = false;
    if (lane->in > lane->told && lane->ops->received != NULL)
        lane->ops->received(lane);
    lane->told = lane->in;
    if (lane->ended && lane->ops->ended != NULL)
        lane->ops->ended(lane);
    lane->ended = false;
    if (!lane->closed)
        return;
    lane_close(lane);
    if (lane->ops->closed != NULL)
        lane->ops->closed(lane);
    if (lane->in_work)
        DL_DELETE2(lane->peer->work, lane, work_prev, work_next);
    ssh_remove_channel_callbacks(lane->channel, &lane->callbacks);
    ssh_channel_free(lane->channel);
    free(lane);
}

/* ---- Serving a session ---- */

static void on_message(struct peer *peer, ssh_message message)
{
    if (peer->on_open != NULL && ssh_message_type(message) == SSH_REQUEST_CHANNEL_OPEN &&
        ssh_message_subtype(message) == SSH_CHANNEL_FORWARDED_TCPIP)
        peer->on_open(lane_new(peer, ssh_message_channel_request_open_reply_accept(message)));
    else
        ssh_message_reply_default(message);
    ssh_message_free(message);
}

static void read_some(struct peer *peer)
{
    for (unsigned reads = 0; reads < READ_BUDGET && ssh_get_fd(peer->ssh) != -1;) {
        uint64_t before = peer->socket.in_bytes;
        ssh_message message = ssh_message_get(peer->ssh);
        if (message != NULL) {
            on_message(peer, message);
            continue;
        }
        if (peer->socket.in_bytes - before < READ_FULL)
            return;
        reads++;
    }
}

static void serve(struct peer *peer)
{
    struct lane *lane, *next;
    peer->is_due = false;
    advance(peer);
    if (peer->step != PEER_UP)
        return;
    peer->is_due = true; /* all that is marked until then is served now */
    read_some(peer);
    uint64_t read = peer->socket.in_bytes;
    while (ssh_get_fd(peer->ssh) != -1 && (lane = peer->work) != NULL) {
        lane->in_work = false;
        DL_DELETE2(peer->work, lane, work_prev, work_next);
        serve_lane(lane);
    }
    if (ssh_get_fd(peer->ssh) != -1)
        DL_FOREACH_SAFE2(peer->writers, lane, next, writers_next)
    write_some(lane);
    /* libssh may have read in passing, and queued a message. */
    peer->is_due = false;
    if (peer->socket.in_bytes != read || peer->work != NULL)
        mark(peer);
}

/* libssh may have closed the descriptor; else it is watched for what libssh waits for. */
static void settle(struct peer *peer)
{
    if (peer->step == PEER_GONE || peer->step == PEER_CONNECTING)
        return;
    int status = ssh_get_status(peer->ssh);
    if (ssh_get_fd(peer->ssh) == -1 || (status & (SSH_CLOSED | SSH_CLOSED_ERROR)) != 0) {
        gone(peer);
        return;
    }
    bool wants_write = (status & SSH_WRITE_PENDING) != 0;
    if (wants_write != peer->wants_write) {
        peer->wants_write = wants_write;
        watch(peer, EPOLL_CTL_MOD);
    }
}

/* ---- The loop ---- */

static void run_posted(struct loop *loop)
{
    uint64_t count;
    if (read(loop->wake, &count, sizeof(count)) < 0)
        return;
    pthread_mutex_lock(&loop->lock);
    void (*fn)(void *) = loop->posted;
    loop->posted = NULL;
    pthread_mutex_unlock(&loop->lock);
    if (fn != NULL)
        fn(loop->posted_arg);
}

static void serve_due(struct loop *loop)
{
    struct peer *due = loop->due, *peer;
    loop->due = NULL;
    while ((peer = due) != NULL) {
        due = peer->next_due;
        if (peer->step != PEER_GONE)
            serve(peer);
        else
            peer->is_due = false;
        settle(peer);
    }
}

static void *run(void *arg)
{
    struct loop *loop = arg;
    struct epoll_event events[256];
    for (;;) {
        int wait = start_again(loop);
        int n = epoll_wait(loop->epoll, events, 256, loop->due != NULL ? 0 : wait);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                run_posted(loop);
            else
                mark(events[i].data.ptr);
        }
        serve_due(loop);
    }
    return NULL;
}

void loop_start(struct loop *loop)
{
    struct epoll_event event = { .events = EPOLLIN };
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&loop->lock, NULL);
    if (loop->epoll < 0 || loop->wake < 0 || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) != 0 ||
        pthread_create(&loop->thread, NULL, run, loop) != 0)
        die("cannot start a thread: %s", strerror(errno));
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    uint64_t one = 1;
    pthread_mutex_lock(&loop->lock);
    loop->posted = fn;
    loop->posted_arg = arg;
    pthread_mutex_unlock(&loop->lock);
    if (write(loop->wake, &one, sizeof(one)) < 0)
        die("eventfd: %s", strerror(errno));
}
