#include "schema/quote.h"

#include <stdlib.h>
#include <string.h>

#define BLANKS " \t"

/* Cuts off the word at the front: what is quoted moves together. *rest is what follows it. -1: a quote does
 * not end. */
static int cut_word(char *word, char **rest)
{
    char *to = word, *from = word, quote = '\0';
    for (; *from != '\0' && (quote != '\0' || strchr(BLANKS, *from) == NULL); from++) {
        if (*from == quote) {
            quote = '\0';
        } else if (quote == '\0' && (*from == '\'' || *from == '"')) {
            quote = *from;
        } else if (*from == '\\' && quote != '\'' && from[1] != '\0' &&
                   (quote == '\0' || from[1] == '"' || from[1] == '\\')) {
            *to++ = *++from;
        } else {
            *to++ = *from;
        }
    }
    *rest = *from != '\0' ? from + 1 : from;
    *to = '\0';
    return quote == '\0' ? 0 : -1;
}

char **quote_split(char *line, int *n, const char **error)
{
    char **words = malloc((strlen(line) / 2 + 1) * sizeof(*words));
    *n = 0;
    *error = "out of memory";
    if (words == NULL)
        return NULL;
    for (line += strspn(line, BLANKS); *line != '\0'; line += strspn(line, BLANKS)) {
        words[(*n)++] = line;
        if (cut_word(line, &line) != 0) {
            *error = "a quote does not end";
            free(words);
            return NULL;
        }
    }
    return words;
}

void quote_word(FILE *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,@+=%*?";
    if (*word != '\0' && word[strspn(word, plain)] == '\0') {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    }
    fputc('\'', out);
}
