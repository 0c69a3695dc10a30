#ifndef SCHEMA_QUOTE_H
#define SCHEMA_QUOTE_H

#include <stdio.h>

/* A command over SSH is one line of text. Its words are separated by blanks; quotes are those of the shell
 * (POSIX, 2.2), without what expands: all between two ' is taken as it is; \ makes the next character
 * an ordinary one, and so it does before " and \ between two ". */

/* Cuts the line, in place, into words. Returns an array that the caller frees, with *n words that point into
 * the line; NULL with a sentence in *error if a quote does not end, or when out of memory. */
char **quote_split(char *line, int *n, const char **error);

/* Writes a word so that quote_split() makes the same of it. */
void quote_word(FILE *out, const char *word);

#endif
