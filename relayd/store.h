#ifndef RELAYD_STORE_H
#define RELAYD_STORE_H

#include "relayd/reason.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The registry on disk. A store is one connection to the database and belongs to one thread: the
 * keeper has the one that writes, each worker one that only reads. Statements come from
 * store_sql.def and nowhere else.
 */
struct store;
struct query;

enum sql {
#define SQL(id, text) SQL_##id,
#include "relayd/store_sql.def"
#undef SQL
    SQL_COUNT
};

enum store_mode { STORE_WRITE, STORE_READ };

/* Opens the database. STORE_WRITE makes it or brings it to the newest schema. NULL with a reason. */
struct store *store_open(const char *path, enum store_mode mode, struct failure *failure);
void store_close(struct store *store);

const char *store_version(void);

/* Starts a query. The format has a letter for each parameter: i int64_t, t const char * (may be
 * NULL). Texts must live until query_end(). Never NULL; an error shows in query_next(). */
struct query *store_query(struct store *store, enum sql sql, const char *format, ...);

/* 1: a row is there; 0: no more; -1: error, see store_failed(). */
int query_next(struct query *query);
int64_t query_int(struct query *query, int column);      /* 0 for NULL */
const char *query_text(struct query *query, int column); /* "" for NULL; until the next call */
void query_end(struct query *query);

/* Runs a statement. Returns how many rows it changed, -1 on error. */
int store_run(struct store *store, enum sql sql, const char *format, ...);

/* The first column of the first row; 0 if there is no row, -1 on error. */
int64_t store_value(struct store *store, enum sql sql, const char *format, ...);

/* All rows as an array of objects by column name. A column called "x:bool" or "x:json" becomes
 * that type under the name x. NULL on error. */
json_t *store_rows(struct store *store, enum sql sql, const char *format, ...);

/* Frees the pages that SQLite keeps in case they are needed again: what a burst has read is held no longer.
 */
void store_relax(struct store *store);

int64_t store_last_id(struct store *store);

int store_begin(struct store *store);

/* The same for what can be tried again later: does not wait for whoever else holds the lock, does not wait
 * for the disk to have it, and says nothing of the store's health. If either fails, take it back. */
int store_begin_aside(struct store *store);
int store_commit_aside(struct store *store);
void store_rollback_aside(struct store *store);
int store_commit(struct store *store);
void store_rollback(struct store *store);

/* What SQLite said last. Until the next call. */
const char *store_message(const struct store *store);

/* Fills in failure with `reason` and what SQLite said last, and returns -1. */
int store_failed(struct store *store, enum reason reason, struct failure *failure);

/* Whether the last write, and the last look-up at a login, worked. Any thread. */
bool store_healthy(void);
bool store_readable(void);
void store_set_readable(bool readable);

#endif
