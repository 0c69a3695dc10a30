#include "relayctl/print.h"

#include "schema/result.h"
#include "schema/text.h"

#include <stdio.h>
#include <stdlib.h>

void print_json(const json_t *value, size_t flags)
{
    json_dumpf(value, stdout, flags | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    putchar('\n');
}

int print_text(const char *text)
{
    int n = 0;
    for (; *text != '\0'; text++, n++)
        putchar(*text < 0x20 || *text > 0x7e ? '?' : *text);
    return n;
}

void print_result(json_t *result, int as_json)
{
    if (as_json) {
        print_json(result, JSON_INDENT(2));
        return;
    }
    char *text = result_render(result, 0);
    fputs(text != NULL ? text : "out of memory\n", stdout);
    free(text);
}

void print_error(json_t *error, int as_json)
{
    char *message = text_render(json_object_get(error, "message"));
    fprintf(stderr, "relayctl: %s", message != NULL ? message : "out of memory\n");
    free(message);
    if (as_json) {
        json_t *object = json_pack("{s:O}", "error", error);
        print_json(object, JSON_INDENT(2));
        json_decref(object);
    }
}
