#include "schema/quote.h"

#include "support.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const char *why;

/* The words as one text, with | behind each; NULL if the line was refused. Good until the next call. */
static const char *split(const char *line)
{
    static char text[1024];
    char copy[512];
    int n;
    snprintf(copy, sizeof(copy), "%s", line);
    why = NULL;
    char **words = quote_split(copy, &n, &why);
    if (words == NULL)
        return NULL;
    text[0] = '\0';
    for (int i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s|", words[i]);
    free(words);
    return text;
}

Test(quote, blanks)
{
    cr_expect_str_eq(split(""), "");
    cr_expect_str_eq(split(" \t "), "");
    cr_expect_str_eq(split("ls"), "ls|");
    cr_expect_str_eq(split("  list\tdevices  --json "), "list|devices|--json|");
    cr_expect_str_eq(split("whoami\nhelp"), "whoami\nhelp|", "one line, one command");
}

Test(quote, quotes)
{
    cr_expect_str_eq(split("'a b' \"c d\" e\\ f"), "a b|c d|e f|");
    cr_expect_str_eq(split("a'b'\"c\"d"), "abcd|");
    cr_expect_str_eq(split("'' \"\" x"), "||x|");
    cr_expect_str_eq(split("'it'\\''s'"), "it's|");
    cr_expect_str_eq(split("'a\"b' \"a'b\""), "a\"b|a'b|");
    cr_expect_str_eq(split("'a\\b' \"a\\b\" \"a\\\"b\" \"a\\\\b\""), "a\\b|a\\b|a\"b|a\\b|");
    cr_expect_str_eq(split("\\' \\\" \\\\"), "'|\"|\\|");
    cr_expect_str_eq(split("a\\"), "a\\|", "there is nothing to quote");
}

Test(quote, what_the_shell_would_expand_is_plain_text)
{
    cr_expect_str_eq(split("$HOME `id` * ~ # ;x"), "$HOME|`id`|*|~|#|;x|");
}

Test(quote, a_quote_that_does_not_end)
{
    static const char *const lines[] = { "'", "\"", "a 'b", "a \"b\\\"", "'a\\''", "\"a'" };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        cr_expect_null(split(lines[i]), "%s", lines[i]);
        cr_expect_str_eq(why, "a quote does not end");
    }
}

static char *quoted(const char *word)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    quote_word(out, word);
    fclose(out);
    return text;
}

Test(quote, plain_words_stay_plain)
{
    static const char *const words[] = { "raspi", "*.raspi:80,90-91", "SHA256:a/b+c=", "--name", "pi@home" };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        char *text = quoted(words[i]);
        cr_expect_str_eq(text, words[i]);
        free(text);
    }
}

/* Also for bytes that are no text. */
Test(quote, every_word_comes_back)
{
    uint64_t state = 1;
    for (int i = 0; i < 20000; i++) {
        static const char nasty[] = "'\"\\ \t\n-a$";
        char word[24];
        int n;
        size_t len = random_next(&state) % (sizeof(word) - 1);
        for (size_t j = 0; j < len; j++)
            word[j] = random_next(&state) % 4 != 0 ? nasty[random_next(&state) % (sizeof(nasty) - 1)]
                                                   : (char)(1 + random_next(&state) % 255);
        word[len] = '\0';
        char *line = quoted(word);
        char **words = quote_split(line, &n, &why);
        cr_assert_not_null(words);
        cr_assert_eq(n, 1);
        cr_assert_str_eq(words[0], word);
        free(words);
        free(line);
    }
}
