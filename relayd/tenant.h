#ifndef RELAYD_TENANT_H
#define RELAYD_TENANT_H

#include "relayd/account.h"
#include "relayd/audit.h"
#include "relayd/directory.h"
#include "relayd/hash.h"
#include "relayd/loop.h"
#include "relayd/policy.h"
#include "relayd/setting.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct connect;

/* What a tenant's worker keeps of the tenant and of its principals while they have sessions. */
enum principal_kind { PRINCIPAL_DEVICE, PRINCIPAL_CLIENT };

/* Somebody who is told what happens: an open shell. Most sessions have none, and then nothing is done. */
struct follower {
    struct principal *principal;
    /* Called from anywhere; it only records. Whether the event concerns it is for it to say. NULL: there were
     * others, too many to tell it. */
    void (*tell)(struct follower *follower, const struct audit_event *event);
    unsigned untold;                            /* the tenant's when it was last told */
    struct follower *prev, *next;               /* of the principal */
    struct follower *tenant_prev, *tenant_next; /* of the tenant, if it is a client's */
};

struct principal {
    int64_t id;
    enum principal_kind kind;
    char *name;      /* owned */
    int64_t expires; /* UNIX seconds; 0: never */
    bool admin;      /* of its tenant */
    struct rules rules;
    struct account account;
    unsigned nsessions, nconnects; /* it is freed with the last */
    unsigned swaps;                /* sessions that took another's place, */
    time_t swapped_at;             /* the last of them then */
    size_t unread;                 /* bytes of answers that its sessions have yet to read */
    struct tenant *tenant;
    struct follower *followers;
    struct event *expiry; /* closes its sessions when it expires; NULL if it never does */
    UT_hash_handle hh;
};

struct tenant {
    int64_t id;
    char *name; /* owned */
    struct directory *directory;
    struct setting *settings;     /* of endpoints */
    struct principal *principals; /* hash by id */
    struct session *sessions;
    struct share share;       /* of the worker's time */
    struct connect *connects; /* opening and bridged */
    struct connect *waiting;  /* opens that wait for a device that is away */
    struct follower *clients; /* those of its followers that see endpoints come and go */
    unsigned nfollowers;
    unsigned told;      /* times that one was told something, */
    time_t told_second; /* in this second */
    unsigned untold;    /* events that some of them were not told */
    struct account account;
    unsigned nbridges;
    size_t unread; /* of all its principals */
    bool has_news; /* for the waiting ones: who serves may have changed; see loop->has_news */
    UT_hash_handle hh;
};

/* Closes all sessions and bridges of a principal, which may free it; set before the first tenant is loaded,
 * the same for all. */
extern void (*tenant_on_expired)(struct principal *principal);

/* The tenant, with its directory read from the registry at the first call. NULL on error. */
struct tenant *tenant_get(struct loop *loop, int64_t id, const char *name);

/* The tenant if it is loaded, else NULL. */
struct tenant *tenant_find(const struct loop *loop, int64_t id);

void tenant_free(struct loop *loop, struct tenant *tenant);

/* The principal, read from the registry if it has no session yet. NULL if it is not there, has
 * expired, or on error; *why tells. Give it back with principal_release(). */
struct principal *principal_acquire(struct loop *loop, struct tenant *tenant, int64_t id, enum reason *why);
void principal_release(struct principal *principal);

/* For a connect, which may outlive the sessions. */
struct principal *principal_hold(struct principal *principal);
void principal_let_go(struct principal *principal);

/* Reads a principal that is loaded again after a change. 1: done; 0: it is no more (removed or
 * expired); -1: the registry cannot be read. Without 1 it may do nothing any more. */
int principal_refresh(struct loop *loop, struct tenant *tenant, struct principal *principal);

const char *principal_kind_name(const struct principal *principal); /* "device" or "client" */

struct principal *principal_find(const struct tenant *tenant, int64_t id);

/* Read the limits again after a change. -1: the registry cannot be read, and the old ones stay. */
int tenant_refresh_limits(struct loop *loop, struct tenant *tenant);
int principal_refresh_limits(struct loop *loop, struct principal *principal);

/* Reads the device of that id, or the owner of that name, into the directory again, and the settings of
 * the endpoints that are its own. -1 on error. */
int tenant_refresh_device(struct loop *loop, struct tenant *tenant, int64_t principal_id);
int tenant_refresh_owner(struct loop *loop, struct tenant *tenant, const char *name);

/* Something has happened in the tenant, whose id and name are filled in: it goes to the audit trail, and to
 * the followers that it may concern: those of whom it is about, of the device at its other end, and of
 * clients when it is about what is published; of a flood, only to as many of them as LIMIT_TOLD allows. What
 * has changed must have changed before. */
void tenant_event(struct tenant *tenant, const struct audit_event *event);

/* From now on the principal's follower is told; it must be taken out while the principal has a session. */
void tenant_follow(struct principal *principal, struct follower *follower);
void tenant_unfollow(struct follower *follower);

#endif
