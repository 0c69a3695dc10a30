#include "relayd/control.h"

#include "relayd/exchange.h"
#include "relayd/keeper.h"
#include "relayd/limits.h"
#include "relayd/log.h"
#include "relayd/mailbox.h"
#include "relayd/worker.h"
#include "schema/wire.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#define OUTPUT_MAX (256u * 1024) /* bytes of answers that may wait for a peer to read them */
#define IDLE_S 300               /* after which a silent connection makes room for others */
#define PAUSE_MS 100             /* after a failed accept */

/* One program on the socket. It has one request under way at a time: the next line is read when
 * the answer has been written, so its requests are answered in order. */
struct connection {
    struct exchange exchange; /* first */
    struct bufferevent *stream;
    json_int_t id; /* the peer's, of the request under way */
    uid_t uid;     /* whose program it is */
    bool closing;  /* what is written goes out, then it is closed */

    /* What has come of a batch whose last request is still to come; NULL: there is none. */
    json_t *batch;
    size_t batch_bytes;
    const struct command *batch_command;
    struct connection *prev, *next;
};

static struct control {
    struct evconnlistener *listener;
    struct event_base *base;
    struct mailbox *answers;
    struct event *answer_event;
    struct event *resume; /* accepting */
    struct connection *connections;
    unsigned nconnections;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
} control;

static void read_lines(struct connection *connection);

static bool is_busy(const struct connection *connection)
{
    return connection->exchange.request != NULL;
}

static void drop_batch(struct connection *connection)
{
    json_decref(connection->batch);
    connection->batch = NULL;
    connection->batch_bytes = 0;
}

static void connection_free(struct connection *connection)
{
    drop_batch(connection);
    DL_DELETE(control.connections, connection);
    if (control.nconnections-- == LIMIT_CONTROL_CONNECTIONS && control.listener != NULL)
        evconnlistener_enable(control.listener);
    exchange_leave(&connection->exchange);
    bufferevent_free(connection->stream);
    free(connection);
}

/* ---- Answers ---- */

/* Out of memory: the peer must not wait for what never comes. The end is served like one of its own. */
static void cut_off(struct connection *connection)
{
    shutdown(bufferevent_getfd(connection->stream), SHUT_RDWR);
}

static void put_line(struct connection *connection, char *line)
{
    static const char apology[] =
        "{\"id\":0,\"ok\":false,\"error\":{\"code\":\"out_of_memory\",\"message\":\"out of memory\"}}\n";
    const char *text = line != NULL ? line : apology;
    if (bufferevent_write(connection->stream, text, strlen(text)) != 0)
        cut_off(connection);
    free(line);
}

static void put_error(struct connection *connection, json_int_t id, enum reason reason, const char *text)
{
    char plain[600];
    log_escape(text, plain, sizeof(plain)); /* it may quote what was not UTF-8 */
    put_line(connection, wire_error_line(id, reason_code(reason), plain));
}

static void on_answer(struct exchange *exchange, const struct failure *failure, json_t *result)
{
    struct connection *connection = (struct connection *)exchange;
    if (failure->reason != REASON_none)
        put_error(connection, connection->id, failure->reason, failure->text);
    else
        put_line(connection, wire_result_line(connection->id, result));
    read_lines(connection);
}

void control_answer(struct request *request)
{
    mailbox_post_always(control.answers, &request->mail);
}

static void on_answers(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    struct mail *mail = mailbox_take(control.answers, 64);
    while (mail != NULL) {
        struct mail *next = mail->next;
        exchange_end((struct request *)mail);
        mail = next;
    }
}

/* ---- Requests ---- */

static struct request *new_request(const struct command *command, const char *tenant, json_t *args,
                                   const struct connection *connection)
{
    struct request *request = request_new(command, ROLE_ADMIN, tenant, args);
    if (request == NULL)
        return NULL;
    struct actor *actor = &request->actor;
    snprintf(actor->principal, sizeof(actor->principal), connection != NULL ? "control" : "signal");
    if (connection != NULL)
        snprintf(actor->address, sizeof(actor->address), "uid=%u", (unsigned)connection->uid);
    return request;
}

void control_run(enum command_id command)
{
    struct request *request = new_request(command_at(command), "", NULL, NULL);
    if (request == NULL) {
        log_error("%s: %s", command_at(command)->words, reason_sentence(REASON_out_of_memory));
        return;
    }
    keeper_request(request);
}

