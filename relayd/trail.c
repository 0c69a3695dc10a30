#include "relayd/trail.h"

#include "relayd/audit.h"
#include "relayd/clock.h"
#include "relayd/hash.h"
#include "relayd/log.h"
#include "relayd/metrics.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PERIOD_MS 1000        /* between an event and its row */
#define RETRY_MS 1000         /* after which what failed is tried again */
#define STEP 2048             /* rows that one transaction adds: some 20 ms */
#define STEP_PRUNE (2 * STEP) /* and deletes: more, or a flood would outgrow it */
#define AGE_CHECK_MAX_S 3600  /* between looks for what is too old; at most a tenth of event-age */

/* How many rows there are of one tenant (audit.h: or of relayd, or of strangers). */
struct owner {
    int64_t tenant_id;
    int64_t rows;
    UT_hash_handle hh;
};

static struct trail {
    struct audit_row *rows; /* taken and not written yet, oldest first */
    struct owner *owners;   /* hash; empty until they are counted */
    bool counted;
    bool may_exceed;  /* some owner may have more than `count` */
    int64_t retry_at; /* the last step failed, and this is when to try again; 0: it did not */
    int64_t write_at; /* 0: nothing is known to wait */
    int64_t age_at;   /* when to look for what is too old */
    int64_t age;      /* in seconds; the others are in ms of the monotonic clock */
    int64_t count;
} trail;

void trail_configure(const struct config *config)
{
    trail.age = (int64_t)config->event_age;
    trail.count = config->event_count;
    trail.age_at = 0;
    trail.may_exceed = true;
}

/* ---- How many there are ---- */

static void forget_counts(void)
{
    struct owner *owner, *next;
    HASH_ITER(hh, trail.owners, owner, next) {
        HASH_DEL(trail.owners, owner);
        free(owner);
    }
    trail.counted = false;
}

/* -1: out of memory. */
static int count_rows(int64_t tenant_id, int64_t amount)
{
    struct owner *owner;
    HASH_FIND(hh, trail.owners, &tenant_id, sizeof(tenant_id), owner);
    if (owner == NULL) {
        owner = calloc(1, sizeof(*owner));
        if (owner == NULL)
            return -1;
        owner->tenant_id = tenant_id;
        HASH_ADD(hh, trail.owners, tenant_id, sizeof(owner->tenant_id), owner);
        if (owner->hh.tbl == NULL) {
            free(owner);
            return -1;
        }
    }
    owner->rows += amount;
    trail.may_exceed = trail.may_exceed || owner->rows > trail.count;
    if (owner->rows <= 0) {
        HASH_DEL(trail.owners, owner);
        free(owner);
    }
    return 0;
}

static int load_counts(struct store *store)
{
    int rc;
    if (trail.counted)
        return 0;
    struct query *query = store_query(store, SQL_count_events, "");
    while ((rc = query_next(query)) > 0 && count_rows(query_int(query, 0), query_int(query, 1)) == 0)
        continue;
    query_end(query);
    trail.counted = rc == 0;
    return rc;
}

/* ---- Steps ---- */

static int write_row(struct store *store, const struct audit_row *row)
{
    const struct audit_event *event = &row->event;
    const char *reason = event->reason != REASON_none ? reason_code(event->reason) : "";
    const char *cause = event->cause != REASON_none ? reason_code(event->cause) : reason;
    if (store_run(store, SQL_add_event,
                  "iitittttttt"
                  "iiii",
                  row->time, event->tenant_id, event->tenant, event->principal_id, event->principal,
                  event->address, event_code(event->kind), event->object, event->peer, reason, cause,
                  (int64_t)row->count, (int64_t)event->bytes_up, (int64_t)event->bytes_down,
                  event->duration) < 0)
        return -1;
    return count_rows(event->tenant_id, 1);
}

static int write_rows(struct store *store)
{
    const struct audit_row *row = trail.rows;
    for (unsigned n = 0; row != NULL && n < STEP; row = row->next, n++)
        if (write_row(store, row) != 0)
            return -1;
    return 0;
}

static struct owner *find_excess(void)
{
    struct owner *owner, *next;
    if (!trail.may_exceed)
        return NULL;
    HASH_ITER(hh, trail.owners, owner, next)
        if (owner->rows > trail.count)
            return owner;
    trail.may_exceed = false;
    return NULL;
}

