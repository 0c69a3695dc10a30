#include "relayd/screen.h"

#include "relayd/limits.h"
#include "support.h"

#include <criterion/criterion.h>
#include <string.h>

#define NOON 43200 /* of the first of all days */

static struct screen screen;

static void make(void)
{
    cr_assert_eq(screen_init(&screen), 0);
}

static void end(void)
{
    screen_clear(&screen);
}

TestSuite(screen, .init = make, .fini = end);

/* What was put into the stream, which is empty then. Good until the next call. */
static const char *taken(struct evbuffer *from)
{
    static char text[LIMIT_FEED + 4096];
    int n = evbuffer_remove(from, text, sizeof(text) - 1);
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

Test(screen, plain_lines_without_a_terminal)
{
    screen_show(&screen, "a\nb\n\nc");
    cr_expect_str_eq(taken(screen.out), "a\nb\n\nc");
    screen_complain(&screen, "no such thing");
    cr_expect_str_eq(taken(screen.out), "");
    cr_expect_str_eq(taken(screen.err), "relayd: no such thing\n");
}

Test(screen, a_terminal_gets_carriage_returns_and_one_stream)
{
    screen_set_terminal(&screen, 80);
    screen_show(&screen, "a\nb\n\nc");
    cr_expect_str_eq(taken(screen.out), "a\r\nb\r\n\r\nc");
    screen_complain(&screen, "no such thing");
    cr_expect_str_eq(taken(screen.out), "relayd: no such thing\r\n");
    cr_expect_str_eq(taken(screen.err), "");
}

Test(screen, widths_are_clamped)
{
    static const unsigned rows[][2] = { { 0, 80 },    { 1, 20 },      { 20, 20 },          { 40, 40 },
                                        { 200, 200 }, { 1000, 1000 }, { 0xffffffff, 1000 } };
    cr_expect_eq(screen.columns, 80);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        screen_set_terminal(&screen, rows[i][0]);
        cr_expect_eq(screen.columns, rows[i][1]);
    }
}

Test(screen, tables_follow_the_width)
{
    json_t *rows = json_pack("[{s:s, s:s}]", "endpoint", "web.raspi:80", "device", "raspberry");
    screen_set_terminal(&screen, 40);
    screen_show_value(&screen, rows);
    cr_expect_str_eq(taken(screen.out), "ENDPOINT      DEVICE\r\nweb.raspi:80  raspberry\r\n");
    screen_set_terminal(&screen, 18);
    screen_show_value(&screen, rows);
    cr_expect_str_eq(taken(screen.out), "endpoint:\r\n  web.raspi:80\r\ndevice:\r\n  raspberry\r\n");
    json_decref(rows);
}

Test(screen, without_a_terminal_a_row_is_a_line)
{
    char expected[300], name[121];
    memset(name, 'n', 120);
    name[120] = '\0';
    json_t *rows = json_pack("[{s:s, s:s}]", "endpoint", name, "device", "raspberry");
    snprintf(expected, sizeof(expected), "%-120s  DEVICE\n%s  raspberry\n", "ENDPOINT", name);
    screen_show_value(&screen, rows);
    cr_expect_str_eq(taken(screen.out), expected);
    json_decref(rows);
}

Test(screen, a_document_is_ascii)
{
    json_t *value = json_pack("{s:s}", "name", "a\x1b[2J\xc3\xa9");
    screen_show_document(&screen, value);
    cr_expect_str_eq(taken(screen.out), "{\n  \"name\": \"a\\u001B[2J\\u00E9\"\n}\n");
    json_decref(value);
}

Test(screen, what_happens_has_its_time)
{
    screen_tell(&screen, "+ raspi:22 online", NOON);
    cr_expect_str_eq(taken(screen.out), "12:00:00Z  + raspi:22 online\n");
    screen_set_terminal(&screen, 40);
    screen_tell(&screen, "client alice connected from 192.0.2.1 to web.raspi:80", NOON + 61);
    cr_expect_str_eq(taken(screen.out), "12:01:01Z  client alice connected from\r\n"
                                        "           192.0.2.1 to web.raspi:80\r\n");
}

Test(screen, nothing_raw_passes)
{
    screen_set_terminal(&screen, 80);
    screen_tell(&screen, "a\x1b[2J\r\n\x07\xe2\x80\xae", NOON);
    cr_expect_str_eq(taken(screen.out), "12:00:00Z  a?[2J???"
                                        "???\r\n");
    screen_complain(&screen, "a\x1b]0;x\x07");
    cr_expect_str_eq(taken(screen.out), "relayd: a?]0;x?\r\n");
}

/* Whatever happens, no more waits than the limit and a line; who reads again is told how much he missed. */
Test(screen, a_reader_that_stalls_loses_lines)
{
    unsigned told = 0;
    const char *line = repeat('x', 100);
    for (unsigned i = 0; i < 10000; i++) {
        screen_tell(&screen, line, NOON);
        told += screen.lost == 0;
        cr_assert_leq(evbuffer_get_length(screen.out), LIMIT_FEED + 200);
    }
    cr_expect_gt(told, 100);
    cr_expect_eq(screen.lost, 10000 - told);
    evbuffer_drain(screen.out, 1000); /* some room alone would put the next line before the lost ones */
    screen_tell(&screen, "late", NOON);
    cr_expect_null(strstr(taken(screen.out), "late"));

    char expected[128];
    snprintf(expected, sizeof(expected), "12:00:05Z  %u lines were lost here: they were not read in time\n",
             10001 - told);
    cr_expect(screen_tell_lost(&screen, NOON + 5));
    cr_expect_str_eq(taken(screen.out), expected);
    cr_expect_not(screen_tell_lost(&screen, NOON + 5));
    screen_tell(&screen, "again", NOON);
    cr_expect_str_eq(taken(screen.out), "12:00:00Z  again\n");
}
