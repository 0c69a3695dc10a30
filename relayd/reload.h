#ifndef RELAYD_RELOAD_H
#define RELAYD_RELOAD_H

#include "relayd/command.h"

/* The command `reload`: the keeper, which may wait for a disk, reads the configuration; each worker in
 * turn then takes it. Nothing changes unless all of it is good. */

struct relay;

/* The command line, for ever, and what relayd started with. Before the threads start. */
void reload_init(int argc, char *argv[], const struct relay *relay);

int reload_read(struct store *store, struct request *request);
int reload_apply(struct loop *loop, struct request *request);

#endif
