#define SSH_SUPPRESS_DEPRECATED
#include "relayd/console.h"

#include "relayd/exchange.h"
#include "relayd/feed.h"
#include "relayd/keeper.h"
#include "relayd/screen.h"
#include "relayd/self.h"
#include "schema/quote.h"
#include "schema/result.h"
#include "schema/wire.h"

#include <event2/buffer.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define CTRL_C 0x03
#define CTRL_D 0x04

/* What a command ends with, as relayctl does. */
#define STATUS_REFUSED 1
#define STATUS_USAGE 2
#define STATUS_INTERRUPTED 130

enum console_state {
    CONSOLE_WAITING, /* for shell or exec */
    CONSOLE_SHELL,   /* greeted, held open */
    CONSOLE_ASKING,  /* its command is under way */
    CONSOLE_ENDING,  /* what is queued goes out, then the exit status and CLOSE */
};

struct console {
    struct exchange exchange; /* first; of the command under way */
    struct follower follower; /* of an open shell */
    enum console_state state;
    bool leave; /* recorded: Ctrl-C or Ctrl-D came from a terminal */
    bool json;  /* the answer is wanted as JSON */
    int exit_status;
    const struct command *command; /* that was asked for; NULL: none, or not as it can be */
    struct channel *channel;
    struct screen screen;
    size_t unread; /* what waits in it, as its principal and tenant were told */
};

static void on_answer(struct exchange *exchange, const struct failure *failure, json_t *result);

static struct console *console_new(struct event_base *base)
{
    struct console *console = calloc(1, sizeof(*console));
    if (console == NULL || screen_init(&console->screen) != 0) {
        free(console);
        return NULL;
    }
    exchange_init(&console->exchange, base, on_answer);
    return console;
}

/* Memory is everybody's: what nobody reads counts for the principal and the tenant. */
static void count_unread(struct console *console, size_t unread)
{
    struct session *session = console->channel->session;
    session->principal->unread += unread - console->unread; /* modulo, if it is less now */
    session->tenant->unread += unread - console->unread;
    console->unread = unread;
}

static void count_screen(struct console *console)
{
    count_unread(console,
                 evbuffer_get_length(console->screen.out) + evbuffer_get_length(console->screen.err));
}

/* Half of what a tenant has is for its administrators: the others must not keep them from stopping them. */
static size_t share(const struct session *session, size_t of_tenant)
{
    return session->principal->admin ? of_tenant : of_tenant / 2;
}

static bool has_room(const struct session *session)
{
    return session->principal->unread < LIMIT_UNREAD_PRINCIPAL &&
           session->tenant->unread < share(session, LIMIT_UNREAD_TENANT);
}

static void console_free(struct console *console)
{
    if (console->unread > 0)
        count_unread(console, 0);
    exchange_leave(&console->exchange);
    if (console->follower.principal != NULL)
        tenant_unfollow(&console->follower);
    screen_clear(&console->screen);
    free(console);
}

/* ---- The channel ---- */

static size_t console_receive(struct channel *channel, const void *data, size_t len)
{
    struct console *console = channel->owner;
    if (console->screen.pty && console->state != CONSOLE_WAITING &&
        (memchr(data, CTRL_C, len) != NULL || memchr(data, CTRL_D, len) != NULL))
        console->leave = true;
    return len;
}

static void finish(struct channel *channel, bool closed_by_peer)
{
    struct console *console = channel->owner;
    if (!closed_by_peer) {
        ssh_channel_request_send_exit_status(channel->ssh, console->exit_status);
        chan_send_eof(channel);
    }
    chan_close(channel);
    chan_abandon(channel);
    console_free(console);
}

/* Sends what waits in one of the screen's streams. False if the peer can take no more now. */
static bool send_all(struct channel *channel, struct evbuffer *from,
                     size_t write(struct channel *channel, const void *data, size_t len))
{
    struct evbuffer_iovec front;
    while (evbuffer_peek(from, -1, NULL, &front, 1) > 0) {
        size_t n = write(channel, front.iov_base, front.iov_len);
        if (n == 0)
            return false;
        evbuffer_drain(from, n);
    }
    return true;
}

/* From the keyboard: a shell ends as it should, a command is cut off. */
static void leave(struct console *console)
{
    console->leave = false;
    if (console->state != CONSOLE_SHELL) {
        evbuffer_drain(console->screen.out, evbuffer_get_length(console->screen.out));
        console->exit_status = STATUS_INTERRUPTED;
    }
    console->state = CONSOLE_ENDING;
}

