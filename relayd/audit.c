#include "relayd/audit.h"

#include "relayd/limits.h"
#include "relayd/log.h"
#include "relayd/metrics.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 4096u
#define TEXT_SIZE 513 /* of one text, escaped */
#define KEY_MAX (sizeof(struct head) + TEXTS * TEXT_SIZE)

/* What makes a row, with the texts behind it. */
struct head {
    int64_t time, tenant_id, principal_id;
    int32_t kind, reason, cause, unused;
};

enum text { TEXT_TENANT, TEXT_PRINCIPAL, TEXT_ADDRESS, TEXT_OBJECT, TEXT_PEER, TEXTS };

struct key {
    size_t size;
    unsigned hash;
    size_t text[TEXTS]; /* where each begins */
    char bytes[KEY_MAX] __attribute__((aligned(8)));
};

/* How many rows a tenant has in a batch, or a principal has made in a second. */
struct share {
    struct share *chain;
    int64_t tenant_id, principal_id; /* 0: the whole tenant */
    unsigned used;
    uint64_t lost;
    char tenant[64];
};

struct shares {
    struct share *bucket[BUCKETS];
};

struct batch {
    unsigned used;
    struct audit_row *first, *last; /* in the order in which they came */
    struct audit_row *rows[BUCKETS];
    struct shares tenants;
};

/* audit_take() swaps the batches and empties one while the other fills. Seconds change by themselves: who
 * takes often does not give anybody more room in one. */
static struct batch batches[2];
static struct shares seconds[2];
static struct pending {
    pthread_mutex_t lock; /* guards all below and what it points to; nothing is locked inside it */
    struct batch *filling;
    struct shares *principals; /* in this second */
    struct shares *spare;      /* for the next one; NULL: it must be emptied before */
    int64_t second;
    int fd;
} pending = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .filling = &batches[0],
    .principals = &seconds[0],
    .spare = &seconds[1],
    .fd = -1,
};

/* ---- Keys ---- */

static bool is_plain(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    return true;
}

static void put_text(struct key *key, enum text which, const char *text)
{
    char *out = key->bytes + key->size;
    size_t len = text != NULL ? strnlen(text, TEXT_SIZE) : 0;
    key->text[which] = key->size;
    if (len == TEXT_SIZE || !is_plain(text, len)) {
        log_escape(text, out, TEXT_SIZE);
        len = strlen(out);
    } else if (len > 0) {
        memcpy(out, text, len);
    }
    out[len] = '\0';
    key->size += len + 1;
}

/* FNV-1a, eight bytes at a time. What collides is bounded by LIMIT_EVENTS_OF_ONE. */
static unsigned hash(const char *bytes, size_t size)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (; size > 0; size -= size < 8 ? size : 8, bytes += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes, size < 8 ? size : 8);
        sum = (sum ^ word) * UINT64_C(0x100000001b3);
        sum ^= sum >> 29;
    }
    return (unsigned)(sum ^ sum >> 32);
}

/* folded: without what one principal may have too many of. */
static void make_key(struct key *key, const struct audit_event *event, int64_t time, bool folded)
{
    struct head head = { time,
                         event->tenant_id,
                         event->principal_id,
                         (int32_t)event->kind,
                         (int32_t)event->reason,
                         (int32_t)event->cause,
                         0 };
    memcpy(key->bytes, &head, sizeof(head));
    key->size = sizeof(head);
    put_text(key, TEXT_TENANT, event->tenant);
    put_text(key, TEXT_PRINCIPAL, event->principal);
    put_text(key, TEXT_ADDRESS, folded ? "" : event->address);
    put_text(key, TEXT_OBJECT, folded ? "" : event->object);
    put_text(key, TEXT_PEER, folded ? "" : event->peer);
    key->hash = hash(key->bytes, key->size);
}

/* ---- Shares ---- */

