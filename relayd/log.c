#include "relayd/log.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_MAX 2048
#define LINE_MAX_SIZE (2 * MESSAGE_MAX + 1024)
#define QUEUE_SIZE (512u * 1024) /* bytes of lines that may wait for the writer */
#define OWNER_SIZE 65            /* the name of a tenant is one label */
#define FLUSH_MS 2000            /* for what waits, at the end */

enum queue_state {
    QUEUE_OFF,    /* lines are written by whoever logs them */
    QUEUE_ON,     /* lines wait for the writer */
    QUEUE_ENDING, /* likewise; the writer ends when nothing waits */
    QUEUE_STUCK,  /* the writer hangs in its last write: lines are lost */
};

/* What one owner has of the lines that wait. */
struct share {
    char owner[OWNER_SIZE];
    size_t used;
    unsigned long long lost; /* lines since the first that found no room */
};

enum {
    SHARE_OWN,         /* relayd's own lines, and those of the control socket */
    SHARE_LOGINS,      /* of sessions that have not logged in */
    SHARE_TENANT,      /* a tenant's, in the order in which they came; from here on */
    SHARE_OTHERS = 63, /* of all tenants beyond */
    SHARES,
};

struct batch {
    size_t used;
    unsigned nshares; /* that are in use; at least SHARE_TENANT */
    struct share shares[SHARES];
    char lines[QUEUE_SIZE];
};

/* Lines on their way to the writer. It swaps the batches and writes one while the other fills. */
static struct queue {
    pthread_mutex_t lock; /* guards all below but what `writing` holds; nothing is locked inside it */
    pthread_cond_t filled, ended;
    enum queue_state state;
    struct batch *filling;
    struct batch *writing; /* the writer's */
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static atomic_uint threshold = LOG_LEVEL_INFO;
static atomic_bool as_json;

void log_setup(enum log_level level, bool json)
{
    atomic_store(&threshold, level);
    atomic_store(&as_json, json);
}

static size_t escape(const char *text, const char *also, char *out, size_t size)
{
    size_t used = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        bool plain = *p >= 0x20 && *p < 0x7f && strchr(also, *p) == NULL;
        if (used + (plain ? 1 : 4) >= size)
            break;
        if (plain)
            out[used++] = (char)*p;
        else
            used += (size_t)snprintf(out + used, size - used, "\\x%02x", *p);
    }
    out[used] = '\0';
    return used;
}

void log_escape(const char *text, char *out, size_t size)
{
    escape(text, "", out, size);
}

void log_quote(const char *text, char *out, size_t size)
{
    out[0] = '"';
    size_t used = 1 + escape(text, "\"\\", out + 1, size - 2);
    memcpy(out + used, "\"", 2);
}

static void format_time(char out[32])
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + n, 32 - n, ".%03ldZ", now.tv_nsec / 1000000);
}

/* ---- Lines ---- */

static size_t format_text(const char *level, const char *time, const struct log_subject *subject,
                          const char *message, char *line, size_t size)
{
    char who[384] = "";
    size_t used = 0;
    char plain[256];
    if (subject != NULL && subject->tenant != NULL) {
        log_escape(subject->tenant, plain, 65);
        used += (size_t)snprintf(who + used, sizeof(who) - used, "tenant=%s ", plain);
    }
    if (subject != NULL && subject->principal != NULL) {
        log_escape(subject->principal, plain, sizeof(plain));
        used += (size_t)snprintf(who + used, sizeof(who) - used, "principal=%s ", plain);
    }
    if (subject != NULL && subject->session != 0)
        snprintf(who + used, sizeof(who) - used, "session=%llu ", (unsigned long long)subject->session);
    int n = snprintf(line, size, "%s %s %s%s\n", time, level, who, message);
    return (size_t)n < size ? (size_t)n : size - 1;
}

static void add_member(json_t *object, const char *key, const char *text)
{
    char plain[256];
    if (text == NULL)
        return;
    log_escape(text, plain, sizeof(plain));
    json_object_set_new(object, key, json_string(plain));
}

