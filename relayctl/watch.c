#include "relayctl/watch.h"

#include "relayctl/ctl.h"
#include "relayctl/print.h"
#include "schema/text.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_MIN 0.1
#define INTERVAL_MAX 86400

/* What a terminal is told (ECMA-48): to the top left; clear to the end of the line, of the screen. */
#define HOME "\033[H"
#define CLEAR_LINE "\033[K"
#define CLEAR_REST "\033[J"

struct screen {
    int terminal; /* whether it is one */
    unsigned width, height;
};

double watch_interval(const char *text)
{
    char *end;
    double interval = strtod(text, &end);
    return end > text && *end == '\0' && interval >= INTERVAL_MIN && interval <= INTERVAL_MAX ? interval : 0;
}

/* ---- Bytes a second ---- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* What the row is about, the same in each look; free() it. */
static char *row_key(const json_t *row)
{
    json_t *parts = json_pack("[O?, O?, O?]", json_object_get(row, "id"), json_object_get(row, "name"),
                              json_object_get(row, "port"));
    char *key = json_dumps(parts, JSON_COMPACT);
    json_decref(parts);
    return key;
}

/* NULL for one that was not there, or has begun anew. */
static json_t *rate(const json_t *row, const json_t *before, const char *column, double seconds)
{
    const json_t *old = json_object_get(before, column);
    json_int_t bytes = json_integer_value(json_object_get(row, column)) - json_integer_value(old);
    if (old == NULL || bytes < 0 || seconds <= 0)
        return json_null();
    return json_integer((json_int_t)((double)bytes / seconds + 0.5));
}

/* A copy of the row with the rates before what they come from. */
static json_t *with_rates(json_t *row, const json_t *before, double seconds)
{
    json_t *copy = json_object(), *value;
    const char *key;
    json_object_foreach(row, key, value) {
        if (strcmp(key, "bytes_up") == 0) {
            json_object_set_new(copy, "up_rate", rate(row, before, "bytes_up", seconds));
            json_object_set_new(copy, "down_rate", rate(row, before, "bytes_down", seconds));
        }
        json_object_set(copy, key, value);
    }
    return copy;
}

/* The rows by their keys, for the next look. */
static json_t *index_rows(const json_t *rows)
{
    json_t *index = json_object(), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        char *key = row_key(row);
        if (key != NULL)
            json_object_set(index, key, row);
        free(key);
    }
    return index;
}

/* The result with rates: that itself if it is no table. index: of the last look, or NULL. */
static json_t *add_rates(json_t *result, const json_t *index, double seconds)
{
    json_t *rows, *row;
    size_t i;
    if (!json_is_array(result))
        return json_incref(result);
    rows = json_array();
    json_array_foreach(result, i, row) {
        char *key = row_key(row);
        json_array_append_new(rows,
                              with_rates(row, key != NULL ? json_object_get(index, key) : NULL, seconds));
        free(key);
    }
    return rows;
}

/* ---- Showing it ---- */

static struct screen find_screen(void)
{
    struct screen screen = { isatty(STDOUT_FILENO), 80, 24 };
    struct winsize size;
    if (!screen.terminal)
        screen.width = 0;
    else if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0)
        screen = (struct screen){ 1, size.ws_col, size.ws_row };
    return screen;
}

/* Lines that the terminal has no room for would scroll the first ones away. */
static void put_lines(const char *text, const struct screen *screen)
{
    unsigned room = screen->height > 2 ? screen->height - 2 : 1, lines = 0, more = 0;
    for (const char *p = text; *p != '\0'; p++)
        lines += *p == '\n';
    more = lines > room ? lines - room + 1 : 0;
    for (unsigned i = 0; i + more < lines; i++) {
        int len = (int)strcspn(text, "\n");
        printf("%.*s" CLEAR_LINE "\n", len, text);
        text += len + 1;
    }
    if (more > 0)
        printf("and %u more lines" CLEAR_LINE "\n", more);
    fputs(CLEAR_REST, stdout);
}

/* What is looked at, how often, and when that was. */
static void put_title(const struct watch *watch, const struct screen *screen)
{
    char text[256], clock[32];
    time_t when = time(NULL);
    struct tm local;
    strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&when, &local));
    snprintf(text, sizeof(text), "%s  %s, every %g s", clock, watch->title, watch->interval);
    if (screen->terminal)
        printf(HOME "%.*s" CLEAR_LINE "\n", (int)screen->width, text);
    else
        printf("%s\n", text);
}