static int drop_excess(struct store *store)
{
    const struct owner *owner = find_excess();
    if (owner == NULL)
        return 0;
    int64_t tenant_id = owner->tenant_id, excess = owner->rows - trail.count;
    int n = store_run(store, SQL_trim_events, "ii", tenant_id,
                      excess < STEP_PRUNE ? excess : (int64_t)STEP_PRUNE);
    if (n == 0) /* somebody else has deleted them: count again, or this would go on for ever */
        forget_counts();
    return n <= 0 ? n : count_rows(tenant_id, -(int64_t)n);
}

/* The next look is at once if there may be more. */
static int drop_old(struct store *store)
{
    int rc, n = 0;
    int64_t pause = trail.age / 10 < AGE_CHECK_MAX_S ? trail.age / 10 : AGE_CHECK_MAX_S;
    struct query *query = store_query(store, SQL_expire_events, "ii", (int64_t)time(NULL) - trail.age,
                                      (int64_t)STEP_PRUNE);
    for (; (rc = query_next(query)) > 0; n++)
        count_rows(query_int(query, 0), -1);
    query_end(query);
    trail.age_at = clock_ms() + (n == STEP_PRUNE ? 0 : pause > 0 ? pause * 1000 : 1000);
    return rc;
}

/* One transaction. After a failure the counts may be wrong: they are made anew. */
static int step(struct store *store, int (*work)(struct store *store))
{
    char why[256];
    bool failed_before = trail.retry_at != 0;
    trail.retry_at = 0;
    if (store_begin_aside(store) == 0 && load_counts(store) == 0 && work(store) == 0 &&
        store_commit_aside(store) == 0) {
        if (failed_before)
            log_info("the audit trail can be written again");
        return 0;
    }
    snprintf(why, sizeof(why), "%s", store_message(store));
    metrics_add(METRIC_store_errors, 1);
    store_rollback_aside(store);
    forget_counts();
    trail.retry_at = clock_ms() + RETRY_MS;
    if (!failed_before)
        log_error("the audit trail cannot be written, and waits: %s", why);
    return -1;
}

/* How many events those were. */
static unsigned free_rows(unsigned most)
{
    unsigned events = 0;
    while (trail.rows != NULL && most-- > 0) {
        struct audit_row *row = trail.rows;
        trail.rows = row->next;
        events += row->event.kind != EVENT_events_dropped ? (unsigned)row->count : 0;
        free(row);
    }
    return events;
}

/* Writes some of what waits. */
static int write_some(struct store *store)
{
    if (trail.rows == NULL)
        trail.rows = audit_take();
    if (trail.rows != NULL && step(store, write_rows) != 0) {
        trail.write_at = trail.retry_at;
        return -1;
    }
    metrics_add(METRIC_events_written, free_rows(STEP));
    trail.write_at = trail.rows != NULL ? clock_ms() : 0;
    if (trail.rows == NULL)
        store_relax(store);
    return 0;
}

/* ---- What is due ---- */

static bool has_news(void)
{
    struct pollfd pollfd = { .fd = audit_fd(), .events = POLLIN };
    return poll(&pollfd, 1, 0) > 0;
}

void trail_serve(struct store *store)
{
    int64_t now = clock_ms();
    if (trail.write_at == 0 && has_news())
        trail.write_at = now + PERIOD_MS;
    if (now < trail.retry_at)
        return;
    if (trail.write_at != 0 && now >= trail.write_at && write_some(store) != 0)
        return;
    if (find_excess() != NULL)
        step(store, drop_excess);
    else if (now >= trail.age_at)
        step(store, drop_old);
}

int trail_delay(void)
{
    int64_t now = clock_ms(), next = trail.age_at;
    if (find_excess() != NULL)
        next = now;
    if (trail.write_at != 0 && trail.write_at < next)
        next = trail.write_at;
    if (next < trail.retry_at)
        next = trail.retry_at;
    return next > now ? (int)(next - now) : 0;
}

bool trail_waits(void)
{
    return trail.write_at != 0;
}

/* What was taken before, then what waits now; not what comes meanwhile, or there might be no end. */
void trail_flush(struct store *store)
{
    for (unsigned takes = 0; takes < 2; takes++)
        do {
            if (write_some(store) != 0)
                return;
        } while (trail.rows != NULL);
}

void trail_end(struct store *store)
{
    trail_flush(store);
    unsigned lost = free_rows(UINT_MAX);
    trail.rows = audit_take();
    lost += free_rows(UINT_MAX);
    metrics_add(METRIC_events_dropped, lost);
    if (lost > 0)
        log_error("lost the last %u events: the audit trail cannot be written", lost);
    forget_counts();
}
