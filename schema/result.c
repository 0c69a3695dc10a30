#include "schema/result.h"

#include "schema/text.h"

#include <stdio.h>
#include <stdlib.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static void write_word(FILE *out, const json_t *object, const char *key)
{
    const char *text = text_of(object, key);
    fprintf(out, "%s%s", *text != '\0' ? " " : "", text);
}

/* "; at the next start: listen workers" */
static void write_list(FILE *out, const json_t *result, const char *key, const char *title)
{
    const json_t *names = json_object_get(result, key), *name;
    size_t i;
    if (json_array_size(names) > 0)
        fprintf(out, "; %s:", title);
    json_array_foreach(names, i, name)
        fprintf(out, " %s", json_string_value(name) != NULL ? json_string_value(name) : "");
}

/* ": bridges 10", if that is what was set. */
static void write_limit(FILE *out, const json_t *result)
{
    const json_t *value = json_object_get(result, "value");
    if (value == NULL)
        return;
    char *text = text_member(result, "value");
    fputc(':', out);
    write_word(out, result, "limit");
    fprintf(out, " %s", json_is_null(value) ? "none" : text != NULL ? text : "?");
    free(text);
}

/* ", administrator: no", if that was set. */
static void write_admin(FILE *out, const json_t *result)
{
    const json_t *admin = json_object_get(result, "admin");
    if (admin != NULL)
        fprintf(out, ", administrator: %s", json_is_true(admin) ? "yes" : "no");
}

/* "9990 devices added, 10 unchanged, 0 updated" */
static void write_batch(FILE *out, const json_t *result)
{
    fprintf(out, "%lld", (long long)json_integer_value(json_object_get(result, "added")));
    write_word(out, result, "kind");
    fprintf(out, "s added, %lld unchanged, %lld updated",
            (long long)json_integer_value(json_object_get(result, "unchanged")),
            (long long)json_integer_value(json_object_get(result, "updated")));
}

/* "added device raspi SHA256:...", "allowed alice raspi:22" */
static void write_one(FILE *out, const json_t *result)
{
    fputs(text_of(result, "status"), out);
    write_word(out, result, "kind");
    write_word(out, result, "name");
    write_word(out, result, "rule");
    write_word(out, result, "fingerprint");
}

/* ", expires 2026-12-31T18:00:00Z", if that was asked for. */
static void write_expiry(FILE *out, const json_t *result)
{
    const char *expires = text_of(result, "expires");
    fprintf(out, "%s%s", *expires != '\0' ? ", expires " : "", expires);
}

/* ": PROXY protocol on", of an endpoint. */
static void write_proxy(FILE *out, const json_t *result)
{
    const json_t *value = json_object_get(result, "proxy_protocol");
    if (value != NULL)
        fprintf(out, ": PROXY protocol %s", json_is_true(value) ? "on" : "off");
}

/* What was done, and what that closed. */
static void write_change(FILE *out, const json_t *result)
{
    const json_t *closed = json_object_get(result, "closed");
    long long sessions = json_integer_value(json_object_get(closed, "sessions"));
    long long bridges = json_integer_value(json_object_get(closed, "bridges"));
    (json_object_get(result, "added") != NULL ? write_batch : write_one)(out, result);
    write_limit(out, result);
    write_expiry(out, result);
    write_admin(out, result);
    write_proxy(out, result);
    if (sessions > 0 || bridges > 0)
        fprintf(out, "; closed %lld session%s and %lld bridge%s", sessions, sessions == 1 ? "" : "s", bridges,
                bridges == 1 ? "" : "s");
    write_list(out, result, "changed", "changed now");
    write_list(out, result, "restart", "at the next start");
}

/* The same as text; free() it. NULL: out of memory. */
static char *change_sentence(const json_t *result)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    write_change(out, result);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

static char *render_change(const json_t *result, unsigned width)
{
    char *text = NULL, *sentence = change_sentence(result);
    size_t size;
    FILE *out = sentence != NULL ? open_memstream(&text, &size) : NULL;
    if (out != NULL) {
        text_write_line(out, "", sentence, width);
        if (*text_of(result, "note") != '\0')
            text_write_line(out, "note: ", text_of(result, "note"), width);
    }
    free(sentence);
    if (out != NULL && fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

char *result_render(const json_t *result, unsigned width)
{
    const char *line = text_of(result, "known_hosts");
    if (json_object_get(result, "status") != NULL)
        return render_change(result, width);
    return *line != '\0' ? text_line("", line, 0) : text_render_in(result, width);
}
