#include "relayd/listener.h"

#include "relayd/gate.h"
#include "relayd/hash.h"
#include "relayd/limits.h"
#include "relayd/log.h"
#include "relayd/systemd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#define PAUSE_MS 20
#define QUIET_S 10 /* between two lines that say that accepting has paused */
#define BACKLOG 4096

/* An accepted socket that has to wait for its turn. */
struct delayed {
    int fd;
    struct sockaddr_storage address;
    struct delayed *prev, *next;
};

/* Those of one source that is slowed, in the order in which they came; there is one while any wait. */
struct line {
    struct source source;
    struct listener *listener;
    struct event *turn; /* when the first may come in */
    struct delayed *first;
    unsigned n;
    UT_hash_handle hh;
};

struct listener {
    struct evconnlistener *sockets[CONFIG_LISTEN_MAX];
    size_t n;
    struct event_base *base;
    struct event *resume;
    struct line *lines;
    unsigned ndelayed; /* in all of them */
    unsigned cap;
    time_t said; /* when the log said last that accepting has paused */
    struct listener_options options;
};

/* ---- Pausing ---- */

static void pause_accepting(struct listener *listener, const char *why)
{
    struct timeval delay = { .tv_usec = PAUSE_MS * 1000 };
    time_t now = time(NULL);
    for (size_t i = 0; i < listener->n; i++)
        evconnlistener_disable(listener->sockets[i]);
    evtimer_add(listener->resume, &delay);
    gate_set_full();
    if (now < listener->said || now - listener->said >= QUIET_S) {
        log_warn("%s: new connections wait until some have left", why);
        listener->said = now;
    }
}

/* Why no connection can be taken; NULL if one can. */
static const char *full(const struct listener *listener, char *text, size_t size)
{
    unsigned max_logins = gate_max_logins();
    if (listener->options.held() + listener->ndelayed >= listener->cap)
        snprintf(text, size, "no more than %u connections (see the limit of open files)", listener->cap);
    else if (listener->options.logins() >= max_logins)
        snprintf(text, size, "no more than %u connections that have not logged in (see max-logins)",
                 max_logins);
    else
        return NULL;
    return text;
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct listener *listener = arg;
    char text[128];
    (void)fd, (void)what;
    const char *why = full(listener, text, sizeof(text));
    if (why != NULL) {
        pause_accepting(listener, why);
        return;
    }
    for (size_t i = 0; i < listener->n; i++)
        evconnlistener_enable(listener->sockets[i]);
}

/* Cheap, and before the banner, where a line is allowed (RFC 4253, 4.2); ssh -v shows it. The socket is
 * new, so there is room for the line, or it is lost. */
static void refuse(int fd)
{
    static const char text[] = "relayd: too many failures from this address: try again later\r\n";
    send(fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
    gate_refused();
}

/* ---- Waiting in line ---- */

static struct line *find_line(const struct listener *listener, const struct source *source)
{
    struct line *line;
    HASH_FIND(hh, listener->lines, source, sizeof(*source), line);
    return line;
}

/* Takes the first out of the line; its socket is the caller's. */
static int leave_line(struct line *line)
{
    struct delayed *delayed = line->first;
    int fd = delayed->fd;
    DL_DELETE(line->first, delayed);
    line->n--;
    line->listener->ndelayed--;
    free(delayed);
    return fd;
}

static void free_line(struct line *line)
{
    HASH_DEL(line->listener->lines, line);
    event_free(line->turn);
    free(line);
}

static bool has_given_up(int fd)
{
    struct pollfd pollfd = { .fd = fd, .events = POLLRDHUP };
    return poll(&pollfd, 1, 0) > 0;
}

static void set_turn(struct line *line, uint64_t us)
{
    struct timeval due = { .tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000) };
    if (evtimer_add(line->turn, &due) != 0)
        event_active(line->turn, EV_TIMEOUT, 0); /* rather too early than never */
}

/* Lets the first in; returns false if it has to wait on, for *us. */
static bool serve_first(struct line *line, uint64_t *us)
{
    struct listener *listener = line->listener;
    struct sockaddr_storage address = line->first->address;
    if (has_given_up(line->first->fd)) {
        close(leave_line(line));
        return true;
    }
    if (listener->options.logins() >= gate_max_logins()) {
        gate_set_full();
        *us = PAUSE_MS * 1000;
        return false;
    }
    enum penalty_verdict verdict = gate_check(&line->source, us);
    if (verdict == PENALTY_DELAY)
        return false;
    if (verdict == PENALTY_PASS)
        listener->options.accepting(leave_line(line), (const struct sockaddr *)&address, &line->source);
    else
        refuse(leave_line(line));
    return true;
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct line *line = arg;
    uint64_t us;
    (void)fd, (void)what;
    while (line->first != NULL) {
        if (!serve_first(line, &us)) {
            set_turn(line, us);
            return;
        }
    }
    free_line(line);
}

