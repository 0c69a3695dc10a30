#ifndef RELAYCTL_PRINT_H
#define RELAYCTL_PRINT_H

#include <jansson.h>

/* Prints a command's result on stdout: as one JSON document, or for people. */
void print_result(json_t *result, int as_json);

/* Prints relayd's refusal: its sentence on stderr, and with as_json the error on stdout. */
void print_error(json_t *error, int as_json);

#endif
