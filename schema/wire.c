#include "schema/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_request(const json_t *root, struct wire_request *request, char *error, size_t size)
{
    const json_t *id = json_object_get(root, "id");
    const json_t *version = json_object_get(root, "v");
    const json_t *cmd = json_object_get(root, "cmd");
    const json_t *tenant = json_object_get(root, "tenant");
    json_t *args = json_object_get(root, "args");
    const json_t *more = json_object_get(root, "more");

    if (!json_is_integer(id)) {
        snprintf(error, size, "\"id\" must be a whole number");
        return -1;
    }
    request->id = json_integer_value(id);
    if (!json_is_integer(version) || json_integer_value(version) != WIRE_VERSION) {
        snprintf(error, size, "this relayd speaks version %d of the protocol (\"v\":%d)", WIRE_VERSION,
                 WIRE_VERSION);
        return -1;
    }
    if (!json_is_string(cmd) || (tenant != NULL && !json_is_string(tenant))) {
        snprintf(error, size, "\"cmd\" and \"tenant\" must be text");
        return -1;
    }
    if (args != NULL && !json_is_object(args)) {
        snprintf(error, size, "\"args\" must be an object");
        return -1;
    }
    if (more != NULL && !json_is_boolean(more)) {
        snprintf(error, size, "\"more\" must be true or false");
        return -1;
    }
    request->more = json_is_true(more);
    request->cmd = json_string_value(cmd);
    request->tenant = tenant != NULL ? json_string_value(tenant) : "default";
    return 0;
}

int wire_parse_request(const char *line, size_t len, struct wire_request *request, char *error, size_t size)
{
    json_error_t why;
    memset(request, 0, sizeof(*request));
    json_t *root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        snprintf(error, size, "a request is one JSON object a line: %s",
                 root == NULL ? why.text : "this is not an object");
        json_decref(root);
        return -1;
    }
    if (check_request(root, request, error, size) != 0) {
        json_decref(root);
        return -1;
    }
    if (json_object_get(root, "args") == NULL)
        json_object_set_new(root, "args", json_object());
    request->args = json_object_get(root, "args");
    request->root = root;
    return 0;
}

/* The text of an object and a newline. Consumes the reference. */
static char *object_line(json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (text == NULL)
        return NULL;
    size_t len = strlen(text);
    char *line = realloc(text, len + 2);
    if (line == NULL) {
        free(text);
        return NULL;
    }
    memcpy(line + len, "\n", 2);
    return line;
}

char *wire_request_line(json_int_t id, const char *cmd, const char *tenant, json_t *args, bool more)
{
    json_t *request = json_pack("{s:i, s:I, s:s, s:s, s:O}", "v", WIRE_VERSION, "id", id, "cmd", cmd,
                                "tenant", tenant, "args", args);
    if (more)
        json_object_set_new(request, "more", json_true());
    return object_line(request);
}

char *wire_result_line(json_int_t id, json_t *result)
{
    return object_line(json_pack("{s:I, s:b, s:O}", "id", id, "ok", 1, "result", result));
}

char *wire_error_line(json_int_t id, const char *code, const char *message)
{
    return object_line(
        json_pack("{s:I, s:b, s:{s:s, s:s}}", "id", id, "ok", 0, "error", "code", code, "message", message));
}
