#include "schema/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COLUMNS_MAX 24
#define WIDTH_MIN 20 /* a narrower screen gets lines of that */
#define WIDTH_MAX 10000
#define LAST_MIN 24  /* columns that the last one of a table needs for being wrapped */
#define VALUE_MIN 16 /* columns that a value needs beside its name; with less it stands below */
#define CUT_MIN 8    /* columns that are left at least of one that is cut */
#define ELLIPSIS "\xe2\x80\xa6"

/* Where it goes, and how wide that is; 0: as wide as it takes. */
struct page {
    FILE *out;
    int width;
    bool cut; /* the rows of a table stay one line each */
};

static void render(const struct page *page, const json_t *value, int indent);

static char plain(char c)
{
    return c < 0x20 || c > 0x7e ? '?' : c;
}

/* ---- What a value means ---- */

enum unit { PLAIN, BYTES, SECONDS, EXPIRY };

static const struct {
    const char *name;
    enum unit unit;
} units[] = {
    { "bytes_up", BYTES }, { "bytes_down", BYTES }, { "up_rate", BYTES },   { "down_rate", BYTES },
    { "bytes-up", BYTES }, { "bytes-down", BYTES }, { "log_bytes", BYTES }, { "heap_used", BYTES },
    { "held", BYTES },     { "uptime", SECONDS },   { "expires", EXPIRY },
};

/* That of the object's value; where it tells of a limit, the limit's. */
static enum unit unit_of(const json_t *object, const char *name)
{
    const char *limit = json_string_value(json_object_get(object, "limit"));
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(units[i].name, limit != NULL ? limit : name) == 0)
            return units[i].unit;
    return PLAIN;
}

/* "12.3K"; "64M" is exact. */
static void put_bytes(FILE *out, json_int_t bytes)
{
    static const char suffixes[] = " KMGT";
    double value = (double)bytes;
    size_t i = 0;
    for (; value >= 1024 && suffixes[i + 1] != '\0'; i++)
        value /= 1024;
    if (i == 0)
        fprintf(out, "%lld", (long long)bytes);
    else
        fprintf(out, "%.*f%c", value == (double)(json_int_t)value ? 0 : 1, value, suffixes[i]);
}

/* "3 h 2 min": the two largest units. */
static void put_seconds(FILE *out, json_int_t seconds)
{
    static const struct {
        const char *name;
        json_int_t seconds;
    } parts[] = { { "d", 86400 }, { "h", 3600 }, { "min", 60 }, { "s", 1 } };
    size_t i = 0;
    while (i < 3 && seconds < parts[i].seconds)
        i++;
    fprintf(out, "%lld %s", (long long)(seconds / parts[i].seconds), parts[i].name);
    seconds %= parts[i].seconds;
    if (i < 3 && seconds >= parts[i + 1].seconds)
        fprintf(out, " %lld %s", (long long)(seconds / parts[i + 1].seconds), parts[i + 1].name);
}

static void put_number(FILE *out, json_int_t number, enum unit unit)
{
    if (unit == BYTES)
        put_bytes(out, number);
    else if (unit == SECONDS)
        put_seconds(out, number);
    else
        fprintf(out, "%lld", (long long)number);
}

/* A time as relayd writes them, in UTC, sorts as text. What it could not have written is left alone. */
static bool has_passed(const char *time_text)
{
    char text[sizeof("2026-01-31T18:00:00Z")] = "";
    time_t now = time(NULL);
    struct tm utc;
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    return strlen(time_text) == sizeof(text) - 1 && strcmp(time_text, text) <= 0;
}

static void put_string(FILE *out, const char *text, enum unit unit)
{
    fputs(text, out);
    if (unit == EXPIRY && has_passed(text))
        fputs(" (expired)", out);
}

/* ---- Cells ---- */

