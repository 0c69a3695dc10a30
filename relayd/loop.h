#ifndef RELAYD_LOOP_H
#define RELAYD_LOOP_H

#include "relayd/config.h"
#include "relayd/mailbox.h"
#include "relayd/sshio.h"

#include <event2/event.h>
#include <stdint.h>
#include <time.h>

struct request;
struct session;
struct store;
struct tenant;

/* What is fixed once the threads run; every thread may read it. */
struct relay {
    struct config config; /* that relayd was started with */
    struct host_key host_key;
    time_t started;
    unsigned nworkers; /* that tenants live on; as many more log in: */
    unsigned nloops;   /* all of them, the tenants' first */
    uint16_t port;     /* of the first address that it listens on */
};

/* A tenant's part of a worker's time. All its sessions that have work share it. */
struct share {
    struct session *dirty; /* those, in the order in which they will be served */
    uint64_t pass;         /* in which it had its turn last */
    struct share *prev, *next;
};

/* What one worker thread owns: its event loop, its view of the registry, the sessions that are
 * with it and the tenants that live on it. Nothing in it is touched by another thread but the
 * mailbox. */
struct loop {
    unsigned index; /* which worker */
    const struct relay *relay;
    const struct config *config; /* held: the current one */
    struct event_base *base;
    struct mailbox *mailbox;
    struct store *store; /* reads only */
    ssh_bind bind;

    struct session *sessions; /* all of them */
    struct share *shares;     /* those with sessions to be served, in turn */
    struct share strangers;   /* of who has not logged in */
    uint64_t pass;            /* counts them */
    int64_t slice_end;        /* when the session that is served has to stop; clock_us() */
    uint64_t calls;           /* into libssh */
    struct session *touched;  /* libssh was called for them: to be settled */
    struct tenant *tenants;   /* hash by id */
    struct request *requests; /* under way for sessions of this worker: one of a tenant at a time, */
    struct request *waiting;  /* behind which the others wait */

    int64_t now; /* when this pass began: microseconds of the monotonic clock */
    unsigned nsessions;
    bool has_news; /* of some tenant */
    bool draining; /* relayd stops: no new session, no new open */
};

#endif
