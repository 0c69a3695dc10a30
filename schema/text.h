#ifndef SCHEMA_TEXT_H
#define SCHEMA_TEXT_H

#include <jansson.h>
#include <stdio.h>

/* Results for people: the same in relayctl and in the SSH session channel. Each returns text that
 * the caller frees, NULL when out of memory. Bytes outside 0x20..0x7e are shown as '?'. */

/* One value of an object: bytes as "1.8M" (1024 each), seconds as "3 h 2 min", an expiry in the past with "
 * (expired)"; its name, or that of the limit that the object tells of, says what it is. */
char *text_member(const json_t *object, const char *name);

/* A JSON array of objects as a table with a header, columns in the order of the first object; an
 * object as `name: value` lines, with tables for what is nested; a string alone. */
char *text_render(const json_t *value);

/* The same for a screen of so many columns, 20 at least; 0: as wide as it gets. Nothing is left out: what
 * does not fit is wrapped, and a table that would not be readable then is shown as a block of lines for each
 * row. */
char *text_render_in(const json_t *value, unsigned width);

/* The same, but each row of a table is one line: its texts are cut, but no header and no number, and then its
 * last columns left out; an ellipsis (in UTF-8) shows where. */
char *text_render_cut(const json_t *value, unsigned width);

/* A line that begins with `head`, a word of ours; what does not fit goes on below, behind its column, or
 * on a narrow screen all of it. */
void text_write_line(FILE *out, const char *head, const char *text, unsigned width);
char *text_line(const char *head, const char *text, unsigned width);

#endif
