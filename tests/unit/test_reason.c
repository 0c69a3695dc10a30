#include "relayd/reason.h"

#include "support.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <string.h>

static const struct {
    enum reason reason;
    const char *code, *sentence;
} rows[] = {
#define REASON(id, sentence) { REASON_##id, #id, sentence },
#include "relayd/reasons.def"
#undef REASON
};
#define NROWS (sizeof(rows) / sizeof(rows[0]))

Test(reason, each_row_has_its_code_and_sentence)
{
    cr_expect_eq(REASON_none, 0);
    cr_expect_str_eq(reason_code(REASON_none), "none");
    for (size_t i = 0; i < NROWS; i++) {
        cr_expect_eq(rows[i].reason, (enum reason)(i + 1));
        cr_expect_str_eq(reason_code(rows[i].reason), rows[i].code);
        cr_expect_str_eq(reason_sentence(rows[i].reason), rows[i].sentence);
    }
}

/* Codes are for programs, sentences for people: one line, no full stop, so that they can be joined. */
Test(reason, rows_are_fit_to_be_shown)
{
    for (size_t i = 0; i < NROWS; i++) {
        const char *code = rows[i].code, *sentence = rows[i].sentence;
        size_t len = strlen(sentence);
        cr_expect_eq(strspn(code, "abcdefghijklmnopqrstuvwxyz_"), strlen(code), "%s", code);
        cr_expect_gt(len, 0, "%s", code);
        cr_expect_lt(len, 100, "%s", code);
        cr_expect_neq(sentence[len - 1], '.', "%s", code);
        for (const char *p = sentence; *p != '\0'; p++)
            cr_expect(isprint((unsigned char)*p), "%s", code);
        for (size_t j = 0; j < i; j++) {
            cr_expect_str_neq(code, rows[j].code);
            cr_expect_str_neq(sentence, rows[j].sentence, "%s and %s", code, rows[j].code);
        }
    }
}

Test(reason, fail_tells_and_returns_minus_one)
{
    struct failure failure = { 0 };
    cr_expect_eq(fail(&failure, REASON_not_found, "no %s, %d times", "thing", 7), -1);
    cr_expect_eq(failure.reason, REASON_not_found);
    cr_expect_str_eq(failure.text, "no thing, 7 times");
}

Test(reason, a_long_text_is_cut)
{
    struct failure failure;
    memset(&failure, 'x', sizeof(failure));
    cr_expect_eq(fail(&failure, REASON_exists, "%s", repeat('a', 60000)), -1);
    cr_expect_eq(strlen(failure.text), sizeof(failure.text) - 1);
    cr_expect_eq(failure.reason, REASON_exists);
}

Test(reason, is_found_by_its_code)
{
    cr_expect_eq(reason_find("not_reachable"), REASON_not_reachable);
    cr_expect_eq(reason_find(reason_code(REASON_out_of_memory)), REASON_out_of_memory);
    cr_expect_eq(reason_find("none"), REASON_none);
    cr_expect_eq(reason_find(""), REASON_none);
    cr_expect_eq(reason_find("not_reachable "), REASON_none);
}
