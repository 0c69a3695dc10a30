#include "relayd/reason.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *code;
    const char *sentence;
} reasons[] = {
    { "none", "nothing is wrong" },
#define REASON(id, sentence) { #id, sentence },
#include "relayd/reasons.def"
#undef REASON
};

const char *reason_code(enum reason reason)
{
    return reasons[reason].code;
}

const char *reason_sentence(enum reason reason)
{
    return reasons[reason].sentence;
}

enum reason reason_find(const char *code)
{
    for (size_t i = 1; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (strcmp(reasons[i].code, code) == 0)
            return (enum reason)i;
    return REASON_none;
}

int fail(struct failure *failure, enum reason reason, const char *fmt, ...)
{
    va_list ap;
    failure->reason = reason;
    va_start(ap, fmt);
    vsnprintf(failure->text, sizeof(failure->text), fmt, ap);
    va_end(ap);
    return -1;
}
