#include "relayctl/batch.h"

#include "schema/usage.h"
#include "schema/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PART_BYTES (WIRE_LINE_MAX - 8192) /* of a request, for its lines; the other arguments are short */

static json_t *complain(const char *file, size_t line, const char *what)
{
    if (line > 0)
        fprintf(stderr, "relayctl: %s: line %zu: %s\n", file, line, what);
    else
        fprintf(stderr, "relayctl: %s: %s\n", file, what);
    return NULL;
}

/* The text of a line; NULL after a sentence. */
static json_t *make_line(const char *file, size_t number, char *line, size_t len)
{
    while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        line[--len] = '\0';
    if (strstr(line, "PRIVATE KEY") != NULL)
        return complain(file, number, "that is a private key, which must never leave its owner");
    if (len > USAGE_VALUE_MAX)
        return complain(file, number, "it is too long");
    json_t *text = strlen(line) == len ? json_string(line) : NULL;
    return text != NULL ? text : complain(file, number, "that is no UTF-8 text");
}

static json_t *read_lines(const char *file, FILE *in)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    json_t *lines = json_array();
    while (lines != NULL && (len = getline(&line, &size, in)) >= 0) {
        json_t *text = make_line(file, json_array_size(lines) + 1, line, (size_t)len);
        if (json_array_append_new(lines, text) != 0) {
            json_decref(lines);
            lines = NULL;
        }
    }
    free(line);
    if (lines == NULL || (!ferror(in) && json_array_size(lines) > 0))
        return lines;
    json_decref(lines);
    return complain(file, 0, ferror(in) ? strerror(errno) : "there is nothing in it");
}

json_t *batch_read(const char *file)
{
    if (strcmp(file, "-") == 0)
        return read_lines("standard input", stdin);
    FILE *in = fopen(file, "re");
    if (in == NULL)
        return complain(file, 0, strerror(errno));
    json_t *lines = read_lines(file, in);
    fclose(in);
    return lines;
}

/* Bytes that it takes in a request, with its comma. */
static size_t wire_size(const json_t *line)
{
    return json_dumpb(line, NULL, 0, JSON_ENCODE_ANY) + 1;
}

json_t *batch_part(const json_t *lines, size_t *at)
{
    json_t *part = json_array();
    size_t bytes = 0;
    for (; *at < json_array_size(lines) && json_array_size(part) < USAGE_LIST_MAX; ++*at) {
        json_t *line = json_array_get(lines, *at);
        bytes += wire_size(line);
        if (bytes > PART_BYTES && json_array_size(part) > 0)
            break;
        json_array_append(part, line);
    }
    return part;
}

void batch_progress(size_t done, size_t total)
{
    if (!isatty(STDERR_FILENO))
        return;
    if (done > 0)
        fprintf(stderr, "\rrelayctl: %zu of %zu lines", done, total);
    else
        fprintf(stderr, "\r%40s\r", "");
}
