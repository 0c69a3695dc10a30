#ifndef RELAYCTL_PRINT_H
#define RELAYCTL_PRINT_H

#include <jansson.h>

/* What relayd says may come from others, and over SSH relayd itself may be anybody's: nothing of it reaches a
 * terminal but printable ASCII. */

/* On stdout, other bytes as '?'; returns how many. */
int print_text(const char *text);

/* On stdout, as a line. flags: JSON_COMPACT, JSON_INDENT(2) */
void print_json(const json_t *value, size_t flags);

/* Prints a command's result on stdout: as one JSON document, or for people. */
void print_result(json_t *result, int as_json);

/* Prints relayd's refusal: its sentence on stderr, and with as_json the error on stdout. */
void print_error(json_t *error, int as_json);

#endif
