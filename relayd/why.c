#include "relayd/why.h"

#include "relayd/entry.h"
#include "relayd/trail.h"
#include "schema/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSALS_SHOWN 20

static json_t *read_refusal(struct query *query)
{
    const char *code = query_text(query, 4);
    return json_pack("{s:s, s:I, s:s, s:s, s:I, s:s, s:s}", "time", query_text(query, 0), "seconds_ago",
                     (json_int_t)query_int(query, 1), "what", query_text(query, 2), "asked",
                     query_text(query, 3), "times", (json_int_t)query_int(query, 5), "reason", code, "remedy",
                     reason_sentence(reason_find(code)));
}

/* What was refused a moment ago waits to be written: it is written first. */
int why_read(struct store *store, struct request *request)
{
    int rc;
    json_t *rows = json_array();
    trail_flush(store);
    struct query *query = store_query(store, SQL_list_refusals, "iii", request->actor.tenant_id,
                                      request->actor.principal_id, (int64_t)REFUSALS_SHOWN);
    while ((rc = query_next(query)) > 0)
        json_array_append_new(rows, read_refusal(query));
    query_end(query);
    if (rc < 0) {
        json_decref(rows);
        return entry_failed(store, request);
    }
    request_result(request, rows);
    return 0;
}

/* ---- For people ---- */

static void format_ago(long long seconds, char out[48])
{
    static const struct {
        long long seconds;
        const char *name;
    } units[] = { { 86400, "days" }, { 3600, "hours" }, { 60, "minutes" }, { 1, "seconds" } };
    size_t i = 0;
    while (i + 1 < sizeof(units) / sizeof(units[0]) && seconds < 2 * units[i].seconds)
        i++;
    long long n = seconds / units[i].seconds;
    snprintf(out, 48, "%lld %.*s ago", n, (int)strlen(units[i].name) - (n == 1), units[i].name);
}

static const char *text_of(const json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));
    return text != NULL ? text : "";
}

/* 5 seconds ago, 2026-11-21T18:27:03Z: connect "web:80", 3 times
 *     not_reachable: there is no such ... */
static void write_refusal(FILE *out, const json_t *row, unsigned columns)
{
    char ago[48], times[32] = "", text[1200];
    long long count = json_integer_value(json_object_get(row, "times"));
    format_ago(json_integer_value(json_object_get(row, "seconds_ago")), ago);
    if (count > 1)
        snprintf(times, sizeof(times), ", %lld times", count);
    snprintf(text, sizeof(text), "%s, %s: %s %.800s%s", ago, text_of(row, "time"), text_of(row, "what"),
             text_of(row, "asked"), times);
    text_write_line(out, "", text, columns);
    snprintf(text, sizeof(text), "%s: %s", text_of(row, "reason"), text_of(row, "remedy"));
    text_write_line(out, "    ", text, columns);
}

char *why_text(const json_t *result, unsigned columns)
{
    char *text = NULL;
    size_t i, size;
    json_t *row;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    if (json_array_size(result) == 0)
        text_write_line(out, "", "Nothing was refused, as far back as the relay remembers.", columns);
    json_array_foreach(result, i, row)
        write_refusal(out, row, columns);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
