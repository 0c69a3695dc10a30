#include "relayd/store.h"

#include "relayd/metrics.h"
#include "schema/migrations.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 2000 /* for another process that holds the database's lock */
#define IMPATIENCE_MS 100

static const char *const sql_texts[SQL_COUNT] = {
#define SQL(id, text) text,
#include "relayd/store_sql.def"
#undef SQL
};

struct query {
    struct store *store;
    sqlite3_stmt *statement; /* NULL: it could not be prepared */
};

struct store {
    sqlite3 *db;
    struct query queries[SQL_COUNT]; /* prepared at first use */
};

static atomic_bool healthy = true;
static atomic_bool readable = true;

bool store_healthy(void)
{
    return atomic_load(&healthy);
}

bool store_readable(void)
{
    return atomic_load(&readable);
}

void store_set_readable(bool now)
{
    atomic_store(&readable, now);
}

const char *store_version(void)
{
    return sqlite3_libversion();
}

const char *store_message(const struct store *store)
{
    return sqlite3_errmsg(store->db);
}

int store_failed(struct store *store, enum reason reason, struct failure *failure)
{
    if (reason == REASON_store_unavailable)
        atomic_store(&healthy, false);
    metrics_add(METRIC_store_errors, 1);
    return fail(failure, reason, "%s: %s", reason_sentence(reason), sqlite3_errmsg(store->db));
}

static int exec(struct store *store, const char *sql)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : -1;
}

static int64_t user_version(struct store *store)
{
    sqlite3_stmt *statement = NULL;
    int64_t version = -1;
    if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        version = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return version;
}

/* All missing migrations in one transaction. */
static int migrate(struct store *store, const char *path, struct failure *failure)
{
    char pragma[64];
    int64_t version = user_version(store);
    if (version < 0)
        return fail(failure, REASON_store_unavailable, "cannot read the database %s: %s", path,
                    sqlite3_errmsg(store->db));
    if (version > schema_version)
        return fail(failure, REASON_store_unavailable,
                    "the database %s was written by a newer relayd (schema %lld, this one knows %d): "
                    "start that relayd, or restore an older copy of the database",
                    path, (long long)version, schema_version);
    if (version == schema_version)
        return 0;
    if (exec(store, "BEGIN IMMEDIATE") != 0)
        goto fail;
    for (int64_t i = version; i < schema_version; i++)
        if (exec(store, schema_migrations[i]) != 0)
            goto fail;
    snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %d", schema_version);
    if (exec(store, pragma) == 0 && exec(store, "COMMIT") == 0)
        return 0;
fail:
    fail(failure, REASON_store_unavailable, "cannot bring the database %s from schema %lld to %d: %s", path,
         (long long)version, schema_version, sqlite3_errmsg(store->db));
    exec(store, "ROLLBACK");
    return -1;
}

