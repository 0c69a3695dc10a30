#include "relayd/store.h"

#include "schema/migrations.h"
#include "support.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(store, .init = temp_make, .fini = temp_remove);

static struct failure failure;

static struct store *must_open(const char *path, enum store_mode mode)
{
    struct store *store = store_open(path, mode, &failure);
    cr_assert_not_null(store, "%s", failure.text);
    return store;
}

static struct store *fresh(void)
{
    return must_open(temp_path("relayd.db"), STORE_WRITE);
}

static void expect_not_opened(const char *path, enum store_mode mode, const char *about)
{
    memset(&failure, 0, sizeof(failure));
    cr_expect_null(store_open(path, mode, &failure));
    cr_expect_eq(failure.reason, REASON_store_unavailable);
    cr_expect_not_null(strstr(failure.text, path), "%s", failure.text);
    cr_expect_not_null(strstr(failure.text, about), "%s", failure.text);
}

/* ---- Past the store, straight to SQLite ---- */

static void raw(const char *path, const char *sql)
{
    sqlite3 *db;
    char *error = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, &error), SQLITE_OK, "%s: %s", sql, error);
    sqlite3_close(db);
}

/* The first column of all rows, a line each; good until the second call from now. */
static const char *raw_text(const char *path, const char *sql)
{
    static char texts[2][32768];
    static int turn;
    char *text = texts[turn++ % 2];
    size_t used = 0;
    sqlite3 *db;
    sqlite3_stmt *statement;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
    text[0] = '\0';
    while (sqlite3_step(statement) == SQLITE_ROW)
        used += (size_t)snprintf(text + used, sizeof(texts[0]) - used, "%s\n",
                                 sqlite3_column_text(statement, 0));
    cr_assert_lt(used, sizeof(texts[0]));
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return text;
}

static const char *schema_of(const char *path)
{
    return raw_text(path,
                    "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1");
}

static void expect_version(const char *path, int version)
{
    char text[16];
    snprintf(text, sizeof(text), "%d\n", version);
    cr_expect_str_eq(raw_text(path, "PRAGMA user_version"), text);
}

/* A database as the relayd of that schema left it. */
static const char *database_of_version(int version)
{
    const char *path = temp_path("old.db");
    char pragma[48];
    unlink(path);
    for (int i = 0; i < version; i++)
        raw(path, schema_migrations[i]);
    snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %d", version);
    raw(path, pragma);
    return path;
}

/* ---- Opening ---- */

Test(store, makes_a_database_of_the_newest_schema)
{
    struct store *store = fresh();
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "default"), 1);
    store_close(store);
    expect_version(temp_path("relayd.db"), schema_version);
    cr_expect_str_eq(raw_text(temp_path("relayd.db"), "PRAGMA journal_mode"), "wal\n");
}

Test(store, finds_again_what_was_there)
{
    struct store *store = fresh();
    cr_expect_eq(store_run(store, SQL_add_tenant, "t", "acme"), 1);
    store_close(store);
    store = fresh();
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "acme"), 2);
    store_close(store);
    store_close(NULL);
}

Test(store, a_newer_schema_is_left_alone)
{
    const char *path = database_of_version(schema_version);
    char pragma[48], older[24];
    snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %d", schema_version + 1);
    raw(path, pragma);
    snprintf(older, sizeof(older), "this one knows %d", schema_version);
    expect_not_opened(path, STORE_WRITE, "newer relayd");
    cr_expect_not_null(strstr(failure.text, older), "%s", failure.text);
    expect_version(path, schema_version + 1);
}

Test(store, what_cannot_be_opened)
{
    expect_not_opened(temp_path("no/such/directory.db"), STORE_WRITE, "cannot open");
    expect_not_opened(temp_path("."), STORE_WRITE, "cannot open");
    expect_not_opened(temp_file("text.db", repeat('x', 5000)), STORE_WRITE, "");
    struct stat st;
    cr_assert_eq(stat(temp_path("text.db"), &st), 0);
    cr_expect_eq(st.st_size, 5000, "what is no database was written to");
}

