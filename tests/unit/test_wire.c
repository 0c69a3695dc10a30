#include "schema/wire.h"

#include "support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char error[256];

static int parse(const char *line, size_t len, struct wire_request *request)
{
    error[0] = '\0';
    int rc = wire_parse_request(line, len, request, error, sizeof(error));
    cr_assert_eq(rc == 0, request->root != NULL, "what is owned does not follow the outcome");
    cr_assert_eq(rc == 0, error[0] == '\0', "a sentence for each failure and for nothing else");
    return rc;
}

static int parse_text(const char *line, struct wire_request *request)
{
    return parse(line, strlen(line), request);
}

Test(wire, a_whole_request)
{
    struct wire_request request;
    cr_assert_eq(
        parse_text("{\"v\":1,\"id\":7,\"cmd\":\"allow\",\"tenant\":\"acme\",\"args\":{\"name\":\"raspi\"}}",
                   &request),
        0);
    cr_expect_eq(request.id, 7);
    cr_expect_str_eq(request.cmd, "allow");
    cr_expect_str_eq(request.tenant, "acme");
    cr_expect_str_eq(json_string_value(json_object_get(request.args, "name")), "raspi");
    json_decref(request.root);
}

Test(wire, what_may_be_left_out)
{
    struct wire_request request;
    cr_assert_eq(parse_text(" { \"cmd\" : \"status\", \"id\" : 0, \"v\" : 1 } \r", &request), 0);
    cr_expect_str_eq(request.tenant, "default");
    cr_expect(json_is_object(request.args));
    cr_expect_eq(json_object_size(request.args), 0);
    json_decref(request.root);
}

Test(wire, what_is_unknown_is_ignored)
{
    struct wire_request request;
    cr_assert_eq(parse_text("{\"v\":1,\"id\":1,\"cmd\":\"status\",\"later\":[1,2]}", &request), 0);
    json_decref(request.root);
}

Test(wire, malformed)
{
    static const char *const rows[] = {
        "",
        " ",
        "x",
        "null",
        "7",
        "\"status\"",
        "[]",
        "[{\"v\":1,\"id\":1,\"cmd\":\"status\"}]",
        "{",
        "{}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\"",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\"}}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\"}{\"v\":1,\"id\":2,\"cmd\":\"status\"}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\",}",
        "{'v':1,'id':1,'cmd':'status'}",
        "{\"v\":1,\"id\":1}",
        "{\"v\":1,\"id\":1,\"cmd\":7}",
        "{\"v\":1,\"id\":1,\"cmd\":null}",
        "{\"v\":1,\"id\":1,\"cmd\":[\"status\"]}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"tenant\":null}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"tenant\":1}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"args\":null}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"args\":[]}",
        "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"args\":\"\"}",
        "{\"v\":1,\"id\":1,\"cmd\":\"\xff\"}",
        "{\"v\":1,\"id\":1,\"cmd\":\"\\ud800\"}",
        "{\"v\":1,\"id\":1,\"cmd\":\"a\tb\"}",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct wire_request request;
        cr_expect_eq(parse_text(rows[i], &request), -1, "%s", rows[i]);
    }
    struct wire_request request;
    cr_expect_eq(parse_text("[]", &request), -1);
    cr_expect_not_null(strstr(error, "not an object"), "%s", error);
}

Test(wire, nul_bytes)
{
    static const char raw[] = "{\"v\":1,\"id\":1,\"cmd\":\"sta\0tus\"}";
    static const char behind[] = "{\"v\":1,\"id\":1,\"cmd\":\"status\"}\0";
    struct wire_request request;
    cr_expect_eq(parse(raw, sizeof(raw) - 1, &request), -1);
    cr_expect_eq(parse(behind, sizeof(behind) - 1, &request), -1);
    cr_expect_eq(parse_text("{\"v\":1,\"id\":1,\"cmd\":\"status\\u0000\"}", &request), -1);
    cr_expect_eq(
        parse_text("{\"v\":1,\"id\":1,\"cmd\":\"show\",\"args\":{\"name\":\"a\\u0000b\"}}", &request), -1);
    cr_expect_eq(parse_text("{\"v\":1,\"id\":1,\"cmd\":\"show\",\"args\":{\"na\\u0000me\":\"a\"}}", &request),
                 -1);
}

Test(wire, duplicate_keys)
{
    struct wire_request request;
    cr_expect_eq(parse_text("{\"v\":1,\"id\":1,\"cmd\":\"status\",\"cmd\":\"remove-tenant\"}", &request), -1);
    cr_expect_eq(parse_text("{\"v\":1,\"id\":1,\"id\":2,\"cmd\":\"status\"}", &request), -1);
    cr_expect_eq(
        parse_text("{\"v\":1,\"id\":1,\"cmd\":\"show\",\"args\":{\"name\":\"a\",\"name\":\"b\"}}", &request),
        -1);
}

Test(wire, version)
{
    static const char *const rows[] = { "0", "2", "-1", "\"1\"", "1.0", "true", "null", "[1]" };
    struct wire_request request;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[128];
        snprintf(line, sizeof(line), "{\"v\":%s,\"id\":7,\"cmd\":\"status\"}", rows[i]);
        cr_expect_eq(parse_text(line, &request), -1, "%s", line);
        cr_expect_eq(request.id, 7, "the answer must carry the id: %s", line);
        cr_expect_not_null(strstr(error, "version 1"), "%s", error);
    }
    cr_expect_eq(parse_text("{\"id\":7,\"cmd\":\"status\"}", &request), -1);
    cr_expect_eq(request.id, 7);
}

