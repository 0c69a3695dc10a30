#include "relayd/enrol.h"

#include "relayd/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The user name ---- */

/* What stands behind `enrol`: "", or the hint behind its '+'. NULL: it does not begin with that. */
static const char *behind_user(const char *text)
{
    size_t len = strlen(ENROL_USER);
    if (strncmp(text, ENROL_USER, len) != 0)
        return NULL;
    return text[len] == '+' ? text + len + 1 : text[len] == '\0' ? text + len : NULL;
}

static void copy_hint(const char *text, char hint[ENROL_HINT_SIZE])
{
    snprintf(hint, ENROL_HINT_SIZE, "%s", text);
    for (char *c = hint; *c != '\0'; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
}

bool enrol_parse(const char *user, char tenant[NAME_SIZE], char hint[ENROL_HINT_SIZE])
{
    const char *rest = behind_user(user), *plus = strchr(user, '+');
    snprintf(tenant, NAME_SIZE, "default");
    if (rest == NULL && plus != NULL && plus - user < NAME_SIZE) {
        snprintf(tenant, NAME_SIZE, "%.*s", (int)(plus - user), user);
        rest = name_valid_tenant(tenant) ? behind_user(plus + 1) : NULL;
    }
    if (rest != NULL)
        copy_hint(rest, hint);
    return rest != NULL;
}

struct enrolment *enrol_new(const char *tenant, const char *hint, const struct pubkey *key,
                            const char *address, const struct source *source)
{
    size_t size = strlen(key->blob) + 1;
    struct enrolment *enrolment = calloc(1, sizeof(*enrolment) + size);
    if (enrolment == NULL)
        return NULL;
    enrolment->mail.kind = MAIL_ENROL;
    snprintf(enrolment->tenant, sizeof(enrolment->tenant), "%s", tenant);
    snprintf(enrolment->hint, sizeof(enrolment->hint), "%s", hint);
    snprintf(enrolment->address, sizeof(enrolment->address), "%s", address);
    if (source->family != 0)
        source_text(source, enrolment->source);
    else
        snprintf(enrolment->source, sizeof(enrolment->source), "%s", address);
    snprintf(enrolment->type, sizeof(enrolment->type), "%s", key->type);
    snprintf(enrolment->fingerprint, sizeof(enrolment->fingerprint), "%s", key->fingerprint);
    memcpy(enrolment->blob, key->blob, size);
    return enrolment;
}

/* ---- The registry ---- */

/* When the tenant is full, a place comes from the source that has most of them, if it has more than this one
 * would: the key that it asked for last. -1: the store failed. */
static int make_room(struct store *store, int64_t tenant_id, const char *source, enum enrol_outcome *outcome)
{
    int64_t own = store_value(store, SQL_count_pending_of, "it", tenant_id, source);
    int64_t all = store_value(store, SQL_count_pending, "i", tenant_id);
    if (own < 0 || all < 0)
        return -1;
    *outcome = own < LIMIT_PENDING_OF_SOURCE ? ENROL_KEPT : ENROL_FULL;
    if (*outcome == ENROL_FULL || all < LIMIT_PENDING)
        return 0;
    int displaced = store_run(store, SQL_displace_pending, "ii", tenant_id, own + 1);
    *outcome = displaced > 0 ? ENROL_TOOK : ENROL_FULL;
    return displaced < 0 ? -1 : 0;
}

/* Returns the rows changed. */
static int prolong(struct store *store, const struct enrolment *enrolment)
{
    return store_run(store, SQL_prolong_pending, "itttti", enrolment->tenant_id, enrolment->blob,
                     enrolment->address, enrolment->source, enrolment->hint, (int64_t)LIMIT_PENDING_AGE);
}

static int add(struct store *store, const struct enrolment *enrolment)
{
    return store_run(store, SQL_add_pending, "itttttti", enrolment->tenant_id, enrolment->type,
                     enrolment->blob, enrolment->fingerprint, enrolment->address, enrolment->source,
                     enrolment->hint, (int64_t)LIMIT_PENDING_AGE);
}

static int add_if_room(struct store *store, struct enrolment *enrolment)
{
    if (make_room(store, enrolment->tenant_id, enrolment->source, &enrolment->outcome) != 0)
        return -1;
    return enrolment->outcome != ENROL_FULL ? add(store, enrolment) : 0;
}

int enrol_write(struct store *store, struct enrolment *enrolment)
{
    enrolment->outcome = ENROL_IGNORED;
    enrolment->tenant_id = store_value(store, SQL_find_tenant, "t", enrolment->tenant);
    if (enrolment->tenant_id <= 0)
        return (int)enrolment->tenant_id;
    if (store_run(store, SQL_expire_pending, "") < 0)
        return -1;
    int64_t registered = store_value(store, SQL_find_key, "it", enrolment->tenant_id, enrolment->blob);
    if (registered != 0)
        return registered > 0 ? 0 : -1;
    int known = prolong(store, enrolment);
    if (known == 0)
        return add_if_room(store, enrolment) < 0 ? -1 : 0;
    enrolment->outcome = ENROL_AGAIN;
    return known > 0 ? 0 : -1;
}
