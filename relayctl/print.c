#include "relayctl/print.h"

#include "schema/text.h"

#include <stdio.h>
#include <stdlib.h>

static void print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    putchar('\n');
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static void put_word(FILE *out, const json_t *object, const char *key)
{
    const char *text = text_of(object, key);
    if (*text != '\0')
        fprintf(out, " %s", text);
}

/* "; at the next start: listen workers" */
static void put_list(FILE *out, const json_t *result, const char *key, const char *title)
{
    const json_t *names = json_object_get(result, key), *name;
    size_t i;
    if (json_array_size(names) > 0)
        fprintf(out, "; %s:", title);
    json_array_foreach(names, i, name)
        fprintf(out, " %s", json_string_value(name));
}

/* ": bridges 10", if that is what was set. */
static void put_limit(FILE *out, const json_t *result)
{
    const json_t *value = json_object_get(result, "value");
    if (json_is_integer(value))
        fprintf(out, ": %s %lld", text_of(result, "limit"), (long long)json_integer_value(value));
    else if (value != NULL)
        fprintf(out, ": %s none", text_of(result, "limit"));
}

/* ", administrator: no", if that was set. */
static void put_admin(FILE *out, const json_t *result)
{
    const json_t *admin = json_object_get(result, "admin");
    if (admin != NULL)
        fprintf(out, ", administrator: %s", json_is_true(admin) ? "yes" : "no");
}

/* "9990 devices added, 10 unchanged, 0 updated" */
static void put_batch(FILE *out, const json_t *result)
{
    fprintf(out, "%lld %ss added, %lld unchanged, %lld updated",
            (long long)json_integer_value(json_object_get(result, "added")), text_of(result, "kind"),
            (long long)json_integer_value(json_object_get(result, "unchanged")),
            (long long)json_integer_value(json_object_get(result, "updated")));
}

/* "added device raspi SHA256:..." */
static void put_one(FILE *out, const json_t *result)
{
    fprintf(out, "%s", text_of(result, "status"));
    put_word(out, result, "kind");
    put_word(out, result, "name");
    put_word(out, result, "fingerprint");
}

/* ": PROXY protocol on", of an endpoint. */
static void put_proxy(FILE *out, const json_t *result)
{
    const json_t *value = json_object_get(result, "proxy_protocol");
    if (value != NULL)
        fprintf(out, ": PROXY protocol %s", json_is_true(value) ? "on" : "off");
}

/* What was done, and what that closed. */
static void put_change(FILE *out, const json_t *result)
{
    const json_t *closed = json_object_get(result, "closed");
    long long sessions = json_integer_value(json_object_get(closed, "sessions"));
    long long bridges = json_integer_value(json_object_get(closed, "bridges"));
    (json_object_get(result, "added") != NULL ? put_batch : put_one)(out, result);
    put_limit(out, result);
    put_admin(out, result);
    put_proxy(out, result);
    if (sessions > 0 || bridges > 0)
        fprintf(out, "; closed %lld session%s and %lld bridge%s", sessions, sessions == 1 ? "" : "s", bridges,
                bridges == 1 ? "" : "s");
    put_list(out, result, "changed", "changed now");
    put_list(out, result, "restart", "at the next start");
}

/* With --via it may be anybody who answers. */
static void print_change(const json_t *result)
{
    char *line = NULL;
    size_t size;
    FILE *out = open_memstream(&line, &size);
    if (out != NULL) {
        put_change(out, result);
        fclose(out);
    }
    text_write_line(stdout, "", line != NULL ? line : "out of memory", 0);
    if (*text_of(result, "note") != '\0')
        text_write_line(stdout, "note: ", text_of(result, "note"), 0);
    free(line);
}

void print_result(json_t *result, int as_json)
{
    if (as_json) {
        print_json(result);
    } else if (json_object_get(result, "status") != NULL) {
        print_change(result);
    } else if (json_object_get(result, "known_hosts") != NULL) {
        text_write_line(stdout, "", text_of(result, "known_hosts"), 0);
    } else {
        char *text = text_render(result);
        fputs(text != NULL ? text : "out of memory\n", stdout);
        free(text);
    }
}

void print_error(json_t *error, int as_json)
{
    char *message = text_render(json_object_get(error, "message"));
    fprintf(stderr, "relayctl: %s", message != NULL ? message : "out of memory\n");
    free(message);
    if (as_json) {
        json_t *object = json_pack("{s:O}", "error", error);
        print_json(object);
        json_decref(object);
    }
}
