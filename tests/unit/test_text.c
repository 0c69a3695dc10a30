#include "schema/text.h"

#include "support.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void expect_text(const char *json, const char *expected)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", json);
    char *text = text_render(value);
    cr_assert_not_null(text);
    cr_expect_str_eq(text, expected, "%s gives:\n%s", json, text);
    free(text);
    json_decref(value);
}

Test(text, single_values)
{
    expect_text("\"hello\"", "hello\n");
    expect_text("\"\"", "\n");
    expect_text("7", "7\n");
    expect_text("-9223372036854775808", "-9223372036854775808\n");
    expect_text("true", "yes\n");
    expect_text("false", "no\n");
    expect_text("null", "-\n");
    expect_text("[]", "none\n");
    expect_text("[\"a\",\"b\"]", "a b\n");
}

Test(text, a_table)
{
    expect_text("[{\"name\":\"raspi\",\"last_seen\":null,\"port\":22,\"rules\":[\"a\",\"b:80\"]},"
                "{\"name\":\"x\",\"last_seen\":\"now\",\"port\":65535,\"rules\":[]}]",
                "NAME   LAST SEEN  PORT   RULES\n"
                "raspi  -          22     a b:80\n"
                "x      now        65535  none\n");
}

Test(text, columns_are_those_of_the_first_row)
{
    expect_text("[{\"a\":1,\"b\":2},{\"b\":3,\"c\":4},{\"a\":5}]", "A  B\n1  2\n-  3\n5  -\n");
}

Test(text, wide_cells_push_the_columns_apart)
{
    expect_text("[{\"a\":\"x\",\"b\":\"y\"},{\"a\":\"xxxxx\",\"b\":\"y\"}]",
                "A      B\nx      y\nxxxxx  y\n");
}

Test(text, a_row_that_is_no_object_shows_nothing)
{
    expect_text("[{\"a\":1},7,\"x\"]", "A\n1\n-\n-\n");
}

Test(text, an_object)
{
    expect_text("{\"name\":\"raspi\",\"id\":7,\"rules\":[\"a\",\"b\"],\"on\":true,\"seen\":null}",
                "name:  raspi\nid:    7\nrules: a b\non:    yes\nseen:  -\n");
}

Test(text, what_is_nested_is_indented)
{
    expect_text("{\"name\":\"x\",\"keys\":[{\"type\":\"t\",\"home\":false}],\"closed\":{\"sessions\":2}}",
                "name:   x\nkeys:\n  TYPE  HOME\n  t     no\nclosed:\n  sessions: 2\n");
    expect_text("{\"keys\":[]}", "keys: none\n");
}

/* Each byte value as a one-byte text, where JSON can hold it. */
Test(text, numbers_have_units)
{
    expect_text("{\"held\":67108864,\"heap_used\":1904768,\"log_bytes\":1023,\"n\":67108864}",
                "held:      64M\nheap_used: 1.8M\nlog_bytes: 1023\nn:         67108864\n");
    expect_text("[{\"bytes_up\":1024,\"down_rate\":1025},{\"bytes_up\":-1,\"down_rate\":null}]",
                "BYTES UP  DOWN RATE\n1K        1.0K\n-1        -\n");
    expect_text("{\"bytes_up\":9223372036854775807}", "bytes_up: 8388608T\n");
    expect_text("[{\"limit\":\"held\",\"value\":1048576,\"used\":0},{\"limit\":\"opens\",\"value\":2048}]",
                "LIMIT  VALUE  USED\nheld   1M     0\nopens  2048   -\n");
}

Test(text, times_have_units)
{
    expect_text("{\"uptime\":0}", "uptime: 0 s\n");
    expect_text("{\"uptime\":59}", "uptime: 59 s\n");
    expect_text("{\"uptime\":60}", "uptime: 1 min\n");
    expect_text("{\"uptime\":10925}", "uptime: 3 h 2 min\n");
    expect_text("{\"uptime\":86461}", "uptime: 1 d\n");
    expect_text("{\"uptime\":-5}", "uptime: -5 s\n");
}

