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

/* Commands of relayctl and of the SSH session channel. A request travels: the thread that it comes to,
 * the main one or a session's worker, checks it; the keeper runs the command's store step in a
 * transaction; the tenant's worker (or every worker in turn) runs its live step; and the first thread
 * answers. A command may lack either step. Whoever holds the request owns it.
 */
struct config;
struct exchange;
struct store;
struct loop;
struct session;

enum command_id {
#define COMMAND(id, words, arguments, roles, help) COMMAND_##id,
#include "schema/commands.def"
#undef COMMAND
    COMMAND_COUNT
};

/* Who may run a command; one may be several. */
enum command_role {
    ROLE_ADMIN = 1,  /* the relay's administrator, on the control socket */
    ROLE_TENANT = 2, /* a tenant's own, over SSH, in that tenant alone */
    ROLE_DEVICE = 4,
    ROLE_CLIENT = 8,
};

/* SCOPE_ALL: relayd itself, so all workers that tenants live on; SCOPE_LOOPS: and those that log in.
 * SCOPE_ANY: one tenant, or with COMMAND_ALL_TENANTS as its name all of them. */
enum command_scope { SCOPE_TENANT, SCOPE_ALL, SCOPE_LOOPS, SCOPE_ANY };

#define COMMAND_ALL_TENANTS "*"

/* How far a request has come, for who waits for it. It only moves forward. */
enum request_progress {
    REQUEST_QUEUED,    /* nothing has been done */
    REQUEST_CANCELLED, /* and nothing will be */
    REQUEST_TAKEN,     /* the keeper is at it */
    REQUEST_STORED,    /* what it changes is durable */
};

/* On whose behalf a request runs: a session, or the relay's administrator. */
struct actor {
    unsigned roles;    /* that it has, all of them */
    uint64_t session;  /* 0: none, and neither has it ids */
    int64_t tenant_id; /* the session's; the request can be about no other */
    int64_t principal_id;
    int64_t key_id;
    char principal[NAME_SIZE]; /* without a session "control", from "uid=0", or "signal" */
    char address[64];
};

struct request {
    struct mail mail; /* first */
    _Atomic enum request_progress progress;
    struct exchange *exchange;   /* that waits for it, NULL if nobody does; see there */
    struct request *prev, *next; /* of loop->requests, or waiting */
    const struct command *command;
    struct actor actor;
    char tenant[NAME_SIZE];
    int64_t tenant_id; /* filled in by the keeper; 0: of none, or of all */
    json_t *args;      /* owned */
    json_t *result;    /* owned */
    struct failure failure;
    unsigned next_worker; /* SCOPE_ALL, SCOPE_LOOPS: how far it has come */

    /* What a store step changed, for the live step. */
    bool changed;
    int64_t principal_id; /* whom it concerns; 0: the whole tenant */
    int64_t *batch;       /* or in place of that, for each line of a batch, 0 if it changed nothing; owned */
    size_t nbatch, applied;   /* how many lines, and up to which one the sessions have followed */
    bool new_name;            /* it has, or some have, a name that was not theirs */
    char old_name[NAME_SIZE]; /* the one that it had; "" if none */
    char endpoint[NAME_SIZE]; /* a name whose owner changed; "" if none */
    int64_t key_id;           /* a key that is no more; 0: none */
    unsigned closed_sessions, closed_bridges;

    const struct config *config; /* held: what `reload` has read */
};

/* Both return 0, or -1 with request->failure set. A live step that would take too long for one pass returns
 * 1, and is called again in a later one. */
typedef int command_store_step(struct store *store, struct request *request);
typedef int command_live_step(struct loop *loop, struct request *request);

/* Runs at once on the tenant's worker; returns the result to print, NULL with *failure set. */
typedef json_t *command_session_step(struct session *session, const json_t *args, struct failure *failure);

/* The result for people, who have so many columns; the caller frees it, NULL when out of memory. */
typedef char *command_text(const json_t *result, unsigned columns);

struct command_steps {
    enum command_scope scope;
    bool changes; /* the store step may change the registry: it runs in a transaction */
    command_store_step *store;
    command_live_step *live;
    command_session_step *session;
    command_text *text; /* over SSH; NULL: the usual tables */
};

struct command {
    const char *words;
    const char *arguments;
    unsigned roles;
    const char *help;
    const struct command_steps *steps;
};

/* The one place where a command is authorised: finds it, checks the role, then the arguments.
 * NULL with a reason (unknown_command, bad_argument) otherwise; a command that none of the roles may
 * run is as unknown as one that does not exist. */
const struct command *command_authorise(const char *words, unsigned roles, const json_t *args,
                                        struct failure *failure);

/* The command that the first words name, and how many those are; NULL if none for the roles. */
const struct command *command_in_words(int n, char *const words[], unsigned roles, int *used);

/* Row i of the table; NULL behind the last. */
const struct command *command_at(unsigned i);

/* A request of an actor with these roles; tenant: its name, which an argument of the relay's administrator
 * may overrule. NULL when out of memory. */
struct request *request_new(const struct command *command, unsigned roles, const char *tenant, json_t *args);
void request_free(struct request *request);

/* The command as it might have been typed: keys as their fingerprints, what is long left out, and nothing
 * that could pass for more than it is. */
#define COMMAND_TEXT_SIZE 400
void command_describe(const struct request *request, char text[COMMAND_TEXT_SIZE]);

/* Whether its store step has changed anything. */
bool command_had_effect(const struct request *request);

/* Puts it in the audit trail, unless it has changed nothing. Any thread. */
void command_record(const struct request *request);

/* An argument as text, NULL if it was not given. Borrowed. */
const char *request_arg(const struct request *request, const char *name);

/* Was that flag given? */
bool request_flag(const struct request *request, const char *name);

/* Is it the relay's administrator's, who knows all tenants? */
bool request_by_relay(const struct request *request);

/* For store steps. The result, taken over; the one of a change, which returns 0; and whom the change
 * concerns (0: the whole tenant), for the live step. */
void request_result(struct request *request, json_t *result);
int request_done(struct request *request, const char *status, const char *name);
void request_changed(struct request *request, int64_t principal_id);

/* Makes room for a batch of n lines. -1 with failure set. */
int request_batch(struct request *request, size_t n);

#endif
