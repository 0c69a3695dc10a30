#include "relayd/gate.h"

#include "relayd/clock.h"
#include "relayd/limits.h"
#include "relayd/log.h"

#include <pthread.h>
#include <stdatomic.h>

static struct {
    pthread_mutex_t lock; /* guards all below; nothing else is locked or waited for while it is held */
    struct penalties *penalties;
    const struct config *config; /* held */
    uint64_t refused;
} gate = { .lock = PTHREAD_MUTEX_INITIALIZER };

static atomic_int_fast64_t full_until; /* of clock_us() */

int gate_start(const struct config *config, struct failure *failure)
{
    gate.penalties = penalty_new(LIMIT_SOURCES);
    if (gate.penalties == NULL)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    gate_configure(config);
    return 0;
}

void gate_stop(void)
{
    penalty_free(gate.penalties);
    config_release(gate.config);
}

void gate_configure(const struct config *config)
{
    pthread_mutex_lock(&gate.lock);
    config_release(gate.config);
    gate.config = config_hold(config);
    pthread_mutex_unlock(&gate.lock);
}

unsigned gate_max_logins(void)
{
    pthread_mutex_lock(&gate.lock);
    unsigned max = gate.config->max_logins;
    pthread_mutex_unlock(&gate.lock);
    return max;
}

void gate_set_full(void)
{
    atomic_store(&full_until, clock_us() + (int64_t)PENALTY_SECOND);
}

bool gate_is_full(void)
{
    return clock_us() < atomic_load(&full_until);
}

static bool is_exempt(const struct config *config, const struct sockaddr *address)
{
    for (size_t i = 0; i < config->penalty_exempt.n; i++)
        if (network_contains(&config->penalty_exempt.v[i], address))
            return true;
    return false;
}

struct source gate_source(const struct sockaddr *address)
{
    struct source nobody = { 0 };
    pthread_mutex_lock(&gate.lock);
    bool exempt = is_exempt(gate.config, address);
    pthread_mutex_unlock(&gate.lock);
    return exempt ? nobody : source_of(address);
}

enum penalty_verdict gate_check(const struct source *source, uint64_t *delay)
{
    *delay = 0;
    enum penalty_verdict verdict = PENALTY_PASS;
    if (source->family == 0)
        return verdict;
    pthread_mutex_lock(&gate.lock);
    if (gate.config->penalties)
        verdict = penalty_check(gate.penalties, source, clock_us(), delay);
    pthread_mutex_unlock(&gate.lock);
    return verdict;
}

void gate_refused(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.refused++;
    pthread_mutex_unlock(&gate.lock);
}

/* The one line about it: what it tries while it is held back is counted, not logged. */
static void log_held(const struct source *source, enum penalty penalty, uint64_t us)
{
    char text[SOURCE_TEXT_SIZE];
    source_text(source, text);
    log_warn("connections from %s are held back for %llu s: %s, after other failures", text,
             (unsigned long long)(us / PENALTY_SECOND), penalty_text(penalty));
}

void gate_fail(const struct source *source, enum penalty penalty)
{
    if (source->family == 0)
        return;
    pthread_mutex_lock(&gate.lock);
    uint64_t us = gate.config->penalties ? penalty_fail(gate.penalties, source, penalty, clock_us()) : 0;
    pthread_mutex_unlock(&gate.lock);
    if (us > 0)
        log_held(source, penalty, us);
}

void gate_login(const struct source *source)
{
    if (source->family == 0)
        return;
    pthread_mutex_lock(&gate.lock);
    penalty_login(gate.penalties, source);
    pthread_mutex_unlock(&gate.lock);
}

void gate_logout(const struct source *source)
{
    if (source->family == 0)
        return;
    pthread_mutex_lock(&gate.lock);
    penalty_logout(gate.penalties, source);
    pthread_mutex_unlock(&gate.lock);
}

void gate_count(size_t *held, uint64_t *refused)
{
    pthread_mutex_lock(&gate.lock);
    *held = penalty_count(gate.penalties, clock_us());
    *refused = gate.refused;
    pthread_mutex_unlock(&gate.lock);
}