Test(text, an_expiry_that_has_passed_says_so)
{
    expect_text("{\"expires\":\"2020-01-01T00:00:00Z\",\"since\":\"2020-01-01T00:00:00Z\"}",
                "expires: 2020-01-01T00:00:00Z (expired)\nsince:   2020-01-01T00:00:00Z\n");
    expect_text("[{\"expires\":\"9999-12-31T23:59:59Z\"},{\"expires\":null},{\"expires\":\"1\"}]",
                "EXPIRES\n9999-12-31T23:59:59Z\n-\n1\n");
    expect_text("[{\"expires\":\"2020-01-01T00:00:00Z\"}]", "EXPIRES\n2020-01-01T00:00:00Z (expired)\n");
}

Test(text, control_bytes_never_pass)
{
    static const char *const shapes[] = { "s",       "[s]",       "[{s:s}]",    "{s:s}",
                                          "{s:[s]}", "{s:{s:s}}", "{s:[{s:s}]}" };
    for (size_t shape = 0; shape < sizeof(shapes) / sizeof(shapes[0]); shape++) {
        for (int c = 1; c < 128; c++) {
            char bad[] = { 'x', (char)c, 'y', '\0' };
            json_t *value = shape == 0   ? json_string(bad)
                            : shape == 1 ? json_pack("[s]", bad)
                            : shape < 4  ? json_pack(shapes[shape], "k", bad)
                            : shape == 4 ? json_pack(shapes[shape], "k", bad)
                                         : json_pack(shapes[shape], "k", "l", bad);
            char *text = text_render(value);
            size_t len = strlen(text);
            cr_assert_eq(text[len - 1], '\n');
            for (size_t i = 0; i < len; i++)
                cr_assert((text[i] >= 0x20 && text[i] < 0x7f) || text[i] == '\n', "byte 0x%02x in shape %s",
                          c, shapes[shape]);
            cr_assert_not_null(strstr(text, c >= 0x20 && c < 0x7f ? bad : "x?y"), "byte 0x%02x in shape %s",
                               c, shapes[shape]);
            free(text);
            json_decref(value);
        }
    }
}

Test(text, a_newline_forges_no_row)
{
    expect_text("[{\"name\":\"a\\nadmin\",\"kind\":\"x\"}]", "NAME     KIND\na?admin  x\n");
    expect_text("{\"comment\":\"a\\nname: root\"}", "comment: a?name: root\n");
    expect_text("\"a\\nb\"", "a?b\n");
}

Test(text, every_byte_outside_ascii_is_one_mark)
{
    expect_text("\"\xc3\xa9\"", "??\n");
    expect_text("\"\xe2\x80\xae\"", "???\n");
    expect_text("[{\"a\":\"\xc3\xa9\",\"b\":1}]", "A   B\n??  1\n");
}

Test(text, keys_are_shown_plain)
{
    expect_text("{\"a\\u001b[2J\":1}", "a?[2J: 1\n");
    expect_text("[{\"a\\u001b\":1}]", "A?\n1\n");
}

Test(text, more_columns_than_there_is_room_for)
{
    json_t *row = json_object(), *rows = json_array();
    for (int i = 0; i < 60; i++) {
        char name[16];
        snprintf(name, sizeof(name), "c%d", i);
        json_object_set_new(row, name, json_integer(i));
    }
    json_array_append_new(rows, row);
    char *text = text_render(rows);
    cr_assert_not_null(text);
    cr_expect_not_null(strstr(text, "C0  "));
    cr_expect_not_null(strstr(text, "C23\n"));
    free(text);
    json_decref(rows);
}

Test(text, a_long_table)
{
    json_t *rows = json_array();
    for (int i = 0; i < 2000; i++)
        json_array_append_new(rows, json_pack("{s:s, s:i}", "text", repeat('x', 1000), "n", i));
    char *text = text_render(rows);
    cr_assert_not_null(text);
    size_t digits = 10 + 90 * 2 + 900 * 3 + 1000 * 4;
    cr_expect_eq(strlen(text), 1004 + 2000 * 1003 + digits);
    free(text);
    json_decref(rows);
}

/* ---- On a screen ---- */

#define ENDPOINTS                                                                                            \
    "[{\"endpoint\":\"raspi:22\",\"device\":\"raspi\",\"note\":\"the one in the cellar, behind the "         \
    "boiler\"},"                                                                                             \
    "{\"endpoint\":\"web.raspi:80\",\"device\":\"raspi\",\"note\":\"\"}]"

static void expect_in(unsigned width, const char *json, const char *expected)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", json);
    char *text = text_render_in(value, width);
    cr_expect_str_eq(text, expected, "%s in %u columns gives:\n%s", json, width, text);
    free(text);
    json_decref(value);
}

