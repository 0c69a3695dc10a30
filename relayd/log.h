#ifndef RELAYD_LOG_H
#define RELAYD_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Log lines go to stderr, one write() each, from any thread. Bytes outside 0x20..0x7e leave as
 * \xNN, so that whatever a peer chose cannot forge a line or reach a terminal. Between log_start() and
 * log_stop() a thread of the log's own writes them: who logs never waits for who reads. Of the room
 * for lines that wait no tenant takes more than it leaves, nor do all that have not logged in. Lines beyond
 * are dropped, and their number is written in their place. */
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Whom a line is about, and for lines as JSON alone, from where, and by the codes of events.def and
 * reasons.def what; NULL and 0 are left out. A line with neither principal nor session is relayd's own: what
 * it says of a tenant was done by an administrator. */
struct log_subject {
    const char *tenant;
    const char *principal;
    uint64_t session;
    const char *address, *event, *reason;
};

/* Any thread, any time. */
void log_setup(enum log_level level, bool json);

/* Starts the writer; -1 if there is no memory for it. The main thread, before others log. */
int log_start(void) __attribute__((warn_unused_result));

/* Ends it when all is written, or after 2 s, when the reader does not read: the rest is lost then, and
 * what is logged later. The main thread, when no other is left. */
void log_stop(void);

/* Bytes of lines that wait to be written. Any thread. */
size_t log_waiting(void);

void log_write(enum log_level level, const struct log_subject *subject, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, NULL, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, NULL, __VA_ARGS__)

/* Copies text to out (size bytes, always ended), bytes outside 0x20..0x7e as \xNN. */
void log_escape(const char *text, char *out, size_t size);

/* The same between quotes, with quotes and backslashes in it escaped too, so that its end is clear. */
void log_quote(const char *text, char *out, size_t size);

#endif
