#ifndef RELAYCTL_BATCH_H
#define RELAYCTL_BATCH_H

#include <jansson.h>
#include <stddef.h>

/* Batches: the lines of a file, and their way to relayd in requests that are not too long. */

/* All lines of the file, or of standard input for "-", so that their numbers stay: an array of texts. NULL
 * after a sentence on stderr. */
json_t *batch_read(const char *file);

/* As many lines from *at on as one request takes, a new array; *at stands behind them then. */
json_t *batch_part(const json_t *lines, size_t *at);

/* Shows on a terminal how far it has come; with done == 0 that goes away. */
void batch_progress(size_t done, size_t total);

#endif
