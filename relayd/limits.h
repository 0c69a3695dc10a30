#ifndef RELAYD_LIMITS_H
#define RELAYD_LIMITS_H

#include "relayd/rate.h"

#include <stdbool.h>
#include <stdint.h>

/* Two kinds of limits: those that an administrator sets for a tenant and for each of its principals, in
 * lower case, and fixed ones, in upper case. */

/* ---- Set by `relayctl limit` ---- */

enum limit {
#define LIMIT(id, name, unit, tenant, principal, help) LIMIT_##id,
#include "relayd/limits.def"
#undef LIMIT
    LIMIT_COUNT
};

#define LIMIT_NONE RATE_NONE /* no limit */
#define LIMIT_MAX RATE_MAX   /* the highest that can be set */

/* What holds for one tenant or one principal. */
struct limits {
    uint64_t value[LIMIT_COUNT];
};

/* What holds where nothing was set. */
extern const struct limits limits_of_tenant, limits_of_principal;

const char *limit_name(enum limit limit);
const char *limit_unit(enum limit limit); /* for people: "bytes a second" */
enum limit limit_find(const char *name);  /* LIMIT_COUNT: there is none of that name */
const char *limit_names(void);            /* all of them, for people */

/* Reads what an administrator wrote: a whole number, in bytes also of K, M, G or T (powers of 1024), or
 * "none". NULL, or what was expected instead. */
const char *limit_parse(enum limit limit, const char *text, uint64_t *value)
    __attribute__((warn_unused_result));

/* Puts in what is stored: -1 is none. What makes no sense is left out, as one that came from elsewhere. */
void limits_set(struct limits *limits, const char *name, int64_t value);

/* ---- Fixed: what libssh leaves to us to bound (docs/DESIGN.md, "libssh") ---- */

/* Of one session. */
#define LIMIT_CHANNELS 1000      /* closing ones and waiting opens included */
#define LIMIT_CONSOLES 32        /* of them running a shell or a command, each with what it shows */
#define LIMIT_PUBLICATIONS 1000  /* endpoints that it publishes */
#define LIMIT_REFUSALS 32        /* of one kind, that are logged and told to the peer in a second */
#define LIMIT_REFUSALS_KINDS 8   /* that are counted apart: what was refused, and why */
#define LIMIT_REFUSALS_KEPT 8    /* for a shell that is opened later */
#define LIMIT_BACKLOG (1u << 20) /* bytes of messages not yet handled, above which it gets no open */
#define LIMIT_UNSENT (1u << 20)  /* bytes that the peer may leave unread in our buffers */
#define LIMIT_PARKED 32768       /* packets that it may send while a rekey of ours waits for it */
#define LIMIT_LOGIN_ATTEMPTS 30  /* keys tried in one login, questions included */
#define LIMIT_LOGIN_BYTES 65536  /* that the peer may send before it has logged in */
#define LIMIT_ANSWER 15          /* seconds in which a peer that is asked whether it lives has to answer */
#define LIMIT_LOGIN_SILENCE 3    /* seconds without a byte in a login, if others wait for its place */

/* Of commands over SSH that wait for the keeper or for their answer. Of a tenant's, half for its
 * administrators alone, here and below. */
#define LIMIT_REQUESTS_PRINCIPAL 8
#define LIMIT_REQUESTS_TENANT 32

/* Bytes that commands and shells have shown and nobody has read, above which no other begins. */
#define LIMIT_UNREAD_PRINCIPAL (16u << 20)
#define LIMIT_UNREAD_TENANT (256u << 20)

/* Of an open shell: bytes that may wait for its reader, above which it loses lines of what happens. */
#define LIMIT_FEED 16384

/* That a tenant's administrators may register; the relay's may go on. */
#define LIMIT_REGISTERED 20000 /* devices and clients of a tenant; and endpoints with settings */
#define LIMIT_KEYS 32          /* of one of them */
#define LIMIT_RULES 256        /* of one of them */
#define LIMIT_LIST (8u << 20)  /* bytes of a list of them: it costs the keeper and the worker its time */

/* Times that the open shells of a tenant are told something, in a second: each costs the worker microseconds,
 * and one event may concern them all. */
#define LIMIT_TOLD 20000

/* Of one device. */
#define LIMIT_SWAPS 3         /* sessions that took another's place at the limit of sessions, */
#define LIMIT_SWAPS_S 60      /* each within so many seconds of the last: then two hosts take turns */
#define LIMIT_OWNED_NAMES 256 /* outside its own */
#define LIMIT_SETTINGS 1024   /* endpoints that set-endpoint has set */
#define LIMIT_HISTORY 256     /* rows of endpoints that are kept beyond what it owns */

/* Of keys that wait to be approved. */
#define LIMIT_PENDING 1000                /* of a tenant */
#define LIMIT_PENDING_OF_SOURCE 100       /* of one source in it */
#define LIMIT_PENDING_AGE (7 * 24 * 3600) /* seconds since one asked last */

/* Of the process. */
#define LIMIT_WRITES_BEHIND 65536 /* rows waiting for the keeper */
#ifndef LIMIT_EVENTS
#define LIMIT_EVENTS 65536 /* rows of the audit trail waiting for the keeper, of some 300 bytes each */
#endif
#define LIMIT_EVENTS_OF_ONE 128    /* of them told apart, of one device or client */
#define LIMIT_ENROLMENTS_BEHIND 64 /* keys that ask to be approved, likewise */
#define LIMIT_SOURCES 65536        /* that owe for failed logins, of 100 bytes each */
#define LIMIT_CONTROL_CONNECTIONS 64
#define LIMIT_BATCH 100000            /* lines of a batch, */
#define LIMIT_BATCH_BYTES (32u << 20) /* and bytes of the requests that bring it */
#define LIMIT_DESCRIPTOR_RESERVE 64   /* descriptors that sessions leave to everything else, */
#define LIMIT_DESCRIPTORS_A_WORKER 10 /* and for each worker */

#endif
