#ifndef RELAYD_ENTRY_H
#define RELAYD_ENTRY_H

#include "relayd/command.h"
#include "relayd/store.h"

/* What the store steps of commands have in common: looking principals up, and how they fail. Keeper's
 * thread. What returns an int sets request->failure when that is -1. */

enum entry_kind { ENTRY_DEVICE, ENTRY_CLIENT };

extern const char *const entry_kinds[]; /* their names */

/* A principal as the database has it. */
struct entry {
    int64_t id;
    enum entry_kind kind;
    int64_t expires; /* 0: never */
    bool admin;      /* of its tenant */
};

/* 1: found; 0: there is none; -1. */
int entry_find(struct store *store, struct request *request, const char *name, struct entry *entry);

/* Like entry_find(), for a name as the user wrote it; its absence is a failure. *name is the canonical
 * one then. 0 or -1. */
int entry_get(struct store *store, struct request *request, const char *raw, struct entry *entry,
              char name[NAME_SIZE]);

/* May it have the name? A device owns its name and all below it, so nobody else may have any of that. id: its
 * own, 0 if it is new. 0 or -1. */
int entry_check_name(struct store *store, struct request *request, const char *name, int64_t id);

/* May there be one more? Only what a tenant's administrators register is bounded. `count` counts what there
 * is of `id`. 0 or -1. */
int entry_check_room(struct store *store, struct request *request, enum sql count, int64_t id, int64_t max);

/* Its rules, an array of texts. */
json_t *entry_rules(struct store *store, int64_t id);

/* Ends the query: the text of its first column, "" if there is no row. 0 or -1. */
int entry_text(struct store *store, struct request *request, struct query *query, char out[NAME_SIZE]);

/* These return -1. The name, or one below it, belongs to that device; the store failed; no memory is left;
 * policy has made no rule of a text, as errno tells. */
int entry_name_taken(struct request *request, const char *name, const char *device);
int entry_failed(struct store *store, struct request *request);
int entry_no_memory(struct request *request);
int entry_no_rule(struct request *request, const char *text);

#endif
