#ifndef RELAYD_KEEPER_H
#define RELAYD_KEEPER_H

#include "relayd/command.h"
#include "relayd/enrol.h"
#include "relayd/name.h"

#include <stdint.h>

/* The keeper is the one thread that writes the registry: the store steps of requests, each durable
 * before it goes on, and what workers saw, written behind in batches. */

/* Makes or migrates the database at path and starts the thread. `route` is called on that thread
 * with each request whose store step is done and takes it over. -1 with a reason. */
int keeper_start(const char *path, void (*route)(struct request *request), struct failure *failure);

/* Writes what waits and ends the thread. Nothing may be posted any more. */
void keeper_stop(void);

/* Takes the request over. Any thread. */
void keeper_request(struct request *request);

/* How much waits for it. Any thread. */
size_t keeper_waiting(void);

/* A device or client that is here, or was until now; written behind, and dropped when too much waits. The
 * text is copied. Any thread. */
void keeper_saw_login(int64_t principal_id, int64_t key_id, const char *address);

/* An endpoint that is served; `published`: its row is made if there is none. -1: it was dropped, for
 * too much waits. The text is copied. Any thread. */
int keeper_saw_endpoint(int64_t tenant_id, int64_t principal_id, const char *name, uint16_t port,
                        bool published);

/* A key that asks to be approved: written behind. -1: too many are on their way, or the disk refuses. Takes
 * it over. Any thread. */
int keeper_enrol(struct enrolment *enrolment) __attribute__((warn_unused_result));

/* After a change of who may have a name: takes back what publishers that were faster have left, all
 * rows of the name but the owner's, or those of a principal at and under the name that it had. */
void keeper_forget_name(int64_t tenant_id, const char *name, int64_t owner);
void keeper_forget_history(int64_t tenant_id, int64_t principal_id, const char *name);

#endif