Test(text, the_last_column_is_wrapped)
{
    expect_in(80, ENDPOINTS,
              "ENDPOINT      DEVICE  NOTE\n"
              "raspi:22      raspi   the one in the cellar, behind the boiler\n"
              "web.raspi:80  raspi   \n");
    expect_in(46, ENDPOINTS,
              "ENDPOINT      DEVICE  NOTE\n"
              "raspi:22      raspi   the one in the cellar,\n"
              "                      behind the boiler\n"
              "web.raspi:80  raspi   \n");
}

Test(text, a_narrow_screen_gets_blocks_of_lines)
{
    expect_in(40, ENDPOINTS,
              "endpoint: raspi:22\n"
              "device:   raspi\n"
              "note:     the one in the cellar, behind\n"
              "          the boiler\n"
              "\n"
              "endpoint: web.raspi:80\n"
              "device:   raspi\n"
              "note:     \n");
    expect_in(20, "{\"fingerprint\":\"SHA256:0123456789012345678901234567890123456789012\"}",
              "fingerprint:\n"
              "  SHA256:01234567890\n"
              "  123456789012345678\n"
              "  90123456789012\n");
}

Test(text, what_fits_exactly_is_not_wrapped)
{
    expect_in(21, "\"aaaaaaaaaa bbbbbbbbbb\"", "aaaaaaaaaa bbbbbbbbbb\n");
    expect_in(20, "\"aaaaaaaaaa bbbbbbbbbb\"", "aaaaaaaaaa\nbbbbbbbbbb\n");
    expect_in(20, "\"aaaaaaaaaaaaaaaaaaaa b\"", "aaaaaaaaaaaaaaaaaaaa\nb\n");
    expect_in(30, "[{\"a\":\"x\",\"b\":\"0123456789 0123456789 0123456\"}]",
              "A  B\nx  0123456789 0123456789\n   0123456\n");
}

/* What the text says when blanks and line ends are left out. */
static char *squeezed(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++)
        if (*from != ' ' && *from != '\n')
            *to++ = *from;
    *to = '\0';
    return text;
}

static size_t longest_line(const char *text)
{
    size_t longest = 0;
    for (; *text != '\0'; text += strcspn(text, "\n") + 1)
        longest = strcspn(text, "\n") > longest ? strcspn(text, "\n") : longest;
    return longest;
}

/* Whatever the width: no line is longer, and nothing is lost but blanks. */
Test(text, every_width_shows_everything)
{
    static const char *const hostile = "a\x1b[2Jb \xf0\x9f\x98\x80\xe2\x80\xae wide \xe4\xb8\xad\xe6\x96\x87 "
                                       "averyveryverylongwordthatfitsnowhereatallinanarrowplace";
    for (unsigned width = 0; width < 210; width++) {
        json_t *object = json_pack("{s:s, s:s, s:[{s:s, s:i}]}", "name", hostile, "fingerprint", hostile,
                                   "keys", "type", hostile, "n", 7);
        char *text = text_render_in(object, width);
        unsigned screen = width < 20 ? 20 : width;
        cr_assert(width == 0 || longest_line(text) <= screen, "%u columns:\n%s", width, text);
        cr_expect_null(strchr(text, '\x1b'));
        /* The names are in upper case above a table, in lower case in a block. */
        for (char *p = text; *p != '\0'; p++)
            *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
        char *words = squeezed(text);
        unsigned found = 0;
        for (const char *p = words; (p = strstr(p, "a?[2jb")) != NULL; p++)
            found++;
        cr_expect_eq(found, 3);
        cr_expect_not_null(
            strstr(words, "wide??????averyveryverylongwordthatfitsnowhereatallinanarrowplace"));
        free(text);
        json_decref(object);
    }
}

Test(text, what_is_no_table_has_no_width_either)
{
    expect_in(20, "[]", "none\n");
    expect_in(20, "[{}]", "\n\n");
    expect_in(20, "{}", "");
}

