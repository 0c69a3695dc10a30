#ifndef SCHEMA_RESULT_H
#define SCHEMA_RESULT_H

#include <jansson.h>

/* What a command says to people when it is done: the same in relayctl and in the SSH session channel. Of a
 * change it is a sentence, of a line for a file that line, of all else what text_render_in() makes of it. The
 * caller frees it; NULL: out of memory. Bytes outside 0x20..0x7e are shown as '?'. width is in columns; 0: as
 * wide as it gets. */
char *result_render(const json_t *result, unsigned width);

#endif