static void show(const struct watch *watch, const json_t *result)
{
    struct screen screen = find_screen();
    char *text = text_render_cut(result, screen.width);
    put_title(watch, &screen);
    if (screen.terminal)
        put_lines(text != NULL ? text : "out of memory\n", &screen);
    else
        printf("%s\n", text != NULL ? text : "out of memory\n");
    free(text);
}

/* Why it cannot look comes after it, on stderr. */
static void show_nothing(const struct watch *watch)
{
    struct screen screen = find_screen();
    if (!screen.terminal || watch->json)
        return;
    put_title(watch, &screen);
    fputs(CLEAR_REST, stdout);
    fflush(stdout);
}

/* ---- Time and signals ---- */

static void on_interrupt(int number)
{
    (void)number;
    _exit(CTL_DONE);
}

static void on_resize(int number)
{
    (void)number; /* it only has to end the pause */
}

/* A new size is heard of in pauses alone: elsewhere it would disturb what is under way. */
static void prepare_signals(sigset_t *pause)
{
    struct sigaction resize = { .sa_handler = on_resize }, interrupt = { .sa_handler = on_interrupt };
    sigset_t resized;
    sigemptyset(&resized);
    sigaddset(&resized, SIGWINCH);
    sigprocmask(SIG_BLOCK, &resized, pause);
    sigdelset(pause, SIGWINCH);
    sigaction(SIGWINCH, &resize, NULL);
    sigaction(SIGINT, &interrupt, NULL);
}

/* True if it was ended early by a new size. */
static int pause_until(double end, const sigset_t *mask)
{
    double left = end - now();
    if (left <= 0)
        return 0;
    struct timespec time = { (time_t)left, (long)((left - (double)(time_t)left) * 1e9) };
    return ppoll(NULL, 0, &time, mask) < 0 && errno == EINTR;
}

/* ---- Looking ---- */

/* What is kept from one look to the next. */
struct memory {
    json_t *index; /* NULL: nothing */
    double time;
};

/* The result of one look, with rates; NULL if there is none. *status: why. */
static json_t *look(const struct watch *watch, struct memory *memory, int *status)
{
    json_t *answer = watch->ask(watch->context, watch->args), *shown = NULL;
    double time = now();
    json_t *result = json_object_get(answer, "result"), *index = NULL;
    *status = CTL_DONE;
    if (json_is_true(json_object_get(answer, "ok"))) {
        shown = add_rates(result, memory->index, time - memory->time);
        index = index_rows(result);
    } else if (answer != NULL) {
        *status = CTL_REFUSED;
        print_error(json_object_get(answer, "error"), watch->json);
    } else {
        *status = CTL_UNREACHABLE;
    }
    json_decref(memory->index);
    *memory = (struct memory){ index, time };
    json_decref(answer);
    return shown;
}

static void show_result(const struct watch *watch, const json_t *result)
{
    if (watch->json)
        print_json(result, JSON_COMPACT);
    else
        show(watch, result);
}

/* Shows it until the next look is due: on a terminal that gets another size again. */
static int show_for_a_while(const struct watch *watch, const json_t *result, const sigset_t *mask)
{
    double next = now() + watch->interval;
    int again = 1;
    do {
        if (result != NULL && again)
            show_result(watch, result);
        again = isatty(STDOUT_FILENO) && !watch->json;
        if (fflush(stdout) != 0 || ferror(stdout)) {
            fprintf(stderr, "relayctl: the result cannot be written: %s\n", strerror(errno));
            return -1;
        }
    } while (pause_until(next, mask));
    return 0;
}

int watch_run(const struct watch *watch)
{
    struct memory memory = { NULL, 0 };
    sigset_t mask;
    int status;
    prepare_signals(&mask);
    json_t *result = look(watch, &memory, &status);
    if (result == NULL)
        return status;
    while (show_for_a_while(watch, result, &mask) == 0) {
        if (result == NULL)
            show_nothing(watch);
        json_decref(result);
        result = look(watch, &memory, &status);
    }
    json_decref(result);
    json_decref(memory.index);
    return CTL_REFUSED;
}
