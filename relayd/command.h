#ifndef RELAYD_COMMAND_H
#define RELAYD_COMMAND_H

#include "relayd/mailbox.h"
#include "relayd/name.h"
#include "relayd/reason.h"
#include "schema/usage.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Commands of relayctl and of the SSH session channel. A request travels: the main thread checks
 * it, the keeper runs the command's store step in a transaction, the tenant's worker (or every
 * worker in turn) runs its live step, and the main thread answers. A command may lack either step.
 * Whoever holds the request owns it.
 */
struct config;
struct store;
struct loop;
struct session;

enum command_id {
#define COMMAND(id, words, arguments, roles, help) COMMAND_##id,
#include "schema/commands.def"
#undef COMMAND
    COMMAND_COUNT
};

enum command_role { ROLE_ADMIN = 1, ROLE_DEVICE = 2, ROLE_CLIENT = 4 };

enum command_scope { SCOPE_TENANT, SCOPE_ALL };

/* How far a request has come, for who waits for it. It only moves forward. */
enum request_progress {
    REQUEST_QUEUED,    /* nothing has been done */
    REQUEST_CANCELLED, /* and nothing will be */
    REQUEST_TAKEN,     /* the keeper is at it */
    REQUEST_STORED,    /* what it changes is durable */
};

struct request {
    struct mail mail; /* first */
    _Atomic enum request_progress progress;
    uint64_t serial; /* the control connection's slot for the answer */
    const struct command *command;
    char tenant[NAME_SIZE];
    int64_t tenant_id; /* filled in by the keeper for SCOPE_TENANT */
    json_t *args;      /* owned */
    json_t *result;    /* owned */
    struct failure failure;
    unsigned next_worker; /* SCOPE_ALL: how far it has come */

    /* What a store step changed, for the live step. */
    bool changed;
    int64_t principal_id;     /* whom it concerns; 0: the whole tenant */
    bool new_name;            /* that principal has a name that it had not */
    char old_name[NAME_SIZE]; /* the one that it had; "" if none */
    char endpoint[NAME_SIZE]; /* a name whose owner changed; "" if none */
    unsigned closed_sessions, closed_bridges;

    const struct config *config; /* held: what `reload` has read */
};

/* Both return 0, or -1 with request->failure set. */
typedef int command_store_step(struct store *store, struct request *request);
typedef int command_live_step(struct loop *loop, struct request *request);

/* Runs at once on the tenant's worker; returns the result to print, NULL with *failure set. */
typedef json_t *command_session_step(struct session *session, const json_t *args, struct failure *failure);

struct command_steps {
    enum command_scope scope;
    bool changes; /* the store step may change the registry: it runs in a transaction */
    command_store_step *store;
    command_live_step *live;
    command_session_step *session;
};

struct command {
    const char *words;
    const char *arguments;
    unsigned roles;
    const char *help;
    const struct command_steps *steps;
};

/* The one place where a command is authorised: finds it, checks the role, then the arguments.
 * NULL with a reason (unknown_command, bad_argument) otherwise; a command that the role may not
 * run is as unknown as one that does not exist. */
const struct command *command_authorise(const char *words, unsigned role, const json_t *args,
                                        struct failure *failure);

/* The command whose words begin the line, and where its arguments begin; NULL if none for the role. */
const struct command *command_in_line(char *line, unsigned role, char **rest);

/* Row i of the table; NULL behind the last. */
const struct command *command_at(unsigned i);

struct request *request_new(const struct command *command, const char *tenant, json_t *args);
void request_free(struct request *request);

/* An argument as text, NULL if it was not given. Borrowed. */
const char *request_arg(const struct request *request, const char *name);

/* For store steps. The result, taken over; the one of a change, which returns 0; and whom the change
 * concerns (0: the whole tenant), for the live step. */
void request_result(struct request *request, json_t *result);
int request_done(struct request *request, const char *status, const char *name);
void request_changed(struct request *request, int64_t principal_id);

#endif
