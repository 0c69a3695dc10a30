#include "relayctl/key.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_FILE_MAX 16384

static void complain(const char *where, const char *what)
{
    fprintf(stderr, "relayctl: %s: %s\n", where, what);
}

/* The one key among the lines; comments and blank lines do not count. */
static json_t *pick_line(const char *where, char *text)
{
    char *key = NULL;
    for (char *rest = text, *line; (line = strsep(&rest, "\r\n")) != NULL;) {
        line += strspn(line, " \t");
        if (*line == '\0' || *line == '#')
            continue;
        if (key != NULL) {
            complain(where, "there is more than one key in it: give them one at a time");
            return NULL;
        }
        key = line;
    }
    json_t *value = key != NULL ? json_string(key) : NULL;
    if (value == NULL)
        complain(where, key != NULL ? "that is not text" : "there is no key in it");
    return value;
}

static json_t *read_stream(const char *where, FILE *in)
{
    char text[KEY_FILE_MAX + 1];
    size_t n = fread(text, 1, sizeof(text), in);
    if (ferror(in)) {
        complain(where, strerror(errno));
        return NULL;
    }
    if (n > KEY_FILE_MAX) {
        complain(where, "that is too long for a public key");
        return NULL;
    }
    text[n] = '\0';
    if (strstr(text, "PRIVATE KEY") != NULL) {
        complain(where, "that is a private key, which must never leave its owner: give the public one, "
                        "in the file that ends in .pub");
        return NULL;
    }
    return pick_line(where, text);
}

/* A key's text begins with its type and a blank; everything else names a file. */
static int is_key_text(const char *given)
{
    return strpbrk(given, " \t") != NULL && strchr("/.~", given[0]) == NULL;
}

json_t *key_read(const char *given)
{
    if (strcmp(given, "-") == 0)
        return read_stream("standard input", stdin);
    if (strstr(given, "PRIVATE KEY") != NULL) {
        complain("KEY", "that is a private key, which must never leave its owner: give the public one");
        return NULL;
    }
    FILE *in = fopen(given, "re");
    if (in == NULL) {
        if (is_key_text(given))
            return json_string(given);
        fprintf(stderr,
                "relayctl: %s: %s (give a public key, the name of a .pub file, or - for standard input)\n",
                given, strerror(errno));
        return NULL;
    }
    json_t *key = read_stream(given, in);
    fclose(in);
    return key;
}