static size_t format_json(const char *level, const char *time, const struct log_subject *subject,
                          const char *message, char *line, size_t size)
{
    static const struct log_subject nobody;
    json_t *object = json_pack("{s:s, s:s}", "time", time, "level", level);
    subject = subject != NULL ? subject : &nobody;
    add_member(object, "tenant", subject->tenant);
    add_member(object, "principal", subject->principal);
    if (subject->session != 0)
        json_object_set_new(object, "session", json_integer((json_int_t)subject->session));
    add_member(object, "address", subject->address);
    add_member(object, "event", subject->event);
    add_member(object, "reason", subject->reason);
    json_object_set_new(object, "message", json_string(message));

    size_t n = json_dumpb(object, line, size - 1, JSON_COMPACT);
    json_decref(object);
    if (n == 0 || n >= size)
        return 0;
    line[n] = '\n';
    return n + 1;
}

/* One line with its end; 0 if it cannot be made. */
static size_t format_line(enum log_level level, const struct log_subject *subject, const char *raw,
                          char line[LINE_MAX_SIZE])
{
    char message[MESSAGE_MAX], time[32];
    log_escape(raw, message, sizeof(message));
    format_time(time);
    return (atomic_load(&as_json) ? format_json : format_text)(level_names[level], time, subject, message,
                                                               line, LINE_MAX_SIZE);
}

/* Waits for the reader. A failed write loses the line: there is nowhere left to say so. */
static void put_line(const char *line, size_t len)
{
    struct pollfd pollfd = { .fd = STDERR_FILENO, .events = POLLOUT };
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, line, len);
        if (n < 0 && errno == EAGAIN)
            poll(&pollfd, 1, -1);
        else if (n < 0 && errno != EINTR)
            return;
        line += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

/* ---- What waits ---- */

static void empty(struct batch *batch)
{
    batch->used = 0;
    batch->nshares = 0;
    while (batch->nshares < SHARE_TENANT)
        batch->shares[batch->nshares++] = (struct share){ 0 };
}

static struct share *share_of_tenant(struct batch *batch, const char *tenant)
{
    for (unsigned i = SHARE_TENANT; i < batch->nshares; i++)
        if (strcmp(batch->shares[i].owner, tenant) == 0)
            return &batch->shares[i];
    if (batch->nshares == SHARES)
        return &batch->shares[SHARE_OTHERS];
    struct share *share = &batch->shares[batch->nshares++];
    *share = (struct share){ 0 };
    if (share != &batch->shares[SHARE_OTHERS])
        snprintf(share->owner, sizeof(share->owner), "%s", tenant);
    return share;
}

static struct share *share_of(struct batch *batch, const struct log_subject *subject)
{
    if (subject == NULL || (subject->principal == NULL && subject->session == 0))
        return &batch->shares[SHARE_OWN];
    return subject->tenant != NULL ? share_of_tenant(batch, subject->tenant) : &batch->shares[SHARE_LOGINS];
}

/* Nobody has more waiting than is free for the others, so that whoever comes next finds room. After a first
 * line that was lost all of its owner's are, until the writer makes room: so the gap is in one place, and
 * said there. */
static void add_line(struct batch *batch, struct share *share, const char *line, size_t len)
{
    size_t left = QUEUE_SIZE - batch->used;
    bool fits = len <= left && (share == &batch->shares[SHARE_OWN] || share->used + len <= left - len);
    if (share->lost > 0 || !fits) {
        share->lost++;
        return;
    }
    memcpy(batch->lines + batch->used, line, len);
    batch->used += len;
    share->used += len;
}

static void put_lost(const struct share *share)
{
    char text[128], line[LINE_MAX_SIZE];
    struct log_subject subject = { .tenant = share->owner[0] != '\0' ? share->owner : NULL };
    if (share->lost == 0)
        return;
    snprintf(text, sizeof(text), "log: %llu lines were lost here, for nobody read the log in time",
             share->lost);
    put_line(line, format_line(LOG_LEVEL_WARN, &subject, text, line));
}

