#include "relayd/listener.h"

#include "relayd/limits.h"
#include "relayd/log.h"
#include "relayd/systemd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/listener.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAUSE_MS 100
#define BACKLOG 4096

struct listener {
    struct evconnlistener *sockets[CONFIG_LISTEN_MAX];
    size_t n;
    struct event *resume;
    bool paused;
    unsigned cap;
    void (*accepting)(int fd, const struct sockaddr *address);
    unsigned (*held)(void);
};

static void set_paused(struct listener *listener, bool paused)
{
    struct timeval delay = { .tv_usec = PAUSE_MS * 1000 };
    for (size_t i = 0; i < listener->n; i++)
        (paused ? evconnlistener_disable : evconnlistener_enable)(listener->sockets[i]);
    if (paused)
        evtimer_add(listener->resume, &delay);
    if (paused && !listener->paused)
        log_warn(
            "no more than %u connections: new ones wait until some have left (see the limit of open files)",
            listener->cap);
    listener->paused = paused;
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct listener *listener = arg;
    (void)fd, (void)what;
    set_paused(listener, listener->held() >= listener->cap);
}

static void on_accept(struct evconnlistener *socket, evutil_socket_t fd, struct sockaddr *address, int len,
                      void *arg)
{
    struct listener *listener = arg;
    (void)socket, (void)len;
    listener->accepting(fd, address);
    if (listener->held() >= listener->cap)
        set_paused(listener, true);
}

static void on_error(struct evconnlistener *socket, void *arg)
{
    struct listener *listener = arg;
    (void)socket;
    log_warn("cannot accept: %s", strerror(errno));
    set_paused(listener, true);
}

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
static unsigned session_cap(unsigned nworkers)
{
    struct rlimit limit = { 1024, 1024 };
    unsigned reserve = LIMIT_DESCRIPTOR_RESERVE + nworkers * LIMIT_DESCRIPTORS_A_WORKER;
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
    listener->cap = session_cap(options->nworkers);
    listener->accepting = options->accepting;
    listener->held = options->held;
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
    event_free(listener->resume);
    free(listener);
}