Test(text, lines_with_a_head)
{
    static const struct {
        const char *head, *text;
        unsigned width;
        const char *expected;
    } rows[] = {
        { "12:00:00Z  ", "+ raspi:22 online", 80, "12:00:00Z  + raspi:22 online\n" },
        { "12:00:00Z  ", "+ raspi:22 online", 0, "12:00:00Z  + raspi:22 online\n" },
        { "12:00:00Z  ", "+ raspi:22 online", 27, "12:00:00Z  + raspi:22\n           online\n" },
        { "12:00:00Z  ", "+ raspi:22 online", 20, "12:00:00Z  \n  + raspi:22 online\n" },
        { "", "a b", 80, "a b\n" },
        { "", "", 80, "\n" },
        { "", "a\x1b[2J\n", 80, "a?[2J?\n" },
        { "", "\xff\xc3 \x80", 80, "?? ?\n" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *line = text_line(rows[i].head, rows[i].text, rows[i].width);
        cr_expect_str_eq(line, rows[i].expected);
        free(line);
    }
}

/* ---- Cut ---- */

static void expect_cut(unsigned width, const char *json, const char *expected)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    char *text = text_render_cut(value, width);
    cr_assert_not_null(text);
    cr_expect_str_eq(text, expected, "%s in %u columns gives:\n%s", json, width, text);
    free(text);
    json_decref(value);
}

#define ROWS                                                                                                 \
    "[{\"id\":1,\"client\":\"a-name-of-18-bytes\",\"address\":\"192.0.2.1\",\"bytes\":123456789},"           \
    "{\"id\":22,\"client\":\"b\",\"address\":null,\"bytes\":0}]"

Test(text, a_table_that_fits_is_not_cut)
{
    const char *whole = "ID  CLIENT              ADDRESS    BYTES    \n"
                        "1   a-name-of-18-bytes  192.0.2.1  123456789\n"
                        "22  b                   -          0        \n";
    expect_cut(44, ROWS, whole);
    expect_cut(200, ROWS, whole);
}

Test(text, the_longest_texts_are_cut_first)
{
    expect_cut(40, ROWS,
               "ID  CLIENT          ADDRESS    BYTES    \n"
               "1   a-name-of-18-…  192.0.2.1  123456789\n"
               "22  b               -          0        \n");
    expect_cut(33, ROWS,
               "ID  CLIENT    ADDRESS   BYTES    \n"
               "1   a-name-…  192.0.2…  123456789\n"
               "22  b         -         0        \n");
}

/* A number is shown whole or not at all. */
Test(text, then_the_last_columns_are_left_out)
{
    expect_cut(32, ROWS,
               "ID  CLIENT           ADDRESS   …\n"
               "1   a-name-of-18-b…  192.0.2.1 …\n"
               "22  b                -         …\n");
    expect_cut(20, ROWS,
               "ID  CLIENT         …\n"
               "1   a-name-of-18-… …\n"
               "22  b              …\n");
}

/* Not even when nothing has been counted yet; and the room of what is left out is used. */
Test(text, headers_and_numbers_are_not_cut)
{
    const char *rows = "[{\"id\":1,\"endpoint\":\"a.long.name.raspi:22\",\"up_rate\":null,\"down_rate\":null,"
                       "\"fingerprint\":\"SHA256:abcdefgh\"}]";
    expect_cut(52, rows,
               "ID  ENDPOINT       UP RATE  DOWN RATE  FINGERPRINT  \n"
               "1   a.long.name.…  -        -          SHA256:abcde…\n");
    expect_cut(40, rows,
               "ID  ENDPOINT        UP RATE  DOWN RATE …\n"
               "1   a.long.name.r…  -        -         …\n");
}

/* An ellipsis is three bytes and one column. */
static size_t columns_of(const char *line)
{
    size_t n = 0;
    for (; *line != '\n'; line++)
        n += (*line & 0xC0) != 0x80;
    return n;
}

Test(text, no_width_is_passed_and_no_row_broken)
{
    json_t *rows = json_loads(ROWS, 0, NULL);
    for (unsigned width = 20; width < 60; width++) {
        char *text = text_render_cut(rows, width);
        unsigned lines = 0;
        for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1, lines++)
            cr_expect_leq(columns_of(line), width, "%u columns:\n%s", width, text);
        cr_expect_eq(lines, 3);
        free(text);
    }
    json_decref(rows);
}

Test(text, without_a_width_nothing_is_cut)
{
    json_t *rows = json_loads(ROWS, 0, NULL);
    char *text = text_render_cut(rows, 0), *whole = text_render(rows);
    cr_expect_str_eq(text, whole);
    free(whole);
    free(text);
    json_decref(rows);
}