/* Puts the lines of this request behind those that came before. */
static int gather(struct connection *connection, const struct command *command, json_t *lines, size_t len,
                  struct failure *failure)
{
    if (!json_is_array(lines) || (connection->batch != NULL && connection->batch_command != command))
        return fail(failure, REASON_bad_request, "that does not go on with a batch, which is dropped");
    if (connection->batch == NULL)
        connection->batch = json_array();
    connection->batch_command = command;
    connection->batch_bytes += len;
    if (json_array_size(connection->batch) + json_array_size(lines) > LIMIT_BATCH ||
        connection->batch_bytes > LIMIT_BATCH_BYTES)
        return fail(failure, REASON_bad_argument, "a batch has at most %d lines and %u MiB", LIMIT_BATCH,
                    LIMIT_BATCH_BYTES >> 20);
    if (json_array_extend(connection->batch, lines) != 0)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    return 0;
}

/* A batch comes in several requests, and is run with the last. 1: there is nothing to run yet. */
static int take_batch(struct connection *connection, const struct command *command,
                      const struct wire_request *wire, size_t len, struct failure *failure)
{
    json_t *lines = json_object_get(wire->args, "batch");
    if (!wire->more && connection->batch == NULL)
        return 0;
    if (gather(connection, command, lines, len, failure) != 0)
        return -1;
    if (wire->more)
        return 1;
    int rc = json_object_set(wire->args, "batch", connection->batch);
    drop_batch(connection);
    if (rc != 0) /* or the last lines would be taken for all */
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    return 0;
}

static void answer_more(struct connection *connection, json_int_t id)
{
    json_t *result = json_pack("{s:s, s:I}", "status", "more", "lines",
                               (json_int_t)json_array_size(connection->batch));
    put_line(connection, wire_result_line(id, result));
    json_decref(result);
}

static void run(struct connection *connection, const struct command *command, const struct wire_request *wire)
{
    struct request *request = new_request(command, wire->tenant, wire->args, connection);
    if (request == NULL) {
        put_error(connection, wire->id, REASON_out_of_memory, reason_sentence(REASON_out_of_memory));
        return;
    }
    connection->id = wire->id;
    exchange_begin(&connection->exchange, request);
    keeper_request(request);
}

static void serve_line(struct connection *connection, const char *line, size_t len)
{
    struct wire_request wire;
    struct failure failure = { 0 };
    char error[256];
    if (wire_parse_request(line, len, &wire, error, sizeof(error)) != 0) {
        drop_batch(connection);
        put_error(connection, wire.id, REASON_bad_request, error);
        return;
    }
    const struct command *command = command_authorise(wire.cmd, ROLE_ADMIN, wire.args, &failure);
    int rc = command != NULL ? take_batch(connection, command, &wire, len, &failure) : -1;
    if (rc < 0) {
        drop_batch(connection);
        put_error(connection, wire.id, failure.reason, failure.text);
    } else if (rc > 0) {
        answer_more(connection, wire.id);
    } else {
        run(connection, command, &wire);
    }
    json_decref(wire.root);
}

static void read_lines(struct connection *connection)
{
    struct evbuffer *input = bufferevent_get_input(connection->stream);
    /* Who does not read its answers is not asked for more. */
    while (!is_busy(connection) &&
           evbuffer_get_length(bufferevent_get_output(connection->stream)) < OUTPUT_MAX) {
        size_t len;
        char *line = evbuffer_readln(input, &len, EVBUFFER_EOL_LF);
        if (line == NULL && evbuffer_search_eol(input, NULL, NULL, EVBUFFER_EOL_LF).pos >= 0)
            cut_off(connection);
        if (line == NULL)
            break;
        serve_line(connection, line, len);
        free(line);
    }
    if (!is_busy(connection) && evbuffer_get_length(input) > WIRE_LINE_MAX &&
        evbuffer_search_eol(input, NULL, NULL, EVBUFFER_EOL_LF).pos < 0) {
        put_error(connection, 0, REASON_bad_request, "that line is longer than 65536 bytes");
        evbuffer_drain(input, evbuffer_get_length(input));
        connection->closing = true;
        bufferevent_disable(connection->stream, EV_READ);
    }
}

/* Once the peer has sent its last line: the end comes when all is answered and has gone out. */
static void close_if_done(struct connection *connection)
{
    if (connection->closing && !is_busy(connection) &&
        evbuffer_get_length(bufferevent_get_output(connection->stream)) == 0)
        connection_free(connection);
}

static void on_written(struct bufferevent *stream, void *arg)
{
    (void)stream;
    read_lines(arg);
    close_if_done(arg);
}

static void on_read(struct bufferevent *stream, void *arg)
{
    (void)stream;
    read_lines(arg);
}

