#include "schema/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 24

static void render(FILE *out, const json_t *value, int indent);

static char plain(char c)
{
    return c < 0x20 || c > 0x7e ? '?' : c;
}

/* The text of one cell; free() it. */
static char *cell(const json_t *value)
{
    char *text = NULL;
    size_t i, size;
    json_t *item;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    if (json_is_string(value))
        fputs(json_string_value(value), out);
    else if (json_is_integer(value))
        fprintf(out, "%lld", (long long)json_integer_value(value));
    else if (json_is_boolean(value))
        fputs(json_is_true(value) ? "yes" : "no", out);
    else if (json_is_array(value) && json_array_size(value) == 0)
        fputs("none", out);
    else
        json_array_foreach(value, i, item)
            fprintf(out, "%s%s", i ? " " : "", json_string_value(item));
    if (value == NULL || json_is_null(value))
        fputc('-', out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    for (char *p = text; *p != '\0'; p++)
        *p = plain(*p);
    return text;
}

static void put_cell(FILE *out, const json_t *value, int width)
{
    char *text = cell(value);
    fprintf(out, "%-*s", width, text != NULL ? text : "?");
    free(text);
}

static int cell_width(const json_t *value)
{
    char *text = cell(value);
    int width = text != NULL ? (int)strlen(text) : 1;
    free(text);
    return width;
}

static void put_header(FILE *out, const char *name, int width)
{
    for (; *name != '\0'; name++, width--)
        fputc(*name == '_' ? ' ' : *name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : plain(*name), out);
    fprintf(out, "%*s", width > 0 ? width : 0, "");
}

static void render_table(FILE *out, json_t *rows, int indent)
{
    const char *names[COLUMNS_MAX], *name;
    int widths[COLUMNS_MAX], n = 0;
    size_t i;
    json_t *row, *value;
    json_object_foreach(json_array_get(rows, 0), name, value) {
        if (n == COLUMNS_MAX)
            break;
        names[n] = name;
        widths[n++] = (int)strlen(name);
    }
    json_array_foreach(rows, i, row)
        for (int c = 0; c < n; c++) {
            int width = cell_width(json_object_get(row, names[c]));
            widths[c] = width > widths[c] ? width : widths[c];
        }
    fprintf(out, "%*s", indent, "");
    for (int c = 0; c < n; c++) {
        put_header(out, names[c], c + 1 < n ? widths[c] + 2 : 0);
    }
    fputc('\n', out);
    json_array_foreach(rows, i, row) {
        fprintf(out, "%*s", indent, "");
        for (int c = 0; c < n; c++)
            put_cell(out, json_object_get(row, names[c]), c + 1 < n ? widths[c] + 2 : 0);
        fputc('\n', out);
    }
}

static void render_object(FILE *out, json_t *object, int indent)
{
    const char *name;
    json_t *value;
    int width = 0;
    json_object_foreach(object, name, value)
        width = (int)strlen(name) > width ? (int)strlen(name) : width;
    json_object_foreach(object, name, value) {
        bool nested = json_is_object(value) || json_is_object(json_array_get(value, 0));
        fprintf(out, "%*s", indent, "");
        for (const char *p = name; *p != '\0'; p++)
            fputc(plain(*p), out);
        fputc(':', out);
        if (nested) {
            fputc('\n', out);
            render(out, value, indent + 2);
        } else {
            fprintf(out, "%*s", width - (int)strlen(name) + 1, "");
            put_cell(out, value, 0);
            fputc('\n', out);
        }
    }
}

static void render(FILE *out, const json_t *value, int indent)
{
    if (json_is_array(value) && json_array_size(value) == 0)
        fprintf(out, "%*snone\n", indent, "");
    else if (json_is_array(value) && json_is_object(json_array_get(value, 0)))
        render_table(out, (json_t *)(uintptr_t)value, indent);
    else if (json_is_object(value))
        render_object(out, (json_t *)(uintptr_t)value, indent);
    else {
        put_cell(out, value, 0);
        fputc('\n', out);
    }
}

char *text_render(const json_t *value)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    render(out, value, 0);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