/* Made if there is none; NULL: out of memory. */
static struct share *share_of(struct shares *shares, const struct audit_event *event, int64_t principal_id)
{
    int64_t ids[2] = { event->tenant_id, principal_id };
    struct share **bucket = &shares->bucket[hash((const char *)ids, sizeof(ids)) % BUCKETS];
    struct share *share;
    for (share = *bucket; share != NULL; share = share->chain)
        if (share->tenant_id == event->tenant_id && share->principal_id == principal_id)
            return share;
    share = calloc(1, sizeof(*share));
    if (share == NULL)
        return NULL;
    share->tenant_id = event->tenant_id;
    share->principal_id = principal_id;
    snprintf(share->tenant, sizeof(share->tenant), "%s", event->tenant != NULL ? event->tenant : "");
    share->chain = *bucket;
    *bucket = share;
    return share;
}

static void free_shares(struct shares *shares)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct share *share = shares->bucket[i], *next;
        for (; share != NULL; share = next) {
            next = share->chain;
            free(share);
        }
        shares->bucket[i] = NULL;
    }
}

/* While the keeper has not emptied the spare one, the last second goes on: that only tells less apart. */
static void begin_second(int64_t now)
{
    if (now == pending.second || pending.spare == NULL)
        return;
    pending.second = now;
    pending.principals = pending.spare;
    pending.spare = NULL;
}

/* What the relay's administrators and relayd do is told whole, and may take the rest of the room. */
static bool is_trusted(const struct audit_event *event)
{
    return event->tenant_id == AUDIT_RELAY || (event->kind == EVENT_command && event->principal_id == 0);
}

/* ---- Rows ---- */

static struct audit_row *find(const struct batch *batch, const struct key *key)
{
    struct audit_row *row = batch->rows[key->hash % BUCKETS];
    while (row != NULL && (row->hash != key->hash || row->key_size != key->size ||
                           memcmp(row->key, key->bytes, key->size) != 0))
        row = row->chain;
    return row;
}

static struct audit_row *row_new(const struct key *key, const struct audit_event *event, int64_t time)
{
    struct audit_row *row = malloc(sizeof(*row) + key->size);
    if (row == NULL)
        return NULL;
    *row = (struct audit_row){ .event = *event, .time = time, .hash = key->hash, .key_size = key->size };
    memcpy(row->key, key->bytes, key->size);
    row->event.tenant = row->key + key->text[TEXT_TENANT];
    row->event.principal = row->key + key->text[TEXT_PRINCIPAL];
    row->event.address = row->key + key->text[TEXT_ADDRESS];
    row->event.object = row->key + key->text[TEXT_OBJECT];
    row->event.peer = row->key + key->text[TEXT_PEER];
    row->event.bytes_up = row->event.bytes_down = 0;
    row->event.duration = 0;
    return row;
}

static void append(struct batch *batch, struct audit_row *row)
{
    if (batch->first == NULL)
        batch->first = row;
    else
        batch->last->next = row;
    batch->last = row;
}

/* NULL: there is no room, or no memory; it is counted as lost. */
static struct audit_row *add(struct batch *batch, struct share *tenant, const struct key *key,
                             const struct audit_event *event, int64_t time)
{
    unsigned left = LIMIT_EVENTS - batch->used;
    bool fits = left > 0 && (is_trusted(event) || tenant->used + 1 <= left - 1);
    struct audit_row *row = fits ? row_new(key, event, time) : NULL;
    if (row == NULL) {
        tenant->lost++;
        metrics_add(METRIC_events_dropped, 1);
        return NULL;
    }
    row->chain = batch->rows[key->hash % BUCKETS];
    batch->rows[key->hash % BUCKETS] = row;
    append(batch, row);
    batch->used++;
    tenant->used++;
    return row;
}

