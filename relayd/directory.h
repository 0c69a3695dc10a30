#ifndef RELAYD_DIRECTORY_H
#define RELAYD_DIRECTORY_H

#include "relayd/hash.h"
#include "relayd/name.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A tenant's directory: who owns which name, and which live sessions serve which endpoint. Pure;
 * owned by the tenant's worker.
 *
 * Ownership: a device owns its own name and all below it; any other name is owned whole, all
 * ports, by one device. Serving: the newest publication of an endpoint serves, the older ones are
 * its standbys.
 */
struct session; /* opaque here */

/* One session's serving of one endpoint. */
struct publication {
    struct endpoint *endpoint;
    struct session *session;
    char *requested;                       /* byte for byte what the device sent (D5); owned */
    struct publication *prev, *next;       /* of the endpoint, newest first */
    struct publication *of_prev, *of_next; /* of the session */
};

/* An endpoint that somebody serves. */
struct endpoint {
    struct publication *publications;
    uint64_t bytes_up, bytes_down; /* of its bridges that are over, since it came to be served */
    uint16_t port;
    UT_hash_handle hh;
    const char *name;
    char key[]; /* "name:port", and name behind it */
};

struct directory;

struct directory *directory_new(void);
void directory_free(struct directory *directory);

/* Says that device `principal` is called `name` and so owns it with all below; NULL: it is no
 * more, and owns nothing. -1: out of memory. */
int directory_set_device(struct directory *directory, int64_t principal, const char *name);

/* Says that `principal` owns the name outside its own; 0: nobody does. -1: out of memory. */
int directory_set_owner(struct directory *directory, const char *name, int64_t principal);

/* The principal that owns a name, 0 if nobody. *own is set if the name is at or under the owner's
 * device name, which goes before any other ownership. */
int64_t directory_owner(const struct directory *directory, const char *name, bool *own);

/* The device that is called so; 0 if there is none. */
int64_t directory_device(const struct directory *directory, const char *name);

/* How many names outside its own a device owns. */
unsigned directory_owned(const struct directory *directory, int64_t principal);

struct endpoint *directory_find(const struct directory *directory, const char *name, uint16_t port);

unsigned directory_count(const struct directory *directory); /* endpoints */

/* The next endpoint after `endpoint`, the first for NULL; NULL at the end. */
struct endpoint *directory_next(const struct directory *directory, const struct endpoint *endpoint);

/* Makes the session the one that serves name:port. Returns NULL when out of memory. */
struct publication *directory_publish(struct directory *directory, struct session *session, const char *name,
                                      uint16_t port, const char *requested);

/* Takes a publication out and frees it. The endpoint goes when nobody serves it. */
void directory_withdraw(struct directory *directory, struct publication *publication);

/* Lets the standbys serve before this publication; no-op without a standby. */
void directory_demote(struct publication *publication);

/* A port of that name that nobody serves, from 49152 up; 0 if none is found soon. */
uint16_t directory_free_port(struct directory *directory, const char *name);

#endif