/* Each line by a write of its own, as whoever logs does it without a writer. */
static void put_batch(const struct batch *batch)
{
    const char *lines = batch->lines, *end;
    for (size_t size = batch->used; size > 0; size -= (size_t)(end - lines), lines = end) {
        end = (const char *)memchr(lines, '\n', size) + 1;
        put_line(lines, (size_t)(end - lines));
    }
    for (unsigned i = 0; i < batch->nshares; i++)
        put_lost(&batch->shares[i]);
}

/* ---- The writer ---- */

static void *run(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&queue.lock);
    for (;;) {
        while (queue.filling->used == 0 && queue.state == QUEUE_ON)
            pthread_cond_wait(&queue.filled, &queue.lock);
        if (queue.filling->used == 0)
            break;
        struct batch *batch = queue.filling;
        queue.filling = queue.writing;
        queue.writing = batch;
        empty(queue.filling);
        pthread_mutex_unlock(&queue.lock);
        put_batch(batch);
        pthread_mutex_lock(&queue.lock);
    }
    if (queue.state == QUEUE_ENDING)
        queue.state = QUEUE_OFF;
    pthread_cond_signal(&queue.ended);
    pthread_mutex_unlock(&queue.lock);
    return NULL;
}

/* Returns false if the line is the caller's to write. */
static bool enqueue(const struct log_subject *subject, const char *line, size_t len)
{
    pthread_mutex_lock(&queue.lock);
    bool off = queue.state == QUEUE_OFF;
    if (queue.state == QUEUE_ON || queue.state == QUEUE_ENDING) {
        struct batch *batch = queue.filling;
        add_line(batch, share_of(batch, subject), line, len);
        if (batch->used == len)
            pthread_cond_signal(&queue.filled);
    }
    pthread_mutex_unlock(&queue.lock);
    return !off;
}

/* The writer is detached: at the end nobody can wait for it if it hangs in a write. */
int log_start(void)
{
    pthread_t thread;
    pthread_attr_t detached;
    pthread_condattr_t monotonic;
    queue.filling = malloc(sizeof(*queue.filling));
    queue.writing = malloc(sizeof(*queue.writing));
    if (queue.filling == NULL || queue.writing == NULL)
        goto fail;
    empty(queue.filling);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue.ended, &monotonic);
    pthread_cond_init(&queue.filled, NULL);
    pthread_condattr_destroy(&monotonic);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    queue.state = QUEUE_ON;
    int rc = pthread_create(&thread, &detached, run, NULL);
    pthread_attr_destroy(&detached);
    if (rc == 0)
        return 0;
    queue.state = QUEUE_OFF;
fail:
    free(queue.filling);
    free(queue.writing);
    return -1;
}

void log_stop(void)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += FLUSH_MS / 1000;
    pthread_mutex_lock(&queue.lock);
    if (queue.state == QUEUE_ON) {
        queue.state = QUEUE_ENDING;
        pthread_cond_signal(&queue.filled);
        while (queue.state == QUEUE_ENDING &&
               pthread_cond_timedwait(&queue.ended, &queue.lock, &deadline) == 0)
            continue;
        if (queue.state == QUEUE_ENDING) {
            queue.state = QUEUE_STUCK;
        } else {
            free(queue.filling);
            free(queue.writing);
        }
    }
    pthread_mutex_unlock(&queue.lock);
}

size_t log_waiting(void)
{
    pthread_mutex_lock(&queue.lock);
    size_t used = queue.state == QUEUE_ON ? queue.filling->used : 0;
    pthread_mutex_unlock(&queue.lock);
    return used;
}

void log_write(enum log_level level, const struct log_subject *subject, const char *fmt, ...)
{
    if (level > atomic_load(&threshold))
        return;
    char raw[MESSAGE_MAX], line[LINE_MAX_SIZE];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof(raw), fmt, ap);
    va_end(ap);
    size_t len = format_line(level, subject, raw, line);
    if (len > 0 && !enqueue(subject, line, len))
        put_line(line, len);
}
