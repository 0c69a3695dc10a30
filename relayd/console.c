#define SSH_SUPPRESS_DEPRECATED
#include "relayd/console.h"

#include "relayd/command.h"
#include "relayd/self.h"
#include "schema/text.h"

#include <event2/buffer.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define CTRL_C 0x03
#define CTRL_D 0x04
#define WORDS_MAX 64

enum console_state {
    CONSOLE_WAITING, /* for shell or exec */
    CONSOLE_SHELL,   /* greeted, held open */
    CONSOLE_ENDING,  /* what is queued goes out, then the exit status and CLOSE */
};

struct console {
    enum console_state state;
    bool pty;   /* lines end in CR LF; Ctrl-C and Ctrl-D leave */
    bool leave; /* recorded: one of them came */
    int exit_status;
    struct evbuffer *out;
};

static void console_free(struct console *console)
{
    evbuffer_free(console->out);
    free(console);
}

/* ---- The channel ---- */

static size_t console_receive(struct channel *channel, const void *data, size_t len)
{
    struct console *console = channel->owner;
    if (console->pty && console->state == CONSOLE_SHELL &&
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

static bool console_serve(struct channel *channel)
{
    struct console *console = channel->owner;
    struct evbuffer_iovec front;
    if ((channel->news & NEWS_CLOSE) != 0) {
        finish(channel, true);
        return false;
    }
    if (console->leave)
        console->state = CONSOLE_ENDING;
    while (evbuffer_peek(console->out, -1, NULL, &front, 1) > 0) {
        size_t n = chan_write(channel, front.iov_base, front.iov_len);
        if (n == 0)
            return true;
        evbuffer_drain(console->out, n);
    }
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
    struct console *console = calloc(1, sizeof(*console));
    if (console != NULL)
        console->out = evbuffer_new();
    if (console == NULL || console->out == NULL || session->nchannels + session->nopens >= LIMIT_CHANNELS) {
        if (console != NULL && console->out != NULL)
            evbuffer_free(console->out);
        free(console);
        session_refuse(session, EVENT_channel, "session", REASON_too_many_channels, NULL);
        ssh_message_reply_default(message);
        return;
    }
    ssh_channel accepted = ssh_message_channel_request_open_reply_accept(message);
    if (chan_adopt(session, accepted, &console_ops, console) == NULL)
        console_free(console);
}

/* ---- What is shown ---- */

/* Appends text; on a terminal with CR before each LF. */
static void show(struct console *console, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n' && console->pty)
            evbuffer_add(console->out, "\r", 1);
        evbuffer_add(console->out, text, 1);
    }
}

static void show_json(struct console *console, const json_t *value)
{
    char *text = text_render(value);
    show(console, text != NULL ? text : "out of memory\n");
    free(text);
}

static void greet(struct session *session, struct console *console)
{
    json_t *greeting = self_greeting(session);
    show(console, "This is relayd. There is no shell here; your forwards work while this session lasts.\n\n");
    show_json(console, greeting);
    show(console, console->pty ? "\nCtrl-C leaves. Commands: ssh RELAY help\n" : "\n");
    json_decref(greeting);
}

/* ---- exec ---- */

/* Splits at blanks; no quoting, for no argument needs any. */
static int split(char *line, char *words[WORDS_MAX])
{
    int n = 0;
    for (char *word = strtok_r(line, " \t", &line); word != NULL && n < WORDS_MAX;
         word = strtok_r(NULL, " \t", &line))
        words[n++] = word;
    return n;
}

static json_t *run_command(struct session *session, const struct command *command, char *rest,
                           struct failure *failure)
{
    struct usage usage;
    char *words[WORDS_MAX], error[256];
    int n = split(rest, words);
    usage_parse(command->arguments, &usage);
    json_t *args = usage_from_words(&usage, n, words, error, sizeof(error));
    json_t *result = NULL;
    if (args == NULL)
        fail(failure, REASON_bad_argument, "%s; usage: %s %s", error, command->words, command->arguments);
    else if (command_authorise(command->words, self_role(session), args, failure) != NULL)
        result = command->steps->session(session, args, failure);
    json_decref(args);
    return result;
}

static void run_line(struct session *session, struct console *console, const char *line)
{
    struct failure failure = { 0 };
    json_t *result = NULL;
    char *rest, *copy = strdup(line);
    const struct command *command = copy != NULL ? command_in_line(copy, self_role(session), &rest) : NULL;
    if (command != NULL)
        result = run_command(session, command, rest, &failure);
    else
        fail(&failure, REASON_unknown_command, "%s", reason_sentence(REASON_unknown_command));
    free(copy);
    if (result != NULL) {
        show_json(console, result);
        json_decref(result);
    } else {
        session_refuse(session, EVENT_exec, line, failure.reason, NULL);
        show(console, "relayd: ");
        show(console, failure.text);
        show(console, "\n");
        console->exit_status = 1;
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

/* The first shell or exec starts the channel (RFC 4254, 6.5). */
static bool begin(struct session *session, struct channel *channel, ssh_message message, int type)
{
    struct console *console = channel->owner;
    if (console->state != CONSOLE_WAITING)
        return false;
    if (type == SSH_CHANNEL_REQUEST_SHELL) {
        console->state = CONSOLE_SHELL;
        greet(session, console);
    } else {
        const char *line = ssh_message_channel_request_command(message);
        console->state = CONSOLE_ENDING;
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
        console->pty = true;
        return true;
    case SSH_CHANNEL_REQUEST_WINDOW_CHANGE:
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
    if (channel->ops == &console_ops && handle(session, channel, message, ssh_message_subtype(message)))
        ssh_message_channel_request_reply_success(message);
    else
        ssh_message_reply_default(message);
}
