#ifndef SCHEMA_USAGE_H
#define SCHEMA_USAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* A command's usage line is its specification. Words of the line:
 *
 *   NAME             a required string, called "name" in the JSON arguments
 *   [NAME]           an optional one
 *   NAME...          required, the rest of the line: the words, joined by one blank
 *   [--expires WHEN] an optional string "expires"
 *   [--allow RULE]...  an optional array of strings "allow"
 *   [--admin]        an optional true "admin"
 *   --batch FILE     an option whose value is FILE is an array, too: of the lines of one file
 *   ( KEY... | --pending FINGERPRINT | --batch FILE )  exactly one of them
 */
#define USAGE_MAX 8
#define USAGE_VALUE_MAX 16384 /* bytes of one argument; the longest public key has 12,000 */
#define USAGE_LIST_MAX 256    /* texts of one that is an array */

struct usage_arg {
    char name[24]; /* the JSON key: lower case, '-' kept */
    bool option;   /* given as --name VALUE */
    bool flag;     /* an option without VALUE */
    bool required;
    unsigned group; /* of those with the same one, unless it is 0, exactly one is given */
    bool file;      /* an option whose array is the lines of one file */
    bool repeated;  /* option: an array; positional: takes the rest of the words */
};

struct usage {
    struct usage_arg arg[USAGE_MAX];
    size_t n;
};

/* Parses a usage line; a malformed one is a bug in commands.def and ends the program. */
void usage_parse(const char *line, struct usage *usage);

/* Turns words into a JSON object that usage_check() accepts. Returns a new reference, or NULL with
 * a sentence in error. */
json_t *usage_from_words(const struct usage *usage, int argc, char *const argv[], char *error, size_t size);

/* The other way round: the line of text that means the command, its words, with these arguments, which must
 * have passed usage_check(); quoted as schema/quote.h has it. free() it; NULL when out of memory. */
char *usage_to_line(const struct usage *usage, const char *words, const json_t *args);

/* 0 if args is an object with all that the usage requires and nothing that it does not know; -1
 * with a sentence in error otherwise. */
int usage_check(const struct usage *usage, const json_t *args, char *error, size_t size);

#endif
