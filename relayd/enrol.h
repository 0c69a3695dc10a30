#ifndef RELAYD_ENROL_H
#define RELAYD_ENROL_H

#include "relayd/mailbox.h"
#include "relayd/name.h"
#include "relayd/pubkey.h"
#include "relayd/source.h"
#include "relayd/store.h"

#include <netinet/in.h>
#include <stdbool.h>

/* Enrolment: a machine whose key nobody has typed in logs in as `[TENANT+]enrol[+HINT]` and proves the key,
 * which is then kept as pending until an administrator approves it or it expires. How many are kept is
 * bounded for each tenant and each source (limits.h), and who asks much pushes out only what he himself asked
 * for. */

#define ENROL_USER "enrol" /* no tenant may be called so */
#define ENROL_HINT_SIZE 65

enum enrol_outcome {
    ENROL_IGNORED, /* there is no such tenant, or it knows the key by now */
    ENROL_KEPT,    /* the key waits from now on */
    ENROL_TOOK,    /* likewise, in the place of another */
    ENROL_AGAIN,   /* it waits longer */
    ENROL_FULL,    /* too many wait */
};

/* What a proven key asks for, on its way from a worker to the keeper. */
struct enrolment {
    struct mail mail;           /* first: MAIL_ENROL */
    char tenant[NAME_SIZE];     /* of which nobody knows whether it exists */
    char hint[ENROL_HINT_SIZE]; /* the peer's own words; printable ASCII */
    char address[INET6_ADDRSTRLEN];
    char source[SOURCE_TEXT_SIZE]; /* to whom it is laid */
    char type[48], fingerprint[64];
    enum enrol_outcome outcome;
    int64_t tenant_id;             /* once it is written; 0: there is no such tenant */
    struct enrolment *prev, *next; /* the keeper's */
    char blob[];
};

/* Does the user name ask for it? Then where, and with what hint. A hint is cut to size, and what is not
 * printable becomes '?'. */
bool enrol_parse(const char *user, char tenant[NAME_SIZE], char hint[ENROL_HINT_SIZE]);

/* NULL: out of memory; free() it. The source of an exempt address is the address itself. */
struct enrolment *enrol_new(const char *tenant, const char *hint, const struct pubkey *key,
                            const char *address, const struct source *source);

/* Writes it down, and deletes what has expired. Keeper's thread, in a transaction. 0 with the outcome, -1 if
 * the store failed. */
int enrol_write(struct store *store, struct enrolment *enrolment);

#endif