/* The text of one cell; free() it. */
static char *cell(const json_t *value, enum unit unit)
{
    char *text = NULL;
    size_t i, size;
    json_t *item;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    if (json_is_string(value))
        put_string(out, json_string_value(value), unit);
    else if (json_is_integer(value))
        put_number(out, json_integer_value(value), unit);
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

char *text_member(const json_t *object, const char *name)
{
    return cell(json_object_get(object, name), unit_of(object, name));
}

/* Text that begins in column `at`; what does not fit goes on below, in the same column, broken at a blank if
 * there is one. */
static void put_wrapped(const struct page *page, const char *text, int at)
{
    int room = page->width - at > WIDTH_MIN / 2 ? page->width - at : WIDTH_MIN / 2;
    while (page->width > 0 && strnlen(text, (size_t)room + 1) > (size_t)room) {
        int len = room;
        while (len > 0 && text[len] != ' ')
            len--;
        bool blank = len > 0;
        fprintf(page->out, "%.*s\n%*s", blank ? len : room, text, at, "");
        text += blank ? len + 1 : room;
    }
    fputs(text, page->out);
}

static void put_member(const struct page *page, const json_t *object, const char *name, int at)
{
    char *text = text_member(object, name);
    put_wrapped(page, text != NULL ? text : "?", at);
    free(text);
}

static void put_padded(FILE *out, const json_t *object, const char *name, int width)
{
    char *text = text_member(object, name);
    fprintf(out, "%-*s", width, text != NULL ? text : "?");
    free(text);
}

static int member_width(const json_t *object, const char *name)
{
    char *text = text_member(object, name);
    int width = text != NULL ? (int)strlen(text) : 1;
    free(text);
    return width;
}

/* What stands above a column; free() it. */
static char *title(const char *name)
{
    char *text = strdup(name);
    for (char *p = text; p != NULL && *p != '\0'; p++)
        *p = *p == '_' ? ' ' : *p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : plain(*p);
    return text;
}

static void put_header(FILE *out, const char *name, int width)
{
    char *text = title(name);
    fprintf(out, "%-*s", width, text != NULL ? text : "?");
    free(text);
}

struct columns {
    const char *name[COLUMNS_MAX];
    int width[COLUMNS_MAX]; /* with the gap behind it */
    int n;
    int last; /* where the last one begins */
};

static void measure(json_t *rows, int indent, struct columns *columns)
{
    const char *name;
    size_t i;
    json_t *row, *value;
    columns->n = 0;
    columns->last = indent;
    json_object_foreach(json_array_get(rows, 0), name, value) {
        if (columns->n == COLUMNS_MAX)
            break;
        columns->name[columns->n] = name;
        columns->width[columns->n++] = (int)strlen(name) + 2;
    }
    json_array_foreach(rows, i, row)
        for (int c = 0; c < columns->n; c++) {
            int width = member_width(row, columns->name[c]) + 2;
            columns->width[c] = width > columns->width[c] ? width : columns->width[c];
        }
    for (int c = 0; c + 1 < columns->n; c++)
        columns->last += columns->width[c];
}

/* Only the last column is wrapped, and only if that leaves it readable. */
static bool fits(const struct page *page, const struct columns *columns)
{
    int last = columns->n > 0 ? columns->width[columns->n - 1] - 2 : 0;
    return page->width == 0 || page->width - columns->last >= (last < LAST_MIN ? last : LAST_MIN);
}

static void render_columns(const struct page *page, json_t *rows, const struct columns *columns, int indent)
{
    size_t i;
    json_t *row;
    fprintf(page->out, "%*s", indent, "");
    for (int c = 0; c < columns->n; c++)
        put_header(page->out, columns->name[c], c + 1 < columns->n ? columns->width[c] : 0);
    fputc('\n', page->out);
    json_array_foreach(rows, i, row) {
        fprintf(page->out, "%*s", indent, "");
        for (int c = 0; c + 1 < columns->n; c++)
            put_padded(page->out, row, columns->name[c], columns->width[c]);
        if (columns->n > 0)
            put_member(page, row, columns->name[columns->n - 1], columns->last);
        fputc('\n', page->out);
    }
}

/* ---- Tables whose columns are cut ---- */

/* A number that lacks its end would be another one: only texts may be cut, and no header is. */
static int width_min(json_t *rows, const char *name, int width)
{
    size_t i;
    json_t *row;
    int header = (int)strlen(name) > CUT_MIN ? (int)strlen(name) : CUT_MIN;
    bool number = unit_of(NULL, name) == BYTES || unit_of(NULL, name) == SECONDS;
    json_array_foreach(rows, i, row)
        number = number || json_is_integer(json_object_get(row, name));
    return number || width < header + 2 ? width : header + 2;
}

/* How many columns there is room for with these widths, with the sign that there are more. */
static int count_shown(const struct page *page, const struct columns *columns, const int width[COLUMNS_MAX],
                       int indent)
{
    int used = indent, n = 0;
    while (n < columns->n && used + width[n] - (n + 1 == columns->n ? 2 : 0) <= page->width)
        used += width[n++];
    return n;
}

/* As many columns as can be, then each as wide as can be: takes from the widest until they fit. Returns how
 * many. */
static int shrink(const struct page *page, json_t *rows, struct columns *columns, int indent)
{
    int min[COLUMNS_MAX] = { 0 };
    for (int c = 0; c < columns->n; c++)
        min[c] = width_min(rows, columns->name[c], columns->width[c]);
    int shown = count_shown(page, columns, min, indent);
    while (count_shown(page, columns, columns->width, indent) < shown) {
        int widest = -1;
        for (int c = 0; c < shown; c++)
            if (columns->width[c] > min[c] && (widest < 0 || columns->width[c] > columns->width[widest]))
                widest = c;
        columns->width[widest]--;
    }
    return shown;
}

static void put_cut(FILE *out, const char *text, int width)
{
    int len = (int)strlen(text);
    if (len > width)
        fprintf(out, "%.*s" ELLIPSIS, width - 1, text);
    else
        fprintf(out, "%-*s", width, text);
}

/* One line of it; of the header if row is NULL. */
static void put_cut_row(const struct page *page, const json_t *row, const struct columns *columns, int shown,
                        int indent)
{
    fprintf(page->out, "%*s", indent, "");
    for (int c = 0; c < shown; c++) {
        char *text = row != NULL ? text_member(row, columns->name[c]) : title(columns->name[c]);
        put_cut(page->out, text != NULL ? text : "?", columns->width[c] - 2);
        fputs(c + 1 < shown ? "  " : "", page->out);
        free(text);
    }
    fputs(shown < columns->n ? " " ELLIPSIS "\n" : "\n", page->out);
}

static void render_cut(const struct page *page, json_t *rows, struct columns *columns, int indent)
{
    size_t i;
    json_t *row;
    int shown = shrink(page, rows, columns, indent);
    put_cut_row(page, NULL, columns, shown, indent);
    json_array_foreach(rows, i, row)
        put_cut_row(page, row, columns, shown, indent);
}

/* ---- Everything else ---- */

static void render_object(const struct page *page, json_t *object, int indent)
{
    const char *name;
    json_t *value;
    int width = 0;
    json_object_foreach(object, name, value)
        width = (int)strlen(name) > width ? (int)strlen(name) : width;
    int column = indent + width + 2;
    bool below = page->width > 0 && page->width - column < VALUE_MIN;
    json_object_foreach(object, name, value) {
        bool nested = json_is_object(value) || json_is_object(json_array_get(value, 0));
        fprintf(page->out, "%*s", indent, "");
        for (const char *p = name; *p != '\0'; p++)
            fputc(plain(*p), page->out);
        fputc(':', page->out);
        if (nested) {
            fputc('\n', page->out);
            render(page, value, indent + 2);
        } else {
            if (below)
                fprintf(page->out, "\n%*s", indent + 2, "");
            else
                fprintf(page->out, "%*s", width - (int)strlen(name) + 1, "");
            put_member(page, object, name, below ? indent + 2 : column);
            fputc('\n', page->out);
        }
    }
}

/* On a screen that is too narrow for a table each row is a block of lines. */
static void render_table(const struct page *page, json_t *rows, int indent)
{
    struct columns columns;
    size_t i;
    json_t *row;
    measure(rows, indent, &columns);
    if (page->cut) {
        render_cut(page, rows, &columns, indent);
        return;
    }
    if (fits(page, &columns)) {
        render_columns(page, rows, &columns, indent);
        return;
    }
    json_array_foreach(rows, i, row) {
        if (i > 0)
            fputc('\n', page->out);
        render_object(page, row, indent);
    }
}

static void render(const struct page *page, const json_t *value, int indent)
{
    if (json_is_array(value) && json_array_size(value) == 0)
        fprintf(page->out, "%*snone\n", indent, "");
    else if (json_is_array(value) && json_is_object(json_array_get(value, 0)))
        render_table(page, (json_t *)(uintptr_t)value, indent);
    else if (json_is_object(value))
        render_object(page, (json_t *)(uintptr_t)value, indent);
    else {
        char *text = cell(value, PLAIN);
        put_wrapped(page, text != NULL ? text : "?", indent);
        fputc('\n', page->out);
        free(text);
    }
}

static int columns_of(unsigned width)
{
    return width == 0 ? 0 : width < WIDTH_MIN ? WIDTH_MIN : width > WIDTH_MAX ? WIDTH_MAX : (int)width;
}

static struct page page_open(char **text, size_t *size, unsigned width)
{
    *text = NULL;
    return (struct page){ open_memstream(text, size), columns_of(width), false };
}

static char *page_close(const struct page *page, char **text)
{
    if (fclose(page->out) == 0)
        return *text;
    free(*text);
    return NULL;
}

static char *render_page(const json_t *value, unsigned width, bool cut)
{
    char *text;
    size_t size;
    struct page page = page_open(&text, &size, width);
    page.cut = cut;
    if (page.out == NULL)
        return NULL;
    render(&page, value, 0);
    return page_close(&page, &text);
}

char *text_render_in(const json_t *value, unsigned width)
{
    return render_page(value, width, false);
}

char *text_render_cut(const json_t *value, unsigned width)
{
    return render_page(value, width, width > 0);
}

char *text_render(const json_t *value)
{
    return text_render_in(value, 0);
}

void text_write_line(FILE *out, const char *head, const char *text, unsigned width)
{
    struct page page = { out, columns_of(width), false };
    char *copy = text != NULL ? strdup(text) : NULL;
    int at = (int)strlen(head);
    fputs(head, out);
    if (page.width > 0 && page.width - at < VALUE_MIN) {
        at = 2;
        fprintf(out, "\n%*s", at, "");
    }
    for (char *p = copy; p != NULL && *p != '\0'; p++)
        *p = plain(*p);
    put_wrapped(&page, copy != NULL ? copy : "?", at);
    fputc('\n', out);
    free(copy);
}

char *text_line(const char *head, const char *text, unsigned width)
{
    char *line;
    size_t size;
    struct page page = page_open(&line, &size, width);
    if (page.out == NULL)
        return NULL;
    text_write_line(page.out, head, text, width);
    return page_close(&page, &line);
}