/* The row of an event that is the first of its kind; its key is made anew if it is folded. */
static struct audit_row *make(struct batch *batch, struct key *key, const struct audit_event *event,
                              int64_t time)
{
    begin_second(time);
    struct share *tenant = share_of(&batch->tenants, event, 0);
    struct share *one = share_of(pending.principals, event, event->principal_id);
    if (tenant == NULL || one == NULL) {
        metrics_add(METRIC_events_dropped, 1);
        return NULL;
    }
    if (!is_trusted(event) && one->used >= LIMIT_EVENTS_OF_ONE) {
        make_key(key, event, time, true);
        struct audit_row *row = find(batch, key);
        if (row != NULL)
            return row;
    }
    struct audit_row *row = add(batch, tenant, key, event, time);
    one->used += row != NULL;
    return row;
}

void audit(const struct audit_event *event)
{
    static const uint64_t one = 1;
    int64_t now = time(NULL);
    struct key key;
    metrics_event(event->kind, event->reason);
    make_key(&key, event, now, false);
    pthread_mutex_lock(&pending.lock);
    struct batch *batch = pending.filling;
    bool was_empty = batch->used == 0;
    struct audit_row *row = find(batch, &key);
    if (row == NULL)
        row = make(batch, &key, event, now);
    if (row != NULL) {
        row->count++;
        row->event.bytes_up += event->bytes_up;
        row->event.bytes_down += event->bytes_down;
        row->event.duration += event->duration;
    }
    pthread_mutex_unlock(&pending.lock);
    if (was_empty && pending.fd >= 0 && write(pending.fd, &one, sizeof(one)) < 0)
        log_error("audit: cannot wake the keeper"); /* it counts no further than 2^64 */
}

/* ---- The keeper's side ---- */

static void add_lost(struct batch *batch, const struct share *share)
{
    struct key key;
    int64_t now = time(NULL);
    struct audit_event event = { .kind = EVENT_events_dropped,
                                 .tenant_id = share->tenant_id,
                                 .tenant = share->tenant };
    make_key(&key, &event, now, false);
    struct audit_row *row = row_new(&key, &event, now);
    if (row == NULL) {
        log_error("%llu events were lost, and there is no memory to record it",
                  (unsigned long long)share->lost);
        return;
    }
    row->count = share->lost;
    append(batch, row);
}

static void add_all_lost(struct batch *batch)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct share *share = batch->tenants.bucket[i]; share != NULL; share = share->chain)
            if (share->lost > 0)
                add_lost(batch, share);
}

/* Of the last second. */
static void empty_spare(void)
{
    pthread_mutex_lock(&pending.lock);
    struct shares *old = pending.principals == &seconds[0] ? &seconds[1] : &seconds[0];
    bool is_empty = pending.spare != NULL;
    pthread_mutex_unlock(&pending.lock);
    if (is_empty)
        return;
    free_shares(old);
    pthread_mutex_lock(&pending.lock);
    pending.spare = old;
    pthread_mutex_unlock(&pending.lock);
}

struct audit_row *audit_take(void)
{
    uint64_t ignored;
    pthread_mutex_lock(&pending.lock);
    struct batch *batch = pending.filling;
    pending.filling = batch == &batches[0] ? &batches[1] : &batches[0];
    if (pending.fd >= 0 && read(pending.fd, &ignored, sizeof(ignored)) < 0)
        ignored = 0; /* nothing had come */
    pthread_mutex_unlock(&pending.lock);
    empty_spare();
    add_all_lost(batch);
    free_shares(&batch->tenants);
    struct audit_row *rows = batch->first;
    memset(batch, 0, sizeof(*batch));
    return rows;
}

int audit_fd(void)
{
    return pending.fd;
}

unsigned audit_waiting(void)
{
    pthread_mutex_lock(&pending.lock);
    unsigned used = pending.filling->used;
    pthread_mutex_unlock(&pending.lock);
    return used;
}

int audit_start(void)
{
    pending.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return pending.fd >= 0 ? 0 : -1;
}

void audit_stop(void)
{
    struct audit_row *row = audit_take(), *next;
    for (; row != NULL; row = next) {
        next = row->next;
        free(row);
    }
    free_shares(pending.principals);
    if (pending.fd >= 0)
        close(pending.fd);
    pending.fd = -1;
}