/* False if the peer can take no more now. */
static bool send_screen(struct channel *channel, struct screen *screen)
{
    do {
        if (!send_all(channel, screen->err, chan_write_stderr) || !send_all(channel, screen->out, chan_write))
            return false;
    } while (screen_tell_lost(screen, time(NULL)));
    return true;
}

static bool console_serve(struct channel *channel)
{
    struct console *console = channel->owner;
    if ((channel->news & NEWS_CLOSE) != 0) {
        finish(channel, true);
        return false;
    }
    if (console->leave)
        leave(console);
    bool sent = send_screen(channel, &console->screen);
    count_screen(console);
    if (!sent)
        return true;
    if (console->state == CONSOLE_ENDING)
        finish(channel, false);
    return false;
}

static void console_lose(struct channel *channel)
{
    console_free(channel->owner);
}

static const struct channel_ops console_ops = { console_receive, console_serve, console_lose };

void console_open(struct session *session, ssh_message message)
{
    bool full = session->nchannels + session->nopens >= LIMIT_CHANNELS;
    struct console *console = full ? NULL : console_new(session->loop->base);
    if (console == NULL) {
        session_refuse(session, EVENT_channel, "session",
                       full ? REASON_too_many_channels : REASON_out_of_memory, NULL);
        ssh_message_reply_default(message);
        return;
    }
    ssh_channel accepted = ssh_message_channel_request_open_reply_accept(message);
    console->channel = chan_adopt(session, accepted, &console_ops, console);
    if (console->channel == NULL)
        console_free(console);
}

/* ---- The shell ---- */

static void on_event(struct follower *follower, const struct audit_event *event)
{
    struct console *console = (struct console *)((char *)follower - offsetof(struct console, follower));
    char line[FEED_LINE_SIZE] = "too much happened at once: some of it is not shown here";
    if (console->state != CONSOLE_SHELL ||
        (event != NULL && !feed_line(console->channel->session, event, line)))
        return;
    if (console->unread > 0 && !has_room(console->channel->session))
        console->screen.lost++; /* a thousand shells that nobody reads hold a lot, too */
    else
        screen_tell(&console->screen, line, time(NULL));
    chan_mark(console->channel);
}

/* The forwards of the command line come before the shell: what was refused of them is shown with it. */
static void begin_shell(struct session *session, struct console *console)
{
    struct screen *screen = &console->screen;
    const struct note *refusal;
    json_t *greeting = self_greeting(session);
    screen_show_line(screen,
                     "This is relayd. There is no shell here; your forwards work while this session lasts.");
    screen_show_line(screen, "");
    screen_show_value(screen, greeting);
    json_decref(greeting);
    screen_show_line(screen, "");
    if (screen->pty) {
        screen_show_line(screen, "Ctrl-C leaves. Commands: ssh RELAY help");
        screen_show_line(screen, "");
    }
    DL_FOREACH(session->refusals, refusal)
        screen_tell(screen, refusal->text, refusal->time);
    console->state = CONSOLE_SHELL;
    count_screen(console);
    console->follower.tell = on_event;
    tenant_follow(session->principal, &console->follower);
}

/* ---- exec ---- */

static void show_failure(struct console *console, const struct failure *failure)
{
    char plain[600];
    log_escape(failure->text, plain, sizeof(plain)); /* it may quote what was not UTF-8 */
    if (!console->json) {
        screen_complain(&console->screen, plain);
        return;
    }
    json_t *error = json_pack("{s:{s:s, s:s}}", "error", "code", reason_code(failure->reason), "message",
                              plain);
    screen_show_document(&console->screen, error);
    json_decref(error);
}

static void show_text(struct console *console, char *text)
{
    screen_show(&console->screen, text != NULL ? text : "out of memory\n");
    free(text);
}

/* The command has come to its end. The result is borrowed. */
static void conclude(struct console *console, const struct failure *failure, json_t *result)
{
    if (failure->reason != REASON_none)
        show_failure(console, failure);
    else if (console->json)
        screen_show_document(&console->screen, result);
    else if (console->command->steps->text != NULL)
        show_text(console, console->command->steps->text(result, console->screen.columns));
    else
        show_text(console, result_render(result, screen_width(&console->screen)));
    if (failure->reason != REASON_none)
        console->exit_status = console->command != NULL ? STATUS_REFUSED : STATUS_USAGE;
    console->state = CONSOLE_ENDING;
    count_screen(console);
    chan_mark(console->channel);
}

