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
#define LIMIT_PUBLICATIONS 1000  /* endpoints that it publishes */
#define LIMIT_REFUSALS 32        /* of one kind, that are logged and told to the peer in a second */
#define LIMIT_REFUSALS_KINDS 8   /* that are counted apart: what was refused, and why */
#define LIMIT_BACKLOG (1u << 20) /* bytes of messages not yet handled, above which it gets no open */
#define LIMIT_UNSENT (1u << 20)  /* bytes that the peer may leave unread in our buffers */
#define LIMIT_PARKED 32768       /* packets that it may send while a rekey of ours waits for it */
#define LIMIT_LOGIN_ATTEMPTS 30  /* keys tried in one login, questions included */
#define LIMIT_LOGIN_BYTES 65536  /* that the peer may send before it has logged in */
#define LIMIT_LOGIN_SILENCE 3    /* seconds without a byte in a login, if others wait for its place */

/* Of one device. */
#define LIMIT_OWNED_NAMES 256 /* outside its own */
#define LIMIT_HISTORY 256     /* rows of endpoints that are kept beyond what it owns */

/* Of the process. */
#define LIMIT_WRITES_BEHIND 65536 /* rows waiting for the keeper */
#define LIMIT_SOURCES 65536       /* that owe for failed logins, of 100 bytes each */
#define LIMIT_CONTROL_CONNECTIONS 64
#define LIMIT_DESCRIPTOR_RESERVE 64   /* descriptors that sessions leave to everything else, */
#define LIMIT_DESCRIPTORS_A_WORKER 10 /* and for each worker */

#endif