Test(store, a_reader_makes_and_changes_nothing)
{
    expect_not_opened(temp_path("relayd.db"), STORE_READ, "cannot open");
    cr_expect_neq(access(temp_path("relayd.db"), F_OK), 0);
    struct store *writer = fresh(), *reader = must_open(temp_path("relayd.db"), STORE_READ);
    cr_expect_eq(store_run(reader, SQL_add_tenant, "t", "acme"), -1);
    cr_expect_eq(store_value(reader, SQL_find_tenant, "t", "default"), 1);
    store_close(reader);
    store_close(writer);
}

/* ---- Migrations ---- */

Test(store, every_older_schema_becomes_the_newest)
{
    store_close(fresh());
    for (int version = 0; version < schema_version; version++) {
        const char *path = database_of_version(version);
        store_close(must_open(path, STORE_WRITE));
        expect_version(path, schema_version);
        cr_expect_str_eq(schema_of(path), schema_of(temp_path("relayd.db")), "from %d", version);
    }
}

Test(store, what_was_there_before_limits_stays_and_can_be_limited)
{
    const char *path = database_of_version(1);
    raw(path, "INSERT INTO tenants (name, created) VALUES ('acme', 1);"
              "INSERT INTO principals (tenant_id, kind, name, created) VALUES (2, 'client', 'alice', 1)");
    struct store *store = must_open(path, STORE_WRITE);
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "acme"), 2);
    cr_expect_eq(store_run(store, SQL_set_limit, "iiti", INT64_C(2), INT64_C(1), "bridges", INT64_C(5)), 1);
    cr_expect_eq(store_run(store, SQL_set_limit, "iiti", INT64_C(2), INT64_C(0), "bridges", INT64_C(6)), 1);
    cr_expect_eq(store_run(store, SQL_set_limit, "iiti", INT64_C(1), INT64_C(1), "bridges", INT64_C(5)), -1,
                 "she is not of that tenant");
    cr_expect_eq(store_run(store, SQL_remove_principal, "i", INT64_C(1)), 1);
    cr_expect_str_eq(raw_text(path, "SELECT value FROM limits"), "6\n", "hers are gone with her");
    cr_expect_eq(store_run(store, SQL_remove_tenant, "i", INT64_C(2)), 1);
    cr_expect_str_eq(raw_text(path, "SELECT value FROM limits"), "");
    store_close(store);
}

/* The name of the last table that the newest schema has and the one in the file has not; NULL: it has all. */
static const char *last_missing_table(const char *path)
{
    static char names[2048];
    const char *last = NULL, *there = schema_of(path);
    snprintf(names, sizeof(names), "%s",
             raw_text(temp_path("relayd.db"),
                      "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"));
    for (char *name, *rest = names; (name = strsep(&rest, "\n")) != NULL;) {
        char needle[80];
        snprintf(needle, sizeof(needle), "table %s ", name);
        if (*name != '\0' && strstr(there, needle) == NULL)
            last = name;
    }
    return last;
}

/* The name of the table that the pending migrations make last is taken: they fail near their end. */
Test(store, a_failed_migration_changes_nothing)
{
    store_close(fresh());
    for (int version = 0; version < schema_version; version++) {
        const char *path = database_of_version(version), *table = last_missing_table(path);
        char sql[128], before[32768];
        if (table == NULL)
            continue;
        snprintf(sql, sizeof(sql), "CREATE TABLE %s (in_the_way)", table);
        raw(path, sql);
        snprintf(before, sizeof(before), "%s", schema_of(path));
        expect_not_opened(path, STORE_WRITE, "cannot bring");
        cr_expect_not_null(strstr(failure.text, table), "%s", failure.text);
        expect_version(path, version);
        cr_expect_str_eq(schema_of(path), before, "from %d", version);

        snprintf(sql, sizeof(sql), "DROP TABLE %s", table);
        raw(path, sql);
        store_close(must_open(path, STORE_WRITE));
        expect_version(path, schema_version);
    }
}

/* ---- Statements ---- */

