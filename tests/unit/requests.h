#ifndef TESTS_UNIT_REQUESTS_H
#define TESTS_UNIT_REQUESTS_H

#include "relayd/command.h"
#include "relayd/store.h"

#include <criterion/criterion.h>

/* Commands of the registry, each run as the keeper runs it: authorised, in a transaction that is
 * committed if the store step takes it. The database is a new one in a temporary directory. */

/* Fit for .init and .fini of a suite. */
void requests_begin(void);
void requests_end(void);

extern struct store *registry; /* for looking behind the commands */

/* What the last run() left. */
extern struct outcome {
    struct failure failure;
    json_t *result; /* NULL if it was refused */
    bool changed;
    int64_t principal_id;
    bool new_name;
    char old_name[NAME_SIZE], endpoint[NAME_SIZE];
} last;

/* Runs a command in tenant default. The arguments are JSON with ' in place of ". Returns why it was
 * refused, REASON_none if it was not. */
enum reason run(const char *words, const char *args, ...) __attribute__((format(printf, 2, 3)));
enum reason run_in(const char *tenant, const char *words, const char *args, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, by an administrator of the tenant. */
enum reason run_self(const char *tenant, const char *words, const char *args, ...)
    __attribute__((format(printf, 3, 4)));

/* A text of the last result, "" if it is not there; and its status. */
const char *told(const char *key);
#define status() told("status")

/* Done with that status; refused for that reason, and nothing changed. */
#define expect_done(what, call)                                                                              \
    do {                                                                                                     \
        cr_assert_eq(call, REASON_none, "%s", last.failure.text);                                            \
        cr_expect_str_eq(status(), what);                                                                    \
    } while (0)
#define expect_refused(why, call)                                                                            \
    do {                                                                                                     \
        cr_expect_eq(call, why, "%s: %s", reason_code(last.failure.reason), last.failure.text);              \
        cr_expect_not(last.changed);                                                                         \
    } while (0)

/* The rules of a device or client as one text, "a b:80"; good until the next run(). */
const char *rules_of(const char *name);

/* Writes that principal `id` of a tenant has published name:80. Returns the rows changed. */
int seen_in(int64_t tenant, int64_t id, const char *name);

/* A device is seen to serve an endpoint at this time, as the keeper writes it down. */
void seen(const char *device, const char *name, int64_t port, int64_t time);

/* The device that the registry says has the name, "" if none. */
const char *owner_of(const char *name);

#endif