struct store *store_open(const char *path, enum store_mode mode, struct failure *failure)
{
    static const char write_setup[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                                      "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;";
    static const char read_setup[] = "PRAGMA cache_size = -512; PRAGMA trusted_schema = OFF;";
    int flags = mode == STORE_WRITE ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;

    struct store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
        return NULL;
    }
    if (sqlite3_open_v2(path, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
        sqlite3_busy_timeout(store->db, mode == STORE_WRITE ? PATIENCE_MS : IMPATIENCE_MS) != SQLITE_OK ||
        exec(store, mode == STORE_WRITE ? write_setup : read_setup) != 0) {
        fail(failure, REASON_store_unavailable, "cannot open the database %s: %s", path,
             sqlite3_errmsg(store->db));
        goto fail;
    }
    if (mode == STORE_WRITE && migrate(store, path, failure) != 0)
        goto fail;
    return store;
fail:
    store_close(store);
    return NULL;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    for (int i = 0; i < SQL_COUNT; i++)
        sqlite3_finalize(store->queries[i].statement);
    sqlite3_close(store->db);
    free(store);
}

static struct query *start(struct store *store, enum sql sql, const char *format, va_list ap)
{
    struct query *query = &store->queries[sql];
    query->store = store;
    if (query->statement == NULL)
        sqlite3_prepare_v3(store->db, sql_texts[sql], -1, SQLITE_PREPARE_PERSISTENT, &query->statement, NULL);
    for (int i = 0; format[i] != '\0'; i++) {
        if (format[i] == 'i')
            sqlite3_bind_int64(query->statement, i + 1, va_arg(ap, int64_t));
        else
            sqlite3_bind_text(query->statement, i + 1, va_arg(ap, const char *), -1, SQLITE_STATIC);
    }
    return query;
}

struct query *store_query(struct store *store, enum sql sql, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    struct query *query = start(store, sql, format, ap);
    va_end(ap);
    return query;
}

int query_next(struct query *query)
{
    int rc = query->statement != NULL ? sqlite3_step(query->statement) : SQLITE_ERROR;
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : -1;
}

int64_t query_int(struct query *query, int column)
{
    return sqlite3_column_int64(query->statement, column);
}

const char *query_text(struct query *query, int column)
{
    const unsigned char *text = sqlite3_column_text(query->statement, column);
    return text != NULL ? (const char *)text : "";
}

void query_end(struct query *query)
{
    if (query->statement == NULL)
        return;
    sqlite3_reset(query->statement);
    sqlite3_clear_bindings(query->statement);
}

int store_run(struct store *store, enum sql sql, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    struct query *query = start(store, sql, format, ap);
    va_end(ap);
    int rc = query_next(query);
    int changes = sqlite3_changes(store->db);
    query_end(query);
    return rc < 0 ? -1 : changes;
}

int64_t store_value(struct store *store, enum sql sql, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    struct query *query = start(store, sql, format, ap);
    va_end(ap);
    int rc = query_next(query);
    int64_t value = rc > 0 ? query_int(query, 0) : rc;
    query_end(query);
    return value;
}

static json_t *column_value(sqlite3_stmt *statement, int column, const char *type)
{
    if (sqlite3_column_type(statement, column) == SQLITE_NULL)
        return json_null();
    if (strcmp(type, ":bool") == 0)
        return json_boolean(sqlite3_column_int(statement, column));
    if (strcmp(type, ":json") == 0)
        return json_loads((const char *)sqlite3_column_text(statement, column), 0, NULL);
    if (sqlite3_column_type(statement, column) == SQLITE_INTEGER)
        return json_integer(sqlite3_column_int64(statement, column));
    return json_string((const char *)sqlite3_column_text(statement, column));
}

static json_t *row_object(sqlite3_stmt *statement)
{
    json_t *row = json_object();
    for (int i = 0; i < sqlite3_column_count(statement); i++) {
        const char *column = sqlite3_column_name(statement, i);
        size_t len = strcspn(column, ":");
        char name[32];
        snprintf(name, sizeof(name), "%.*s", (int)len, column);
        json_object_set_new(row, name, column_value(statement, i, column + len));
    }
    return row;
}

json_t *store_rows(struct store *store, enum sql sql, const char *format, ...)
{
    int rc;
    va_list ap;
    va_start(ap, format);
    struct query *query = start(store, sql, format, ap);
    va_end(ap);
    json_t *rows = json_array();
    while ((rc = query_next(query)) > 0)
        json_array_append_new(rows, row_object(query->statement));
    query_end(query);
    if (rc == 0)
        return rows;
    json_decref(rows);
    return NULL;
}

void store_relax(struct store *store)
{
    sqlite3_db_release_memory(store->db);
}

int64_t store_last_id(struct store *store)
{
    return sqlite3_last_insert_rowid(store->db);
}

int store_begin(struct store *store)
{
    /* While it fails, whoever waits behind should not wait for each try. */
    sqlite3_busy_timeout(store->db, store_healthy() ? PATIENCE_MS : IMPATIENCE_MS);
    int rc = store_run(store, SQL_begin, "");
    if (rc < 0)
        atomic_store(&healthy, false);
    return rc < 0 ? -1 : 0;
}

/* That pragma cannot be set inside a transaction. */
int store_begin_aside(struct store *store)
{
    sqlite3_busy_timeout(store->db, 0);
    int rc = store_run(store, SQL_sync_later, "");
    return rc < 0 || store_run(store, SQL_begin, "") < 0 ? -1 : 0;
}

static void end_aside(struct store *store)
{
    store_run(store, SQL_sync_at_once, "");
    sqlite3_busy_timeout(store->db, PATIENCE_MS);
}

int store_commit_aside(struct store *store)
{
    if (store_run(store, SQL_commit, "") < 0)
        return -1;
    end_aside(store);
    return 0;
}

void store_rollback_aside(struct store *store)
{
    store_rollback(store);
    end_aside(store);
}

int store_commit(struct store *store)
{
    int rc = store_run(store, SQL_commit, "");
    atomic_store(&healthy, rc >= 0);
    return rc < 0 ? -1 : 0;
}

void store_rollback(struct store *store)
{
    if (!sqlite3_get_autocommit(store->db))
        store_run(store, SQL_rollback, "");
}
