#include "relayctl/events.h"

#include "relayctl/ctl.h"
#include "relayctl/print.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGE 1000 /* the most that relayd puts in one answer */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* ---- One line for people ---- */

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text != NULL ? text : "";
}

/* At least so wide, "-" if there is nothing. */
static void put(const char *text, int width)
{
    int used = print_text(*text != '\0' ? text : "-");
    printf("%*s", used < width ? width - used : 0, "");
}

static long long number_of(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

/* " (raspi)", if there is anything to say. */
static void put_in_brackets(const char *text)
{
    if (*text == '\0')
        return;
    fputs(" (", stdout);
    put(text, 0);
    putchar(')');
}

static const struct {
    const char *key, *title;
    int width;
} columns[] = { { "time", "TIME", 21 },
                { "tenant", "TENANT", 10 },
                { "principal", "PRINCIPAL", 12 },
                { "address", "ADDRESS", 16 },
                { "event", "EVENT", 14 } };
#define NCOLUMNS (sizeof(columns) / sizeof(columns[0]))

static void put_header(void)
{
    for (size_t i = 0; i < NCOLUMNS; i++)
        printf("%-*s", columns[i].width, columns[i].title);
    printf("OBJECT\n");
}

static void put_line(const json_t *row)
{
    for (size_t i = 0; i < NCOLUMNS; i++) {
        put(text_of(row, columns[i].key), columns[i].width - 1);
        putchar(' ');
    }
    put(text_of(row, "object"), 0);
    put_in_brackets(text_of(row, "peer"));
    if (*text_of(row, "reason") != '\0') {
        fputs(": ", stdout);
        put(text_of(row, "reason"), 0);
        if (strcmp(text_of(row, "reason"), text_of(row, "cause")) != 0)
            put_in_brackets(text_of(row, "cause"));
    }
    if (strcmp(text_of(row, "event"), "bridge_closed") == 0)
        printf(": %lld bytes up, %lld down, %.1f s", number_of(row, "bytes_up"), number_of(row, "bytes_down"),
               (double)number_of(row, "duration") / 1000);
    if (number_of(row, "count") > 1)
        printf("; %lld times", number_of(row, "count"));
    putchar('\n');
}

/* ---- Pages ---- */

/* As it comes; rows of a document that is printed whole at the end are collected. */
static void put_rows(json_t *rows, json_t *document, int as_json)
{
    size_t i;
    json_t *row;
    if (document != NULL) {
        json_array_extend(document, rows);
        return;
    }
    json_array_foreach(rows, i, row) {
        if (as_json)
            print_json(row, JSON_COMPACT);
        else
            put_line(row);
    }
    fflush(stdout);
}

/* The next page begins behind the last row that came; behind nothing, if none has. */
static void turn_page(json_t *args, const json_t *rows)
{
    char after[24] = "0";
    size_t n = json_array_size(rows);
    if (n > 0)
        snprintf(after, sizeof(after), "%lld", number_of(json_array_get(rows, n - 1), "id"));
    if (n > 0 || json_object_get(args, "after") == NULL)
        json_object_set_new(args, "after", json_string(after));
    json_object_set_new(args, "count", json_string("1000"));
}

/* What relayd refuses now it may grant soon. */
static int is_passing(const json_t *error)
{
    const char *code = text_of(error, "code");
    return strcmp(code, "registry_unavailable") == 0 || strcmp(code, "store_unavailable") == 0 ||
           strcmp(code, "timeout") == 0;
}

/* An answer; NULL with the exit code if there will be none. */
static json_t *ask(const struct events_source *source, json_t *args, int as_json, int patient, int *status)
{
    for (;;) {
        json_t *answer = source->ask(source->context, args);
        if (interrupted || json_is_true(json_object_get(answer, "ok")))
            return answer;
        json_t *error = json_object_get(answer, "error");
        *status = answer == NULL ? CTL_UNREACHABLE : CTL_REFUSED;
        if (answer != NULL)
            print_error(error, as_json && !patient);
        patient = patient && (answer == NULL || is_passing(error));
        json_decref(answer);
        if (!patient)
            return NULL;
        source->wait(source->context);
    }
}

/* Whether it was a full one, so that there may be more. */
static int show_page(const json_t *answer, json_t *args, json_t *document, int as_json)
{
    json_t *rows = json_object_get(answer, "result");
    put_rows(rows, document, as_json);
    turn_page(args, rows);
    return json_array_size(rows) == PAGE;
}

static int show_all(const struct events_source *source, json_t *args, json_t *document, int as_json,
                    int follow)
{
    int status = CTL_DONE, met = 0, more;
    int pages = follow || (json_object_get(args, "since") != NULL && json_object_get(args, "count") == NULL);
    if (pages && json_object_get(args, "since") != NULL)
        json_object_set_new(args, "count", json_string("1000"));
    do {
        json_t *answer = ask(source, args, as_json, follow && met, &status);
        if (answer == NULL || interrupted) {
            json_decref(answer);
            break;
        }
        if (!met && !as_json && isatty(STDOUT_FILENO))
            put_header(); /* elsewhere each line is an event */
        met = 1;
        more = show_page(answer, args, document, as_json);
        json_decref(answer);
        if (follow && !more && !interrupted)
            nanosleep(&(struct timespec){ .tv_sec = source->pause }, NULL);
    } while (!interrupted && pages && (more || follow));
    return interrupted ? CTL_DONE : status;
}

int events_run(const struct events_source *source, json_t *args, int as_json, int follow)
{
    struct sigaction action = { .sa_handler = on_interrupt }; /* without SA_RESTART: it ends every wait */
    json_t *document = as_json && !follow ? json_array() : NULL;
    if (follow)
        sigaction(SIGINT, &action, NULL);
    int status = show_all(source, args, document, as_json, follow);
    if (document != NULL && status == CTL_DONE)
        print_result(document, 1);
    json_decref(document);
    return status;
}
