#ifndef RELAYD_GATE_H
#define RELAYD_GATE_H

#include "relayd/config.h"
#include "relayd/penalty.h"

/* Who may come in before login: the one table of penalties, which the main thread asks at each accept
 * and the workers tell how each connection ended, under a lock that is held for a look-up. All but
 * gate_start() and gate_stop() may be called on any thread. */

/* -1 with a reason. */
int gate_start(const struct config *config, struct failure *failure);
void gate_stop(void);

/* From now on as this configuration says; holds it. */
void gate_configure(const struct config *config);

/* Above how many connections that have not logged in accepting pauses. */
unsigned gate_max_logins(void);

/* Accepting has paused; has it within the last second? Then who only holds a place has to leave it. */
void gate_set_full(void);
bool gate_is_full(void);

/* To whom a connection is laid: nobody, if the address is exempt. */
struct source gate_source(const struct sockaddr *address);

/* May one more come in now? *delay: after how many microseconds to ask again. */
enum penalty_verdict gate_check(const struct source *source, uint64_t *delay);

/* One was refused. */
void gate_refused(void);

/* How it ended: without a login (and with one, of whoever logged in, when it comes and goes). */
void gate_fail(const struct source *source, enum penalty penalty);
void gate_login(const struct source *source);
void gate_logout(const struct source *source);

/* How many sources are held back, and connections that were refused since the start. */
void gate_count(size_t *held, uint64_t *refused);

#endif
