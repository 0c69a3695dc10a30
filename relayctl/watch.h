#ifndef RELAYCTL_WATCH_H
#define RELAYCTL_WATCH_H

#include <jansson.h>

/* Looks again and again: on a terminal each result takes the place of the one before, elsewhere one follows
 * the other. Rows that count bytes get columns with the bytes a second since the last look. */
struct watch {
    const char *title; /* of what is looked at, for people */
    double interval;   /* seconds between two looks */
    int json;
    json_t *(*ask)(const void *context, json_t *args); /* a new answer, or NULL after a sentence on stderr */
    const void *context;
    json_t *args; /* borrowed */
};

/* Returns an enum ctl_exit: if the first look fails, or what it shows cannot be written. After the first it
 * goes on until Ctrl-C ends the program, with CTL_DONE. */
int watch_run(const struct watch *watch);

/* The seconds that --interval gives, 0 if that is no sensible number. */
double watch_interval(const char *text);

#endif