static void on_answer(struct exchange *exchange, const struct failure *failure, json_t *result)
{
    conclude((struct console *)exchange, failure, result);
}

static struct request *first_of_tenant(struct request *requests, int64_t tenant_id)
{
    struct request *request;
    DL_FOREACH(requests, request)
        if (request->actor.tenant_id == tenant_id)
            return request;
    return NULL;
}

/* One of a tenant at a time: however long they take, and however many there are, whoever else needs the
 * keeper waits for one of them. */
static void send_next(struct loop *loop, int64_t tenant_id)
{
    struct request *next = first_of_tenant(loop->waiting, tenant_id);
    if (next == NULL || first_of_tenant(loop->requests, tenant_id) != NULL)
        return;
    DL_DELETE(loop->waiting, next);
    DL_APPEND(loop->requests, next);
    keeper_request(next);
}

void console_answer(struct loop *loop, struct request *request)
{
    DL_DELETE(loop->requests, request);
    send_next(loop, request->actor.tenant_id);
    exchange_end(request);
}

/* How many of its tenant and of its principal are under way is counted when the next one comes, for they
 * outlive consoles, sessions and principals. */
static bool may_ask(const struct session *session)
{
    const struct request *lists[] = { session->loop->requests, session->loop->waiting }, *request;
    unsigned of_principal = 0, of_tenant = 0;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        DL_FOREACH(lists[i], request) {
            of_principal += request->actor.principal_id == session->principal->id;
            of_tenant += request->actor.tenant_id == session->tenant->id;
        }
    return of_principal < LIMIT_REQUESTS_PRINCIPAL && of_tenant < share(session, LIMIT_REQUESTS_TENANT);
}

/* Sends the command to the keeper, in the session's own tenant. */
static enum reason ask(struct session *session, struct console *console, const struct command *command,
                       json_t *args)
{
    if (!may_ask(session))
        return REASON_too_many_requests;
    struct request *request = request_new(command, self_roles(session), session->tenant->name, args);
    if (request == NULL)
        return REASON_out_of_memory;
    struct actor *actor = &request->actor;
    actor->session = session->id;
    actor->tenant_id = session->tenant->id;
    actor->principal_id = session->principal->id;
    actor->key_id = session->key_id;
    snprintf(actor->principal, sizeof(actor->principal), "%s", session->principal->name);
    snprintf(actor->address, sizeof(actor->address), "%s", session->address);
    console->state = CONSOLE_ASKING;
    exchange_begin(&console->exchange, request);
    DL_APPEND(session->loop->waiting, request);
    send_next(session->loop, session->tenant->id);
    return REASON_none;
}

/* --json may stand anywhere, as with relayctl. */
static int take_json(struct console *console, int n, char *words[])
{
    int left = 0;
    for (int i = 0; i < n; i++) {
        if (strcmp(words[i], "--json") == 0)
            console->json = true;
        else
            words[left++] = words[i];
    }
    return left;
}

/* The arguments, and the command that may be run with them. NULL with *failure set. */
static json_t *read_args(const struct session *session, int n, char *words[], const struct command **command,
                         struct failure *failure)
{
    int used;
    struct usage usage;
    char error[256];
    *command = command_in_words(n, words, self_roles(session), &used);
    if (*command == NULL) {
        fail(failure, REASON_unknown_command, "%s", reason_sentence(REASON_unknown_command));
        return NULL;
    }
    usage_parse((*command)->arguments, &usage);
    json_t *args = usage_from_words(&usage, n - used, words + used, error, sizeof(error));
    if (args == NULL) {
        fail(failure, REASON_bad_argument, "%s; usage: %s%s%s", error, (*command)->words,
             *(*command)->arguments != '\0' ? " " : "", (*command)->arguments);
    } else if (command_authorise((*command)->words, self_roles(session), args, failure) == NULL) {
        json_decref(args);
        args = NULL;
    }
    return args;
}

/* Runs the command, or sends it out. */
static void run_words(struct session *session, struct console *console, int n, char *words[],
                      struct failure *failure)
{
    const struct command *command;
    json_t *args = read_args(session, take_json(console, n, words), words, &command, failure);
    if (args == NULL)
        return;
    console->command = command;
    if (command->steps->session == NULL) {
        enum reason reason = ask(session, console, command, args);
        if (reason != REASON_none)
            fail(failure, reason, "%s", reason_sentence(reason));
    } else {
        json_t *result = command->steps->session(session, args, failure);
        if (result == NULL && failure->reason == REASON_none)
            fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
        if (failure->reason == REASON_none)
            conclude(console, failure, result);
        json_decref(result);
    }
    json_decref(args);
}