static struct line *new_line(struct listener *listener, const struct source *source, uint64_t us)
{
    struct line *line = calloc(1, sizeof(*line));
    if (line == NULL)
        return NULL;
    line->source = *source;
    line->listener = listener;
    line->turn = evtimer_new(listener->base, on_turn, line);
    if (line->turn == NULL)
        goto fail;
    HASH_ADD(hh, listener->lines, source, sizeof(line->source), line);
    if (line->hh.tbl == NULL)
        goto fail;
    set_turn(line, us);
    return line;
fail:
    if (line->turn != NULL)
        event_free(line->turn);
    free(line);
    return NULL;
}

/* A quarter of the descriptors may wait, and of one source no more than that leaves to others. */
static bool has_room(const struct listener *listener, const struct line *line)
{
    return listener->ndelayed + (line != NULL ? line->n : 0) < listener->cap / 4;
}

/* -1: too many wait already, or there is no memory. line: the source's, or NULL. */
static int stand_in_line(struct listener *listener, struct line *line, int fd, const struct sockaddr *address,
                         socklen_t len, const struct source *source, uint64_t us)
{
    struct delayed *delayed = has_room(listener, line) ? calloc(1, sizeof(*delayed)) : NULL;
    if (delayed != NULL && line == NULL)
        line = new_line(listener, source, us);
    if (delayed == NULL || line == NULL) {
        free(delayed);
        return -1;
    }
    delayed->fd = fd;
    memcpy(&delayed->address, address, len < sizeof(delayed->address) ? len : sizeof(delayed->address));
    DL_APPEND(line->first, delayed);
    line->n++;
    listener->ndelayed++;
    return 0;
}

/* ---- Accepting ---- */

static void on_accept(struct evconnlistener *socket, evutil_socket_t fd, struct sockaddr *address, int len,
                      void *arg)
{
    struct listener *listener = arg;
    char text[128];
    uint64_t us = 0;
    (void)socket;
    struct source source = gate_source(address);
    struct line *line = find_line(listener, &source);
    enum penalty_verdict verdict = line != NULL ? PENALTY_DELAY : gate_check(&source, &us);
    if (verdict == PENALTY_PASS)
        listener->options.accepting(fd, address, &source);
    else if (verdict == PENALTY_REFUSE ||
             stand_in_line(listener, line, fd, address, (socklen_t)len, &source, us) != 0)
        refuse(fd);
    const char *why = full(listener, text, sizeof(text));
    if (why != NULL)
        pause_accepting(listener, why);
}

static void on_error(struct evconnlistener *socket, void *arg)
{
    struct listener *listener = arg;
    char text[128];
    (void)socket;
    snprintf(text, sizeof(text), "cannot accept: %s", strerror(errno));
    pause_accepting(listener, text);
}

/* ---- Sockets ---- */

static void format(const struct sockaddr_storage *address, char *out, size_t size)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    if (address->ss_family == AF_INET)
        evutil_snprintf(out, size, "%s:%u", inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text)),
                        ntohs(v4->sin_port));
    else
        evutil_snprintf(out, size, "[%s]:%u", inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text)),
                        ntohs(v6->sin6_port));
}

static void add_socket(struct listener *listener, struct evconnlistener *socket, uint16_t *port)
{
    char text[80];
    struct sockaddr_storage bound = { 0 };
    socklen_t len = sizeof(bound);
    evconnlistener_set_error_cb(socket, on_error);
    listener->sockets[listener->n++] = socket;
    getsockname(evconnlistener_get_fd(socket), (struct sockaddr *)&bound, &len);
    format(&bound, text, sizeof(text));
    log_info("listening on %s", text);
    if (listener->n == 1)
        *port = ntohs(((const struct sockaddr_in *)&bound)->sin_port); /* at the same place in IPv6 */
}

