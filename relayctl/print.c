#include "relayctl/print.h"

#include "schema/text.h"

#include <stdio.h>
#include <stdlib.h>

void print_json(const json_t *value, size_t flags)
{
    json_dumpf(value, stdout, flags | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    putchar('\n');
}

int print_text(const char *text)
{
    int n = 0;
    for (; *text != '\0'; text++, n++)
        putchar(*text < 0x20 || *text > 0x7e ? '?' : *text);
    return n;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static void print_word(const json_t *object, const char *key)
{
    const char *text = text_of(object, key);
    if (*text == '\0')
        return;
    putchar(' ');
    print_text(text);
}

/* "; at the next start: listen workers" */
static void print_list(const json_t *result, const char *key, const char *title)
{
    const json_t *names = json_object_get(result, key), *name;
    size_t i;
    if (json_array_size(names) > 0)
        printf("; %s:", title);
    json_array_foreach(names, i, name) {
        putchar(' ');
        print_text(json_string_value(name) != NULL ? json_string_value(name) : "");
    }
}

/* ": bridges 10", if that is what was set. */
static void print_limit(const json_t *result)
{
    const json_t *value = json_object_get(result, "value");
    if (value == NULL)
        return;
    char *text = text_member(result, "value");
    putchar(':');
    print_word(result, "limit");
    printf(" %s", json_is_null(value) ? "none" : text != NULL ? text : "?");
    free(text);
}

/* ", administrator: no", if that was set. */
static void print_admin(const json_t *result)
{
    const json_t *admin = json_object_get(result, "admin");
    if (admin != NULL)
        printf(", administrator: %s", json_is_true(admin) ? "yes" : "no");
}

/* "9990 devices added, 10 unchanged, 0 updated" */
static void print_batch(const json_t *result)
{
    printf("%lld", (long long)json_integer_value(json_object_get(result, "added")));
    print_word(result, "kind");
    printf("s added, %lld unchanged, %lld updated",
           (long long)json_integer_value(json_object_get(result, "unchanged")),
           (long long)json_integer_value(json_object_get(result, "updated")));
}

/* "added device raspi SHA256:...", "allowed alice raspi:22" */
static void print_one(const json_t *result)
{
    print_text(text_of(result, "status"));
    print_word(result, "kind");
    print_word(result, "name");
    print_word(result, "rule");
    print_word(result, "fingerprint");
}

/* ", expires 2026-12-31T18:00:00Z", if that was asked for. */
static void print_expiry(const json_t *result)
{
    if (*text_of(result, "expires") == '\0')
        return;
    printf(", expires");
    print_word(result, "expires");
}

/* ": PROXY protocol on", of an endpoint. */
static void print_proxy(const json_t *result)
{
    const json_t *value = json_object_get(result, "proxy_protocol");
    if (value != NULL)
        printf(": PROXY protocol %s", json_is_true(value) ? "on" : "off");
}

/* What was done, and what that closed. */
static void print_change(const json_t *result)
{
    const json_t *closed = json_object_get(result, "closed");
    long long sessions = json_integer_value(json_object_get(closed, "sessions"));
    long long bridges = json_integer_value(json_object_get(closed, "bridges"));
    (json_object_get(result, "added") != NULL ? print_batch : print_one)(result);
    print_limit(result);
    print_expiry(result);
    print_admin(result);
    print_proxy(result);
    if (sessions > 0 || bridges > 0)
        printf("; closed %lld session%s and %lld bridge%s", sessions, sessions == 1 ? "" : "s", bridges,
               bridges == 1 ? "" : "s");
    print_list(result, "changed", "changed now");
    print_list(result, "restart", "at the next start");
    putchar('\n');
    if (*text_of(result, "note") == '\0')
        return;
    printf("note:");
    print_word(result, "note");
    putchar('\n');
}

void print_result(json_t *result, int as_json)
{
    if (as_json) {
        print_json(result, JSON_INDENT(2));
    } else if (json_object_get(result, "status") != NULL) {
        print_change(result);
    } else if (json_object_get(result, "known_hosts") != NULL) {
        print_text(text_of(result, "known_hosts"));
        putchar('\n');
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
        print_json(object, JSON_INDENT(2));
        json_decref(object);
    }
}
