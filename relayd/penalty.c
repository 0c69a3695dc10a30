#include "relayd/penalty.h"

#include "relayd/hash.h"

#include <stdlib.h>

static const struct {
    unsigned seconds;
    const char *text;
} costs[] = {
    [PENALTY_none] = { 0, "nothing" },
    [PENALTY_left_early] = { 1, "it left without an attempt to log in" },
    [PENALTY_enrol] = { 1, "it asked to be enrolled" },
    [PENALTY_bad_login] = { 5, "it failed to log in" },
    [PENALTY_too_slow] = { 10, "it did not log in in time" },
    [PENALTY_garbage] = { 10, "it spoke no SSH that relayd understands" },
};

/* One that owes. In the hash in the order of their last failures. */
struct debtor {
    struct source source;
    uint64_t owes_until; /* when all is paid */
    uint64_t held_until; /* the same, once it has been held back */
    uint64_t next;       /* when its next connection may come in, while it is slowed */
    UT_hash_handle hh;
};

struct presence {
    struct source source;
    unsigned sessions;
    UT_hash_handle hh;
};

struct penalties {
    size_t limit;
    struct debtor *debtors;
    struct presence *presences; /* as many as sessions, at most */
};

const char *penalty_text(enum penalty penalty)
{
    return costs[penalty].text;
}

struct penalties *penalty_new(size_t limit)
{
    struct penalties *penalties = calloc(1, sizeof(*penalties));
    if (penalties != NULL)
        penalties->limit = limit;
    return penalties;
}

static void drop_debtor(struct penalties *penalties, struct debtor *debtor)
{
    HASH_DEL(penalties->debtors, debtor);
    free(debtor);
}

void penalty_free(struct penalties *penalties)
{
    struct debtor *debtor, *next_debtor;
    struct presence *presence, *next_presence;
    if (penalties == NULL)
        return;
    HASH_ITER(hh, penalties->debtors, debtor, next_debtor)
        drop_debtor(penalties, debtor);
    HASH_ITER(hh, penalties->presences, presence, next_presence) {
        HASH_DEL(penalties->presences, presence);
        free(presence);
    }
    free(penalties);
}

static struct debtor *find_debtor(const struct penalties *penalties, const struct source *source)
{
    struct debtor *debtor;
    HASH_FIND(hh, penalties->debtors, source, sizeof(*source), debtor);
    return debtor;
}

static struct presence *find_presence(const struct penalties *penalties, const struct source *source)
{
    struct presence *presence;
    HASH_FIND(hh, penalties->presences, source, sizeof(*source), presence);
    return presence;
}

/* The source's, moved to the end or new; NULL when out of memory. */
static struct debtor *latest_debtor(struct penalties *penalties, const struct source *source)
{
    struct debtor *debtor = find_debtor(penalties, source);
    if (debtor != NULL) {
        HASH_DEL(penalties->debtors, debtor);
    } else {
        debtor = calloc(1, sizeof(*debtor));
        if (debtor == NULL)
            return NULL;
        debtor->source = *source;
        if (HASH_COUNT(penalties->debtors) >= penalties->limit)
            drop_debtor(penalties, penalties->debtors);
    }
    HASH_ADD(hh, penalties->debtors, source, sizeof(debtor->source), debtor);
    if (debtor->hh.tbl != NULL)
        return debtor;
    free(debtor);
    return NULL;
}

uint64_t penalty_fail(struct penalties *penalties, const struct source *source, enum penalty penalty,
                      uint64_t now)
{
    struct debtor *debtor = penalty != PENALTY_none ? latest_debtor(penalties, source) : NULL;
    if (debtor == NULL)
        return 0;
    bool was_held = now < debtor->held_until;
    if (debtor->owes_until < now)
        debtor->owes_until = now;
    debtor->owes_until += costs[penalty].seconds * PENALTY_SECOND;
    if (debtor->owes_until > now + PENALTY_MAX)
        debtor->owes_until = now + PENALTY_MAX;
    if (!was_held && debtor->owes_until < now + PENALTY_THRESHOLD)
        return 0;
    debtor->held_until = debtor->owes_until;
    return was_held ? 0 : debtor->held_until - now;
}

void penalty_login(struct penalties *penalties, const struct source *source)
{
    struct presence *presence = find_presence(penalties, source);
    if (presence == NULL) {
        presence = calloc(1, sizeof(*presence));
        if (presence == NULL)
            return;
        presence->source = *source;
        HASH_ADD(hh, penalties->presences, source, sizeof(presence->source), presence);
        if (presence->hh.tbl == NULL) {
            free(presence);
            return;
        }
    }
    presence->sessions++;
}

/* There is none if there was no memory for it at the login. */
void penalty_logout(struct penalties *penalties, const struct source *source)
{
    struct presence *presence = find_presence(penalties, source);
    if (presence == NULL || --presence->sessions > 0)
        return;
    HASH_DEL(penalties->presences, presence);
    free(presence);
}

enum penalty_verdict penalty_check(struct penalties *penalties, const struct source *source, uint64_t now,
                                   uint64_t *delay)
{
    struct debtor *debtor = find_debtor(penalties, source);
    *delay = 0;
    if (debtor == NULL)
        return PENALTY_PASS;
    if (debtor->owes_until <= now) {
        drop_debtor(penalties, debtor);
        return PENALTY_PASS;
    }
    if (debtor->held_until <= now)
        return PENALTY_PASS;
    const struct presence *presence = find_presence(penalties, source);
    if (presence == NULL)
        return PENALTY_REFUSE;
    if (debtor->next > now) {
        *delay = debtor->next - now;
        return PENALTY_DELAY;
    }
    if (debtor->next + PENALTY_BURST < now)
        debtor->next = now - PENALTY_BURST;
    debtor->next += PENALTY_SECOND / (PENALTY_RATE + presence->sessions);
    return PENALTY_PASS;
}

size_t penalty_count(const struct penalties *penalties, uint64_t now)
{
    size_t n = 0;
    for (const struct debtor *debtor = penalties->debtors; debtor != NULL; debtor = debtor->hh.next)
        n += now < debtor->held_until;
    return n;
}
