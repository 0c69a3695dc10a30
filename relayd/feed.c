#include "relayd/feed.h"

#include "relayd/publish.h"

#include <stdio.h>
#include <string.h>

#define BYTES_SIZE 16

static void format_bytes(uint64_t bytes, char out[BYTES_SIZE])
{
    static const char units[] = "KMGTPE";
    double value = (double)bytes;
    int unit = -1;
    for (; value >= 1024 && unit < 5; unit++)
        value /= 1024;
    if (unit < 0)
        snprintf(out, BYTES_SIZE, "%u bytes", (unsigned)bytes);
    else
        snprintf(out, BYTES_SIZE, "%.1f %ciB", value, units[unit]);
}

/* What was refused bears the bytes of who asked. */
static void say_refused(const struct audit_event *event, char line[FEED_LINE_SIZE])
{
    char asked[300];
    log_quote(event->object, asked, sizeof(asked));
    snprintf(line, FEED_LINE_SIZE, "refused %s %s: %s: %s", event_code(event->kind), asked,
             reason_code(event->reason), reason_sentence(event->reason));
}

/* ": closed by force" of what has ended against the will of who used it. */
static void say_why(enum reason reason, char line[FEED_LINE_SIZE])
{
    size_t len = strlen(line);
    if (reason != REASON_none)
        snprintf(line + len, FEED_LINE_SIZE - len, ": %s: %s", reason_code(reason), reason_sentence(reason));
}

static void say_traffic(const struct audit_event *event, char line[FEED_LINE_SIZE])
{
    char up[BYTES_SIZE], down[BYTES_SIZE];
    size_t len = strlen(line);
    format_bytes(event->bytes_up, up);
    format_bytes(event->bytes_down, down);
    snprintf(line + len, FEED_LINE_SIZE - len, " (%s up, %s down, %.1f s)", up, down,
             (double)event->duration / 1000);
    say_why(event->reason, line);
}

/* Who serves the endpoint now; NULL if nobody does. */
static const struct session *server_of(const struct session *session, const char *endpoint)
{
    char name[NAME_SIZE];
    uint16_t port;
    const struct endpoint *found = NULL;
    if (name_of_endpoint(endpoint, name, &port))
        found = directory_find(session->tenant->directory, name, port);
    return found != NULL ? found->publications->session : NULL;
}

/* ---- To whom it is about ---- */

static void say_publish(const struct session *session, const struct audit_event *event,
                        char line[FEED_LINE_SIZE])
{
    char name[NAME_SIZE];
    uint16_t port;
    if (server_of(session, event->object) == session || !name_of_endpoint(event->object, name, &port))
        snprintf(line, FEED_LINE_SIZE, "published %s", event->object);
    else if (publish_find(session, name, port) != NULL)
        snprintf(line, FEED_LINE_SIZE, "a newer session, from %s, serves %s; this one is its standby",
                 event->address, event->object);
    else
        snprintf(line, FEED_LINE_SIZE, "another session, from %s, published %s", event->address,
                 event->object);
}

static void say_withdraw(const struct session *session, const struct audit_event *event,
                         char line[FEED_LINE_SIZE])
{
    if (server_of(session, event->object) == NULL)
        snprintf(line, FEED_LINE_SIZE, "withdrew %s", event->object);
    else
        snprintf(line, FEED_LINE_SIZE, "the session from %s withdrew %s", event->address, event->object);
}

static bool say_own(const struct session *session, const struct audit_event *event, char line[FEED_LINE_SIZE])
{
    switch (event->kind) {
    case EVENT_connect:
        return false; /* he has opened it himself */
    case EVENT_bridge_closed:
        if (event->reason == REASON_none)
            return false;
        snprintf(line, FEED_LINE_SIZE, "the connection to %s was cut", event->object);
        say_traffic(event, line);
        break;
    case EVENT_publish:
        say_publish(session, event, line);
        break;
    case EVENT_withdraw:
        say_withdraw(session, event, line);
        break;
    case EVENT_login:
        if (session->principal->kind == PRINCIPAL_CLIENT)
            return false; /* they come and go with every command */
        snprintf(line, FEED_LINE_SIZE, "another session logged in from %s", event->address);
        break;
    case EVENT_logout:
        if (session->principal->kind == PRINCIPAL_CLIENT)
            return false;
        snprintf(line, FEED_LINE_SIZE, "the session from %s left", event->address);
        say_why(event->reason, line);
        break;
    case EVENT_duplicate_publisher:
        snprintf(line, FEED_LINE_SIZE,
                 "%s is served by the newer of two live sessions, from %s: do two hosts have one key?",
                 event->object, event->peer);
        break;
    case EVENT_standby_serves:
        if (server_of(session, event->object) == session)
            snprintf(line, FEED_LINE_SIZE, "this session serves %s again", event->object);
        else
            snprintf(line, FEED_LINE_SIZE, "the session from %s serves %s again", event->address,
                     event->object);
        break;
    default:
        snprintf(line, FEED_LINE_SIZE, "%s %s %s", event->principal, event_words(event->kind), event->object);
        break;
    }
    return true;
}

/* ---- To others ---- */

/* To the device that was asked for it: it learns whose connection comes in, and why one does not. */
static void say_incoming(const struct audit_event *event, char line[FEED_LINE_SIZE])
{
    if (event->kind == EVENT_bridge_closed) {
        snprintf(line, FEED_LINE_SIZE, "client %s left %s", event->principal, event->object);
        say_traffic(event, line);
    } else if (event->reason == REASON_none) {
        snprintf(line, FEED_LINE_SIZE, "client %s connected from %s to %s", event->principal, event->address,
                 event->object);
    } else {
        snprintf(line, FEED_LINE_SIZE, "client %s from %s was refused %s", event->principal, event->address,
                 event->object);
        say_why(event->reason, line);
    }
}

/* To a client, of an endpoint that it may reach: it comes with its first publisher, and goes with its last.
 */
static bool say_endpoint(const struct session *session, const struct audit_event *event,
                         char line[FEED_LINE_SIZE])
{
    char name[NAME_SIZE];
    uint16_t port;
    if (event->reason != REASON_none || !name_of_endpoint(event->object, name, &port) ||
        !rules_allow(&session->principal->rules, name, port))
        return false;
    const struct endpoint *endpoint = directory_find(session->tenant->directory, name, port);
    bool came = event->kind == EVENT_publish;
    bool changed = came ? endpoint != NULL && endpoint->publications->next == NULL : endpoint == NULL;
    snprintf(line, FEED_LINE_SIZE, "%c %s %s", came ? '+' : '-', event->object, came ? "online" : "offline");
    return changed;
}

bool feed_line(const struct session *session, const struct audit_event *event, char line[FEED_LINE_SIZE])
{
    const struct principal *principal = session->principal;
    bool own = event->principal_id == principal->id;
    if (own && event->reason != REASON_none && event->kind != EVENT_logout &&
        event->kind != EVENT_bridge_closed)
        say_refused(event, line);
    else if (own)
        return say_own(session, event, line);
    else if (event->kind == EVENT_connect || event->kind == EVENT_bridge_closed)
        say_incoming(event, line);
    else
        return principal->kind == PRINCIPAL_CLIENT && say_endpoint(session, event, line);
    return true;
}
