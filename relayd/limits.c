#include "relayd/limits.h"

#include <string.h>

enum unit { COUNT, BYTES, RATE, BYTE_RATE };

static const char *const unit_names[] = { "at a time", "bytes", "a second", "bytes a second" };

static const struct {
    const char *name;
    enum unit unit;
} rows[LIMIT_COUNT] = {
#define LIMIT(id, name, unit, tenant, principal, help) { name, unit },
#include "relayd/limits.def"
#undef LIMIT
};

const struct limits limits_of_tenant = { {
#define LIMIT(id, name, unit, tenant, principal, help) tenant,
#include "relayd/limits.def"
#undef LIMIT
} };

const struct limits limits_of_principal = { {
#define LIMIT(id, name, unit, tenant, principal, help) principal,
#include "relayd/limits.def"
#undef LIMIT
} };

const char *limit_name(enum limit limit)
{
    return rows[limit].name;
}

const char *limit_unit(enum limit limit)
{
    return unit_names[rows[limit].unit];
}

enum limit limit_find(const char *name)
{
    enum limit limit = 0;
    while (limit < LIMIT_COUNT && strcmp(rows[limit].name, name) != 0)
        limit++;
    return limit;
}

const char *limit_names(void)
{
    return
#define LIMIT(id, name, unit, tenant, principal, help) ", " name
#include "relayd/limits.def"
#undef LIMIT
        +2;
}

/* Reads digits, no more than LIMIT_MAX; returns what stands behind them, NULL if that is no number. */
static const char *parse_digits(const char *text, uint64_t *value)
{
    size_t digits = strspn(text, "0123456789");
    *value = 0;
    for (size_t i = 0; i < digits; i++)
        if ((*value = *value * 10 + (uint64_t)(text[i] - '0')) > LIMIT_MAX)
            return NULL;
    return digits > 0 ? text + digits : NULL;
}

/* The factor that a suffix stands for, 0 if it is none. */
static uint64_t suffix_factor(const char *suffix)
{
    static const char letters[] = "KkMmGgTt";
    const char *letter = strchr(letters, *suffix);
    if (*suffix == '\0')
        return 1;
    return letter != NULL && suffix[1] == '\0' ? UINT64_C(1) << (10 * ((letter - letters) / 2 + 1)) : 0;
}

/* At 0 bytes a second nothing would ever move again, not even a close. */
static bool is_valid(enum limit limit, uint64_t value)
{
    return value == LIMIT_NONE || (value <= LIMIT_MAX && (value > 0 || rows[limit].unit != BYTE_RATE));
}

const char *limit_parse(enum limit limit, const char *text, uint64_t *value)
{
    enum unit unit = rows[limit].unit;
    bool bytes = unit == BYTES || unit == BYTE_RATE;
    *value = LIMIT_NONE;
    if (strcmp(text, "none") == 0)
        return NULL;
    const char *rest = parse_digits(text, value);
    uint64_t factor = rest == NULL ? 0 : bytes ? suffix_factor(rest) : *rest == '\0';
    if (factor > 0 && *value <= LIMIT_MAX / factor && is_valid(limit, *value * factor)) {
        *value *= factor;
        return NULL;
    }
    return !bytes          ? "a whole number, none or default"
           : unit == BYTES ? "a size such as 65536, 512K, 16M or 1G, none or default"
                           : "bytes a second such as 65536, 512K or 16M, more than 0, or none or default";
}

void limits_set(struct limits *limits, const char *name, int64_t value)
{
    enum limit limit = limit_find(name);
    if (limit < LIMIT_COUNT && is_valid(limit, value == -1 ? LIMIT_NONE : (uint64_t)value))
        limits->value[limit] = value == -1 ? LIMIT_NONE : (uint64_t)value;
}
