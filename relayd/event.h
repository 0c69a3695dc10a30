#ifndef RELAYD_EVENT_H
#define RELAYD_EVENT_H

/* What can happen that is worth a row of the audit trail (audit.h) and a counter (metrics.h). */
enum event_kind {
#define EVENT(id, words) EVENT_##id,
#include "relayd/events.def"
#undef EVENT
    EVENT_COUNT
};

const char *event_code(enum event_kind kind);  /* "bridge_closed" */
const char *event_words(enum event_kind kind); /* what follows the name of whom it is about */

#endif
