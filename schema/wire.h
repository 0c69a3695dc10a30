#ifndef SCHEMA_WIRE_H
#define SCHEMA_WIRE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The control protocol: one JSON object a line, in both directions (docs/PROTOCOL.md).
 *
 *   {"v":1,"id":7,"cmd":"add-client","tenant":"default","args":{...}}
 *   {"v":1,"id":7,"cmd":"add-device","args":{"batch":[...]},"more":true}
 *   {"id":7,"ok":true,"result":...}
 *   {"id":7,"ok":false,"error":{"code":"not_found","message":"..."}}
 */
#define WIRE_VERSION 1
#define WIRE_LINE_MAX 65536u /* bytes of a request without its newline; answers are not bounded */

struct wire_request {
    json_int_t id;
    const char *cmd;    /* borrowed from root */
    const char *tenant; /* borrowed; "default" when the request names none */
    json_t *args;       /* borrowed; an object */
    bool more;          /* the batch in it goes on in the next request */
    json_t *root;       /* owned: json_decref() when done */
};

/* Parses one request line. Returns 0, or -1 with a sentence in error; request->id is then the id
 * of the request as far as it could be read, else 0, and nothing is owned. */
int wire_parse_request(const char *line, size_t len, struct wire_request *request, char *error, size_t size);

/* The line of a request or an answer, with its newline; free() it. NULL when out of memory. They
 * borrow what they are given. */
char *wire_request_line(json_int_t id, const char *cmd, const char *tenant, json_t *args, bool more);
char *wire_result_line(json_int_t id, json_t *result);
char *wire_error_line(json_int_t id, const char *code, const char *message);

#endif
