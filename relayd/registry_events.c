#include "relayd/registry.h"

#include "relayd/entry.h"
#include "relayd/trail.h"
#include "relayd/when.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT_DEFAULT 100
#define COUNT_MAX 1000 /* of one answer; who wants more asks for what comes after it */

/* Which events are asked for. */
struct range {
    int64_t first; /* id; of one tenant its number */
    int64_t since; /* UNIX seconds */
    int64_t count;
    const char *principal; /* who did it, or to whom; NULL: all */
    bool all;              /* of all tenants, of relayd and of strangers */
};

/* A whole number from 0 to max. -1: failure set. */
static int read_number(struct request *request, const char *name, int64_t max, int64_t *number)
{
    const char *text = request_arg(request, name);
    if (text == NULL)
        return 0;
    char *end;
    long long given = strtoll(text, &end, 10);
    if (text[strspn(text, "0123456789")] != '\0' || *text == '\0' || given > max)
        return fail(&request->failure, REASON_bad_argument, "--%s %.40s: expected a whole number up to %lld",
                    name, text, (long long)max);
    *number = given;
    return 0;
}

static int read_since(struct request *request, int64_t *since)
{
    const char *text = request_arg(request, "since");
    if (text == NULL)
        return 0;
    *since = when_parse(text, time(NULL), -1);
    if (*since == 0)
        return fail(&request->failure, REASON_bad_argument, "--since %.40s: expected %s", text,
                    when_expected);
    return 0;
}

/* The first of the last `count`. */
static int64_t first_of_last(struct store *store, const struct request *request, const struct range *range)
{
    if (range->all)
        return store_value(store, SQL_tail_all_events, "i", range->count);
    return store_value(store, SQL_tail_events, "iti", request->tenant_id, range->principal, range->count);
}

/* Both grow with the time, but for a clock that was set: so the time is looked at again in each row. */
static int64_t first_since(struct store *store, int64_t since, bool all)
{
    if (!all)
        return since * 1000; /* no row has less than its time */
    int64_t id = store_value(store, SQL_events_since, "i", since);
    return id == 0 ? INT64_MAX : id;
}

static int read_range(struct store *store, struct request *request, struct range *range)
{
    int64_t after = -1;
    *range = (struct range){ .count = COUNT_DEFAULT, .principal = request_arg(request, "principal") };
    range->all = request->tenant_id == 0; /* the keeper has found one, unless all were asked for */
    if (read_number(request, "after", INT64_MAX - 1, &after) != 0 ||
        read_number(request, "count", COUNT_MAX, &range->count) != 0 ||
        read_since(request, &range->since) != 0)
        return -1;
    if (after >= 0)
        range->first = after + 1;
    else if (range->since > 0)
        range->first = first_since(store, range->since, range->all);
    else
        range->first = first_of_last(store, request, range);
    if (range->all && range->principal != NULL)
        return fail(&request->failure, REASON_bad_argument, "--principal %.40s: of which tenant?",
                    range->principal);
    return range->first < 0 ? entry_failed(store, request) : 0;
}

int registry_events(struct store *store, struct request *request)
{
    struct range range;
    trail_flush(store);
    if (read_range(store, request, &range) != 0)
        return -1;
    json_t *rows = range.all
                       ? store_rows(store, SQL_list_all_events, "iii", range.first, range.since, range.count)
                       : store_rows(store, SQL_list_events, "iiiti", request->tenant_id, range.first,
                                    range.since, range.principal, range.count);
    if (rows == NULL)
        return entry_failed(store, request);
    request_result(request, rows);
    return 0;
}