Test(wire, ids)
{
    static const struct {
        const char *text;
        int rc;
        json_int_t id;
    } rows[] = {
        { "0", 0, 0 },
        { "-1", 0, -1 },
        { "9007199254740993", 0, 9007199254740993 }, /* no double holds it */
        { "9223372036854775807", 0, INT64_MAX },
        { "-9223372036854775808", 0, INT64_MIN },
        { "9223372036854775808", -1, 0 },
        { "1e3", -1, 0 },
        { "1.0", -1, 0 },
        { "\"7\"", -1, 0 },
        { "null", -1, 0 },
        { "true", -1, 0 },
        { "123456789012345678901234567890", -1, 0 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[128];
        struct wire_request request;
        snprintf(line, sizeof(line), "{\"v\":1,\"id\":%s,\"cmd\":\"status\"}", rows[i].text);
        cr_expect_eq(parse_text(line, &request), rows[i].rc, "%s", line);
        cr_expect_eq(request.id, rows[i].id, "%s", line);
        json_decref(request.root);
    }
}

Test(wire, the_id_is_told_when_the_rest_is_wrong)
{
    struct wire_request request;
    cr_expect_eq(parse_text("{\"v\":1,\"id\":42,\"cmd\":7}", &request), -1);
    cr_expect_eq(request.id, 42);
    cr_expect_eq(parse_text("{\"v\":1,\"id\":42,\"cmd\":\"status\",\"args\":[]}", &request), -1);
    cr_expect_eq(request.id, 42);
    cr_expect_eq(parse_text("not json", &request), -1);
    cr_expect_eq(request.id, 0);
}

Test(wire, len_bounds_the_line)
{
    struct wire_request request;
    static const char line[] = "{\"v\":1,\"id\":1,\"cmd\":\"status\"}garbage";
    cr_assert_eq(parse(line, sizeof(line) - 1 - strlen("garbage"), &request), 0);
    json_decref(request.root);
}

Test(wire, deep_and_long)
{
    struct wire_request request;
    const char *deep = repeat('[', 60000);
    cr_expect_eq(parse_text(deep, &request), -1);
    char line[66000];
    snprintf(line, sizeof(line), "{\"v\":1,\"id\":1,\"cmd\":\"show\",\"args\":{\"name\":\"%s\"}}",
             repeat('a', 65000));
    cr_assert_eq(parse_text(line, &request), 0);
    cr_expect_eq(json_string_length(json_object_get(request.args, "name")), 65000);
    json_decref(request.root);
}

/* ---- The other direction ---- */

/* Parses what must be one line with its newline, and frees it. */
static json_t *one_line(char *line)
{
    cr_assert_not_null(line);
    size_t len = strlen(line);
    cr_assert_eq(strcspn(line, "\n"), len - 1, "not one line: %s", line);
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    free(line);
    cr_assert(json_is_object(object));
    return object;
}

Test(wire, a_request_line_is_read_as_it_was_written)
{
    struct wire_request request;
    json_t *args = json_pack("{s:s, s:[s]}", "name", "line\nbreak \"quoted\" \xc3\xa9\x7f\x01", "allow", "*");
    char *line = wire_request_line(INT64_MAX, "add-device", "acme", args, false);
    cr_assert_not_null(line);
    cr_expect_eq(strcspn(line, "\n"), strlen(line) - 1);
    cr_assert_eq(parse(line, strlen(line) - 1, &request), 0);
    cr_expect_eq(request.id, INT64_MAX);
    cr_expect_str_eq(request.cmd, "add-device");
    cr_expect_str_eq(request.tenant, "acme");
    cr_expect(json_equal(request.args, args));
    cr_expect_eq(args->refcount, 1, "it is borrowed");
    json_decref(request.root);
    json_decref(args);
    free(line);
}

Test(wire, result_line)
{
    json_t *result = json_pack("[s, i]", "a\nb", 7);
    json_t *answer = one_line(wire_result_line(INT64_MIN, result));
    cr_expect_eq(json_integer_value(json_object_get(answer, "id")), INT64_MIN);
    cr_expect(json_is_true(json_object_get(answer, "ok")));
    cr_expect(json_equal(json_object_get(answer, "result"), result));
    cr_expect_eq(json_object_size(answer), 3);
    json_decref(answer);
    cr_expect_eq(result->refcount, 1);
    json_decref(result);
}

Test(wire, error_line)
{
    json_t *answer = one_line(wire_error_line(7, "not_found", "there is no \"x\"\n"));
    const json_t *what = json_object_get(answer, "error");
    cr_expect_eq(json_integer_value(json_object_get(answer, "id")), 7);
    cr_expect(json_is_false(json_object_get(answer, "ok")));
    cr_expect_str_eq(json_string_value(json_object_get(what, "code")), "not_found");
    cr_expect_str_eq(json_string_value(json_object_get(what, "message")), "there is no \"x\"\n");
    cr_expect_eq(json_object_size(answer), 3);
    json_decref(answer);
}
