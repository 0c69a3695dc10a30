#ifndef RELAYD_REASON_H
#define RELAYD_REASON_H

/* Why something is refused or ended: one table for sessions, publishes, connects and commands. */
enum reason {
    REASON_none = 0,
#define REASON(id, sentence) REASON_##id,
#include "relayd/reasons.def"
#undef REASON
    REASON_COUNT
};

const char *reason_code(enum reason reason);     /* "not_owner" */
const char *reason_sentence(enum reason reason); /* what it means and what to do */
enum reason reason_find(const char *code);       /* REASON_none: there is none of that code */

/* A refusal with its particulars, on its way to a person. */
struct failure {
    enum reason reason; /* REASON_none: no failure */
    char text[512];
};

/* Fills in *failure and returns -1, so that a check can end with `return fail(...)`. */
int fail(struct failure *failure, enum reason reason, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
