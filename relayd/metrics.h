#ifndef RELAYD_METRICS_H
#define RELAYD_METRICS_H

#include "relayd/event.h"
#include "relayd/reason.h"

#include <stdint.h>

/* Counters since the start. Any thread, any time: relaxed atomics, so that counting costs next to nothing
 * and nobody waits; who reads gets each counter as it was at some moment just now. */
enum metric {
#define METRIC(id, help) METRIC_##id,
#include "relayd/metrics.def"
#undef METRIC
    METRIC_COUNT
};

const char *metric_name(enum metric metric);

void metrics_add(enum metric metric, uint64_t amount);
uint64_t metrics_value(enum metric metric);

/* How often each kind of event came with each reason; REASON_none: it was done. */
void metrics_event(enum event_kind kind, enum reason reason);
uint64_t metrics_events(enum event_kind kind, enum reason reason);

#endif
