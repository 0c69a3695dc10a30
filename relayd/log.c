#include "relayd/log.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_MAX 2048

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static enum log_level threshold = LOG_LEVEL_INFO;
static bool as_json;

void log_setup(enum log_level level, bool json)
{
    threshold = level;
    as_json = json;
}

static size_t escape(const char *text, const char *also, char *out, size_t size)
{
    size_t used = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        bool plain = *p >= 0x20 && *p < 0x7f && strchr(also, *p) == NULL;
        if (used + (plain ? 1 : 4) >= size)
            break;
        if (plain)
            out[used++] = (char)*p;
        else
            used += (size_t)snprintf(out + used, size - used, "\\x%02x", *p);
    }
    out[used] = '\0';
    return used;
}

void log_escape(const char *text, char *out, size_t size)
{
    escape(text, "", out, size);
}

void log_quote(const char *text, char *out, size_t size)
{
    out[0] = '"';
    size_t used = 1 + escape(text, "\"\\", out + 1, size - 2);
    memcpy(out + used, "\"", 2);
}

static void format_time(char out[32])
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + n, 32 - n, ".%03ldZ", now.tv_nsec / 1000000);
}

/* A short or failed write loses the line: there is nowhere left to say so. */
static void put_line(const char *line, size_t len)
{
    if (write(STDERR_FILENO, line, len) < 0)
        return;
}

static void write_text(const char *level, const char *time, const struct log_subject *subject,
                       const char *message)
{
    char line[MESSAGE_MAX + 512];
    char who[384] = "";
    size_t used = 0;
    char plain[256];
    if (subject != NULL && subject->tenant != NULL) {
        log_escape(subject->tenant, plain, 65);
        used += (size_t)snprintf(who + used, sizeof(who) - used, "tenant=%s ", plain);
    }
    if (subject != NULL && subject->principal != NULL) {
        log_escape(subject->principal, plain, sizeof(plain));
        used += (size_t)snprintf(who + used, sizeof(who) - used, "principal=%s ", plain);
    }
    if (subject != NULL && subject->session != 0)
        snprintf(who + used, sizeof(who) - used, "session=%llu ", (unsigned long long)subject->session);
    int n = snprintf(line, sizeof(line), "%s %s %s%s\n", time, level, who, message);
    put_line(line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

static void write_json(const char *level, const char *time, const struct log_subject *subject,
                       const char *message)
{
    json_t *object = json_pack("{s:s, s:s}", "time", time, "level", level);
    if (subject != NULL && subject->tenant != NULL)
        json_object_set_new(object, "tenant", json_string(subject->tenant));
    if (subject != NULL && subject->principal != NULL)
        json_object_set_new(object, "principal", json_string(subject->principal));
    if (subject != NULL && subject->session != 0)
        json_object_set_new(object, "session", json_integer((json_int_t)subject->session));
    json_object_set_new(object, "message", json_string(message));

    char line[2 * MESSAGE_MAX + 1024];
    size_t n = json_dumpb(object, line, sizeof(line) - 1, JSON_COMPACT);
    json_decref(object);
    if (n == 0 || n >= sizeof(line))
        return;
    line[n] = '\n';
    put_line(line, n + 1);
}

void log_write(enum log_level level, const struct log_subject *subject, const char *fmt, ...)
{
    if (level > threshold)
        return;
    char raw[MESSAGE_MAX], message[MESSAGE_MAX], time[32];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof(raw), fmt, ap);
    va_end(ap);
    log_escape(raw, message, sizeof(message));
    format_time(time);
    (as_json ? write_json : write_text)(level_names[level], time, subject, message);
}
