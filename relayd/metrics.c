#include "relayd/metrics.h"

#include <stdatomic.h>

static atomic_uint_fast64_t counters[METRIC_COUNT];
static atomic_uint_fast64_t events[EVENT_COUNT][REASON_COUNT];

static const char *const names[] = {
#define METRIC(id, help) #id,
#include "relayd/metrics.def"
#undef METRIC
};

const char *metric_name(enum metric metric)
{
    return names[metric];
}

void metrics_add(enum metric metric, uint64_t amount)
{
    atomic_fetch_add_explicit(&counters[metric], amount, memory_order_relaxed);
}

uint64_t metrics_value(enum metric metric)
{
    return atomic_load_explicit(&counters[metric], memory_order_relaxed);
}

void metrics_event(enum event_kind kind, enum reason reason)
{
    atomic_fetch_add_explicit(&events[kind][reason], 1, memory_order_relaxed);
}

uint64_t metrics_events(enum event_kind kind, enum reason reason)
{
    return atomic_load_explicit(&events[kind][reason], memory_order_relaxed);
}
