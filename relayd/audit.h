#ifndef RELAYD_AUDIT_H
#define RELAYD_AUDIT_H

#include "relayd/reason.h"

#include <stdint.h>

/* The audit trail on its way to the disk. Any thread says what happened; equal events of one second become
 * one row, and the keeper takes what waits about once a second (`trail`). Nobody waits for a disk here: one
 * lock is held for a look-up. Of the room for rows that wait no tenant takes more than it leaves, nor do all
 * that have not logged in, so who floods it loses his own events; how many is recorded in their place. */
enum event_kind {
#define EVENT(id, words) EVENT_##id,
#include "relayd/events.def"
#undef EVENT
    EVENT_COUNT
};

const char *event_code(enum event_kind kind);  /* "bridge_closed" */
const char *event_words(enum event_kind kind); /* what follows the name of whom it is about */

/* Whose an event is, if no tenant's. */
#define AUDIT_RELAY 0      /* relayd's own */
#define AUDIT_STRANGERS -1 /* of whom has not logged in */

/* What happened. Texts are borrowed; they may come from a peer, and NULL is "". */
struct audit_event {
    enum event_kind kind;
    enum reason reason; /* REASON_none: it was done; else what its subject may know */
    enum reason cause;  /* what is true, for administrators; REASON_none: the same */
    int64_t tenant_id, principal_id;
    const char *tenant, *principal, *address; /* who, from where */
    const char *object; /* what about: "web.raspi:80", "SHA256:…", "add-device raspi" */
    const char *peer;   /* the other end: of a connect the device, of a command whom it concerns */
    uint64_t bytes_up, bytes_down;
    int64_t duration; /* milliseconds */
};

void audit(const struct audit_event *event);

#endif