static void run_line(struct session *session, struct console *console, const char *line)
{
    struct failure failure = { 0 };
    const char *error = "the command is too long";
    int n;
    char *copy = strlen(line) <= WIRE_LINE_MAX ? strdup(line) : NULL;
    char **words = copy != NULL ? quote_split(copy, &n, &error) : NULL;
    if (words != NULL)
        run_words(session, console, n, words, &failure);
    else
        fail(&failure, REASON_bad_argument, "%s", error);
    free(words);
    free(copy);
    if (failure.reason != REASON_none) {
        session_refuse(session, EVENT_exec, line, failure.reason, NULL);
        conclude(console, &failure, NULL);
    }
}

/* ---- Requests on channels ---- */

static struct channel *find_channel(const struct session *session, ssh_channel ssh)
{
    struct channel *channel;
    DL_FOREACH(session->channels, channel)
        if (channel->ssh == ssh)
            return channel;
    return NULL;
}

/* Each holds what it shows until that is read. */
static enum reason may_begin(const struct session *session)
{
    unsigned begun = 0;
    const struct channel *channel;
    DL_FOREACH(session->channels, channel)
        begun += channel->ops == &console_ops &&
                 ((const struct console *)channel->owner)->state != CONSOLE_WAITING;
    if (begun >= LIMIT_CONSOLES)
        return REASON_too_many_channels;
    return has_room(session) ? REASON_none : REASON_too_many_requests;
}

/* The first shell or exec starts the channel (RFC 4254, 6.5). */
static bool begin(struct session *session, struct channel *channel, ssh_message message, int type)
{
    struct console *console = channel->owner;
    if (console->state != CONSOLE_WAITING)
        return false;
    enum reason reason = may_begin(session);
    if (reason != REASON_none) {
        session_refuse(session, EVENT_exec, "session", reason, NULL);
        return false;
    }
    if (type == SSH_CHANNEL_REQUEST_SHELL) {
        begin_shell(session, console);
    } else {
        const char *line = ssh_message_channel_request_command(message);
        run_line(session, console, line != NULL ? line : "");
    }
    chan_mark(channel);
    return true;
}

static bool handle(struct session *session, struct channel *channel, ssh_message message, int type)
{
    struct console *console = channel->owner;
    switch (type) {
    case SSH_CHANNEL_REQUEST_PTY:
        screen_set_terminal(&console->screen, (unsigned)ssh_message_channel_request_pty_width(message));
        return true;
    case SSH_CHANNEL_REQUEST_WINDOW_CHANGE:
        if (console->screen.pty)
            screen_set_terminal(&console->screen, (unsigned)ssh_message_channel_request_pty_width(message));
        return true;
    case SSH_CHANNEL_REQUEST_SHELL:
    case SSH_CHANNEL_REQUEST_EXEC:
        return begin(session, channel, message, type);
    case SSH_CHANNEL_REQUEST_ENV:
        return false; /* ignored, as sshd does with what it was not told to take */
    case SSH_CHANNEL_REQUEST_SUBSYSTEM:
        session_refuse(session, EVENT_request, ssh_message_channel_request_subsystem(message),
                       REASON_not_supported, "subsystem");
        return false;
    case SSH_CHANNEL_REQUEST_X11:
        session_refuse(session, EVENT_request, "x11-req", REASON_not_supported, NULL);
        return false;
    default:
        return false; /* PuTTY asks winadj@ for every window: a plain failure is what it wants */
    }
}

/* The message holds a bare pointer, and its channel may be gone by now: it must be looked up before
 * anything is answered (libssh.md, 6). */
void console_request(struct session *session, ssh_message message)
{
    struct channel *channel = find_channel(session, ssh_message_channel_request_channel(message));
    if (channel == NULL || channel->state != CHANNEL_OPEN)
        return;
    session_touch(session);
    if (session->state == SESSION_UP && channel->ops == &console_ops &&
        handle(session, channel, message, ssh_message_subtype(message)))
        ssh_message_channel_request_reply_success(message);
    else
        ssh_message_reply_default(message);
}