static int listen_on(struct event_base *base, struct listener *listener, const struct config_address *address,
                     uint16_t *port, struct failure *failure)
{
    char text[80];
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    /* [::] and 0.0.0.0 are two sockets: what listens where is what the configuration says. */
    flags |= address->addr.ss_family == AF_INET6 ? LEV_OPT_BIND_IPV6ONLY : 0;
    struct evconnlistener *socket = evconnlistener_new_bind(base, on_accept, listener, flags, BACKLOG,
                                                            (const struct sockaddr *)&address->addr,
                                                            (int)address->len);
    if (socket == NULL) {
        int error = errno;
        format(&address->addr, text, sizeof(text));
        return fail(failure, REASON_in_use, "cannot listen on %s: %s", text, strerror(error));
    }
    add_socket(listener, socket, port);
    return 0;
}

static int get_option(int fd, int option)
{
    int value = -1;
    socklen_t len = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

static bool is_listening_tcp(int fd)
{
    int family = get_option(fd, SO_DOMAIN);
    return (family == AF_INET || family == AF_INET6) && get_option(fd, SO_PROTOCOL) == IPPROTO_TCP &&
           get_option(fd, SO_ACCEPTCONN) == 1;
}

/* Its backlog is whoever made it's to choose. What waits in it was not refused while relayd was down. */
static int adopt(struct event_base *base, struct listener *listener, int fd, uint16_t *port,
                 struct failure *failure)
{
    if (!is_listening_tcp(fd))
        return fail(failure, REASON_bad_argument,
                    "descriptor %d, passed by the service manager, is not a TCP socket that listens", fd);
    if (listener->n == CONFIG_LISTEN_MAX)
        return fail(failure, REASON_bad_argument, "the service manager passed more than %d sockets",
                    CONFIG_LISTEN_MAX);
    struct evconnlistener *socket = NULL;
    if (evutil_make_socket_nonblocking(fd) == 0)
        socket = evconnlistener_new(base, on_accept, listener, LEV_OPT_CLOSE_ON_FREE, 0, fd);
    if (socket == NULL)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    add_socket(listener, socket, port);
    return 0;
}

/* IPv6 may be switched off: when both wildcard addresses are asked for, one is enough. */
static bool may_lack(const struct config_addresses *addresses, const struct config_address *address)
{
    return addresses->n > 1 && address->addr.ss_family == AF_INET6 && errno == EAFNOSUPPORT;
}

/* How many sessions the descriptors allow. */
static unsigned session_cap(unsigned nloops)
{
    struct rlimit limit = { 1024, 1024 };
    unsigned reserve = LIMIT_DESCRIPTOR_RESERVE + nloops * LIMIT_DESCRIPTORS_A_WORKER;
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t most = limit.rlim_cur < 1000000 ? limit.rlim_cur : 1000000;
    return most > reserve ? (unsigned)most - reserve : 1;
}

static int open_sockets(struct event_base *base, struct listener *listener,
                        const struct listener_options *options, uint16_t *port, struct failure *failure)
{
    const struct config_addresses *addresses = options->addresses;
    if (options->npassed < 0)
        return fail(failure, REASON_bad_argument, "LISTEN_FDS or LISTEN_PID in the environment is wrong");
    for (int i = 0; i < options->npassed; i++)
        if (adopt(base, listener, SYSTEMD_FIRST_FD + i, port, failure) != 0)
            return -1;
    for (size_t i = 0; options->npassed == 0 && i < addresses->n; i++)
        if (listen_on(base, listener, &addresses->v[i], port, failure) != 0 &&
            !may_lack(addresses, &addresses->v[i]))
            return -1;
    return listener->n > 0 ? 0 : -1;
}

struct listener *listener_new(struct event_base *base, const struct listener_options *options, uint16_t *port,
                              struct failure *failure)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL || (listener->resume = evtimer_new(base, on_resume, listener)) == NULL) {
        free(listener);
        fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
        return NULL;
    }
    listener->base = base;
    listener->options = *options;
    listener->cap = session_cap(options->nloops);
    if (open_sockets(base, listener, options, port, failure) == 0)
        return listener;
    listener_free(listener);
    return NULL;
}

void listener_free(struct listener *listener)
{
    if (listener == NULL)
        return;
    for (size_t i = 0; i < listener->n; i++)
        evconnlistener_free(listener->sockets[i]);
    struct line *line, *next;
    HASH_ITER(hh, listener->lines, line, next) {
        while (line->first != NULL)
            close(leave_line(line));
        free_line(line);
    }
    event_free(listener->resume);
    free(listener);
}