Test(store, every_statement_fits_the_schema)
{
    static const struct {
        const char *name, *text;
    } rows[] = {
#define SQL(id, text) { #id, text },
#include "relayd/store_sql.def"
#undef SQL
    };
    sqlite3 *db;
    store_close(fresh());
    cr_assert_eq(sqlite3_open(temp_path("relayd.db"), &db), SQLITE_OK);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sqlite3_stmt *statement = NULL;
        const char *tail = "";
        cr_expect_eq(sqlite3_prepare_v2(db, rows[i].text, -1, &statement, &tail), SQLITE_OK, "%s: %s",
                     rows[i].name, sqlite3_errmsg(db));
        cr_expect_str_eq(tail, "", "%s is more than one statement", rows[i].name);
        sqlite3_finalize(statement);
    }
    sqlite3_close(db);
}

Test(store, values_and_rows)
{
    struct store *store = fresh();
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "nobody"), 0);
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "x' OR '1'='1"), 0);
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", (const char *)NULL), 0);
    cr_expect_eq(store_value(store, SQL_get_tenant, "i", INT64_MAX), 0);
    cr_expect_eq(store_run(store, SQL_add_principal, "itti", INT64_C(1), "client", "alice", INT64_C(0)), 1);
    int64_t id = store_last_id(store);
    cr_expect_eq(store_run(store, SQL_rename_principal, "it", id, "bob"), 1);
    cr_expect_eq(store_run(store, SQL_rename_principal, "it", id + 1, "bob"), 0);

    struct query *query = store_query(store, SQL_get_principal, "ii", INT64_C(1), id);
    cr_assert_eq(query_next(query), 1);
    cr_expect_str_eq(query_text(query, 1), "bob");
    cr_expect_eq(query_int(query, 2), 0, "NULL reads as 0");
    cr_expect_str_eq(query_text(query, 2), "", "NULL reads as empty");
    cr_expect_eq(query_next(query), 0);
    query_end(query);
    store_close(store);
}

Test(store, a_query_left_early_can_be_asked_again)
{
    struct store *store = fresh();
    store_run(store, SQL_add_principal, "itti", INT64_C(1), "device", "a", INT64_C(0));
    store_run(store, SQL_add_principal, "itti", INT64_C(1), "device", "b", INT64_C(0));
    for (int i = 0; i < 3; i++) {
        struct query *query = store_query(store, SQL_get_devices, "i", INT64_C(1));
        cr_expect_eq(query_next(query), 1);
        query_end(query);
    }
    json_t *rows = store_rows(store, SQL_get_devices, "i", INT64_C(1));
    cr_expect_eq(json_array_size(rows), 2);
    json_decref(rows);
    store_close(store);
}

Test(store, columns_have_types)
{
    struct store *store = fresh();
    store_run(store, SQL_add_principal, "itti", INT64_C(1), "device", "raspi", INT64_C(0));
    int64_t id = store_last_id(store);
    store_run(store, SQL_add_key, "iitttti", INT64_C(1), id, "ssh-ed25519", "AAAA", "SHA256:x", "c",
              INT64_C(1));
    store_run(store, SQL_add_rule, "it", id, "web");
    json_t *rows = store_rows(store, SQL_list_principals, "itt", INT64_C(1), "device", (const char *)NULL);
    json_t *row = json_array_get(rows, 0);
    cr_assert_eq(json_array_size(rows), 1);
    cr_expect_str_eq(json_string_value(json_object_get(row, "name")), "raspi");
    cr_expect_eq(json_integer_value(json_object_get(row, "keys")), 1);
    cr_expect(json_is_null(json_object_get(row, "last_seen")));
    cr_expect_str_eq(json_string_value(json_array_get(json_object_get(row, "rules"), 0)), "web");
    json_decref(rows);
    rows = store_rows(store, SQL_list_keys, "it", INT64_C(1), "raspi");
    cr_expect(json_is_true(json_object_get(json_array_get(rows, 0), "home")));
    json_decref(rows);
    rows = store_rows(store, SQL_list_keys, "it", INT64_C(1), "nobody");
    cr_expect_eq(json_array_size(rows), 0);
    json_decref(rows);
    store_close(store);
}

/* ---- Transactions ---- */