static void on_event(struct bufferevent *stream, short what, void *arg)
{
    struct connection *connection = arg;
    (void)stream;
    if ((what & BEV_EVENT_TIMEOUT) != 0 && is_busy(connection)) {
        bufferevent_enable(connection->stream, EV_READ | EV_WRITE);
    } else if ((what & (BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT)) != 0) {
        connection_free(connection);
    } else if ((what & BEV_EVENT_EOF) != 0) {
        connection->closing = true;
        close_if_done(connection);
    }
}

/* ---- The socket ---- */

static uid_t peer_uid(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? peer.uid : (uid_t)-1;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int len,
                      void *arg)
{
    (void)listener, (void)address, (void)len, (void)arg;
    struct connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        goto fail;
    connection->stream = bufferevent_socket_new(control.base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (connection->stream == NULL)
        goto fail;
    connection->uid = peer_uid(fd);
    exchange_init(&connection->exchange, control.base, on_answer);
    DL_APPEND(control.connections, connection);
    if (++control.nconnections == LIMIT_CONTROL_CONNECTIONS)
        evconnlistener_disable(control.listener); /* further ones wait in the backlog */
    bufferevent_setcb(connection->stream, on_read, on_written, on_event, connection);
    bufferevent_setwatermark(connection->stream, EV_READ, 0, 2 * WIRE_LINE_MAX);
    struct timeval idle = { .tv_sec = IDLE_S };
    bufferevent_set_timeouts(connection->stream, &idle, &idle);
    if (bufferevent_enable(connection->stream, EV_READ | EV_WRITE) != 0)
        connection_free(connection);
    return;
fail:
    close(fd);
    free(connection);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    evconnlistener_enable(control.listener);
}

/* No descriptor is left: without a pause this would be tried again at once, for ever. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    struct timeval delay = { .tv_usec = PAUSE_MS * 1000 };
    (void)arg;
    evconnlistener_disable(listener);
    evtimer_add(control.resume, &delay);
}

/* A socket file that nobody listens on is left over from a crash. */
static int remove_stale(const struct sockaddr_un *address, struct failure *failure)
{
    struct stat st;
    if (lstat(address->sun_path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return fail(failure, REASON_in_use, "%s is there and is not a socket", address->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool taken = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
    if (fd >= 0)
        close(fd);
    if (taken)
        return fail(failure, REASON_in_use, "another relayd answers on %s", address->sun_path);
    return unlink(address->sun_path) == 0
               ? 0
               : fail(failure, REASON_in_use, "cannot replace %s: %s", address->sun_path, strerror(errno));
}

static int bind_socket(const char *path, struct failure *failure)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const struct group *group = getgrnam("relayd");
    if (strlen(path) >= sizeof(address.sun_path))
        return fail(failure, REASON_bad_argument, "the path of the control socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (remove_stale(&address, failure) != 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0117);
    int rc = fd >= 0 ? bind(fd, (const struct sockaddr *)&address, sizeof(address)) : -1;
    int error = errno;
    umask(mask);
    if (rc != 0) {
        if (fd >= 0)
            close(fd);
        return fail(failure, REASON_in_use, "cannot make the control socket %s: %s", path, strerror(error));
    }
    if (group != NULL && lchown(path, (uid_t)-1, group->gr_gid) != 0)
        log_warn("cannot give %s to group relayd: %s", path, strerror(errno));
    memcpy(control.path, address.sun_path, sizeof(control.path));
    return fd;
}

int control_start(struct event_base *base, const char *path, struct failure *failure)
{
    int fd = bind_socket(path, failure);
    if (fd < 0)
        return -1;
    control.base = base;
    control.answers = mailbox_new(SIZE_MAX);
    control.listener = evconnlistener_new(base, on_accept, NULL,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 64, fd);
    control.resume = evtimer_new(base, on_resume, NULL);
    if (control.answers == NULL || control.listener == NULL || control.resume == NULL)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    evconnlistener_set_error_cb(control.listener, on_accept_error);
    control.answer_event = event_new(base, mailbox_fd(control.answers), EV_READ | EV_PERSIST, on_answers,
                                     NULL);
    if (control.answer_event == NULL || event_add(control.answer_event, NULL) != 0)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    return 0;
}

void control_stop(void)
{
    if (control.listener == NULL)
        return;
    unlink(control.path);
    evconnlistener_free(control.listener);
    control.listener = NULL;
    while (control.connections != NULL)
        connection_free(control.connections);
    if (control.answer_event != NULL)
        event_free(control.answer_event);
    if (control.resume != NULL)
        event_free(control.resume);
}

void control_free(void)
{
    struct mail *mail = control.answers != NULL ? mailbox_take(control.answers, SIZE_MAX) : NULL;
    while (mail != NULL) {
        struct mail *next = mail->next;
        request_free((struct request *)mail);
        mail = next;
    }
    mailbox_free(control.answers);
}
