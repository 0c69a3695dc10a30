#ifndef RELAYD_AUDIT_H
#define RELAYD_AUDIT_H

#include "relayd/event.h"
#include "relayd/reason.h"

#include <stddef.h>
#include <stdint.h>

/* The audit trail on its way to the disk. Any thread says what happened; equal events of one second become
 * one row, and the keeper takes what waits about once a second (`trail`). Nobody waits for a disk here: one
 * lock is held for a look-up.
 *
 * Who floods it loses his own events. Of the room for rows that wait no tenant takes more than it leaves, nor
 * do all that have not logged in; how many were lost is recorded in their place. One device or client, and
 * all that have not logged in, have LIMIT_EVENTS_OF_ONE rows of their own in a second: then what they
 * do is still counted by kind and reason, without object, peer and address. None of that holds for what
 * the relay's administrators and relayd itself do. */

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

/* Never waits. Any thread, any time. */
void audit(const struct audit_event *event);

/* Equal events of one second: they differ in the last three alone, and those are added up. Bytes of texts
 * outside 0x20..0x7e are \xNN. */
struct audit_row {
    struct audit_row *next;
    struct audit_event event;
    uint64_t count;
    int64_t time; /* UNIX seconds */

    /* audit's own */
    struct audit_row *chain;
    unsigned hash;
    size_t key_size;
    char key[]; /* the texts are in it */
};

/* Takes all that waits, oldest first, and behind it how many were lost of whom. free() each. For one thread.
 */
struct audit_row *audit_take(void);

/* Readable from the first event on that comes after audit_take(); -1 before audit_start(). */
int audit_fd(void);

/* How many rows wait to be taken. */
unsigned audit_waiting(void);

/* -1: there is no descriptor left. The main thread, while there is no other. */
int audit_start(void) __attribute__((warn_unused_result));
void audit_stop(void);

#endif
