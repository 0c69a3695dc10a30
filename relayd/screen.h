#ifndef RELAYD_SCREEN_H
#define RELAYD_SCREEN_H

#include <event2/buffer.h>
#include <jansson.h>
#include <stdbool.h>
#include <time.h>

/* What a console shows to whom is at its other end: text that waits to be sent, in the width of his terminal.
 * Everything but a terminal gets plain lines: sentences in 80 columns, tables as wide as they get. */
struct screen {
    bool pty;         /* lines end in CR LF, and there is one stream for all */
    unsigned columns; /* 20 at least */
    unsigned lost;    /* lines that found no room since it last said so */
    struct evbuffer *out, *err;
};

/* -1: out of memory. */
int screen_init(struct screen *screen) __attribute__((warn_unused_result));
void screen_clear(struct screen *screen);

/* It is a terminal of so many columns; 0: it does not say. */
void screen_set_terminal(struct screen *screen, unsigned columns);

/* For what must not be broken where a program reads it, as a row of a table; 0: as wide as it gets. */
unsigned screen_width(const struct screen *screen);

void screen_show(struct screen *screen, const char *text);
void screen_show_line(struct screen *screen, const char *line); /* wrapped; "" is an empty one */
void screen_show_value(struct screen *screen, const json_t *value);

/* The whole document, as relayctl --json has it; in ASCII, for it may go to a terminal. */
void screen_show_document(struct screen *screen, const json_t *document);

/* An error. */
void screen_complain(struct screen *screen, const char *text);

/* A line about what happened just now; it is lost if too much waits already. */
void screen_tell(struct screen *screen, const char *line, time_t now);

/* When everything was sent: says how many lines were lost. False if there is nothing to say. */
bool screen_tell_lost(struct screen *screen, time_t now);

#endif
