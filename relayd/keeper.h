#ifndef RELAYD_KEEPER_H
#define RELAYD_KEEPER_H

#include "relayd/command.h"
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

/* Something a worker saw; texts are copied. Any thread; when too much waits it is dropped. */
void keeper_saw_login(int64_t principal_id, int64_t key_id, const char *address);
void keeper_saw_endpoint(int64_t tenant_id, int64_t principal_id, const char *name, uint16_t port);

#endif