Test(store, others_see_what_is_committed_and_that_alone)
{
    struct store *writer = fresh(), *reader = must_open(temp_path("relayd.db"), STORE_READ);
    cr_assert_eq(store_begin(writer), 0);
    cr_expect_eq(store_run(writer, SQL_add_tenant, "t", "acme"), 1);
    cr_expect_eq(store_value(reader, SQL_find_tenant, "t", "acme"), 0);
    cr_assert_eq(store_commit(writer), 0);
    cr_expect_eq(store_value(reader, SQL_find_tenant, "t", "acme"), 2);

    cr_assert_eq(store_begin(writer), 0);
    cr_expect_eq(store_run(writer, SQL_remove_tenant, "i", INT64_C(2)), 1);
    store_rollback(writer);
    store_rollback(writer);
    cr_expect_eq(store_value(writer, SQL_find_tenant, "t", "acme"), 2);
    store_close(reader);
    store_close(writer);
}

/* ---- When the disk fails ---- */

/* From now on no file grows beyond `bytes`: writing there fails as on a full disk. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(store, a_full_disk_refuses_changes_and_nothing_else)
{
    struct store *store = fresh();
    cr_expect(store_healthy());
    limit_files(1);
    cr_assert_eq(store_begin(store), 0);
    int rc = store_run(store, SQL_add_tenant, "t", "acme");
    if (rc >= 0)
        rc = store_commit(store);
    cr_assert_eq(rc, -1);
    cr_expect_eq(store_failed(store, REASON_store_unavailable, &failure), -1);
    cr_expect_eq(failure.reason, REASON_store_unavailable);
    cr_expect_null(strstr(failure.text, "not an error"), "%s", failure.text);
    cr_expect_not(store_healthy());
    store_rollback(store);
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "acme"), 0);
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "default"), 1);

    limit_files(RLIM_INFINITY);
    cr_assert_eq(store_begin(store), 0);
    cr_expect_eq(store_run(store, SQL_add_tenant, "t", "acme"), 1);
    cr_assert_eq(store_commit(store), 0);
    cr_expect(store_healthy());
    store_failed(store, REASON_store_unavailable, &failure);
    cr_expect_not(store_healthy());
    store_close(store);
    cr_expect_str_eq(raw_text(temp_path("relayd.db"), "PRAGMA integrity_check"), "ok\n");
}

Test(store, a_full_disk_at_the_first_start)
{
    limit_files(1000);
    memset(&failure, 0, sizeof(failure));
    cr_expect_null(store_open(temp_path("relayd.db"), STORE_WRITE, &failure));
    cr_expect_eq(failure.reason, REASON_store_unavailable);
    limit_files(RLIM_INFINITY);
    store_close(fresh());
    expect_version(temp_path("relayd.db"), schema_version);
}

static void expect_unreadable(const char *path)
{
    struct store *store = must_open(path, STORE_READ);
    cr_expect_eq(store_value(store, SQL_find_tenant, "t", "default"), -1);
    cr_expect_null(store_rows(store, SQL_list_tenants, ""));
    cr_expect_eq(store_run(store, SQL_add_tenant, "t", "acme"), -1);
    struct query *query = store_query(store, SQL_find_login, "tt", "AAAA", "pi");
    cr_expect_eq(query_next(query), -1);
    query_end(query);
    cr_expect_eq(store_failed(store, REASON_registry_unavailable, &failure), -1);
    cr_expect_eq(failure.reason, REASON_registry_unavailable);
    store_close(store);
    cr_expect(store_healthy(), "reading says nothing of writing");
}

Test(store, a_file_without_tables)
{
    expect_unreadable(temp_file("empty.db", ""));
}

Test(store, a_damaged_file)
{
    const char *path = temp_path("relayd.db"), *page;
    char pages[1024], *rest = pages;
    store_close(fresh());
    snprintf(pages, sizeof(pages), "%s", raw_text(path, "SELECT rootpage FROM sqlite_master"));
    FILE *file = fopen(path, "r+");
    while ((page = strsep(&rest, "\n")) != NULL && *page != '\0') { /* all but the schema's own */
        fseek(file, (strtol(page, NULL, 10) - 1) * 4096, SEEK_SET);
        for (int i = 0; i < 4096; i++)
            fputc(0xa5, file);
    }
    fclose(file);
    expect_unreadable(temp_path("relayd.db"));
}
