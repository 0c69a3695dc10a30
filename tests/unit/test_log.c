#include "relayd/log.h"

#include "support.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The one line that was captured, without its newline. */
static const char *one_line(void)
{
    char *text = (char *)(uintptr_t)capture_end();
    size_t len = strlen(text);
    cr_assert_gt(len, 0, "nothing was written");
    cr_assert_eq(strcspn(text, "\n"), len - 1, "not one line: %s", text);
    text[len - 1] = '\0';
    for (const char *p = text; *p != '\0'; p++)
        cr_assert(*p >= 0x20 && *p < 0x7f, "byte 0x%02x got out", (unsigned char)*p);
    return text;
}

/* What follows the time, "2026-01-02T03:04:05.678Z ". */
static const char *behind_time(const char *line)
{
    int year, month, day, hour, minute, second, ms, used = 0;
    cr_assert_eq(sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ %n", &year, &month, &day, &hour, &minute, &second,
                        &ms, &used),
                 7, "%s", line);
    cr_assert_eq(used, 25, "%s", line);
    return line + used;
}

/* ---- Escaping ---- */

Test(log, escapes_every_byte_that_is_not_plain)
{
    for (int c = 1; c < 256; c++) {
        char text[] = { (char)c, '\0' }, out[8], expected[8];
        bool plain = c >= 0x20 && c <= 0x7e;
        snprintf(expected, sizeof(expected), plain ? "%c" : "\\x%02x", c);
        log_escape(text, out, sizeof(out));
        cr_expect_str_eq(out, expected);
    }
}

Test(log, escape_never_cuts_an_escape_and_always_ends)
{
    for (size_t size = 1; size <= 12; size++) {
        char out[16];
        memset(out, '#', sizeof(out));
        log_escape("a\n\x01z", out, size);
        size_t len = strlen(out);
        cr_expect_lt(len, size);
        cr_expect_eq(len,
                     size < 2    ? 0
                     : size < 6  ? 1
                     : size < 10 ? 5
                     : size < 11 ? 9
                                 : 10,
                     "size %zu: %s", size, out);
        cr_expect_eq(out[size], '#', "written behind the end");
    }
}

Test(log, quotes_have_a_clear_end)
{
    static const struct {
        const char *text, *quoted;
    } rows[] = { { "", "\"\"" },
                 { "a b", "\"a b\"" },
                 { "a\"b", "\"a\\x22b\"" },
                 { "a\\", "\"a\\x5c\"" },
                 { "\n", "\"\\x0a\"" } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[16];
        log_quote(rows[i].text, out, sizeof(out));
        cr_expect_str_eq(out, rows[i].quoted);
    }
    for (size_t size = 3; size < 12; size++) {
        char out[16];
        memset(out, '#', sizeof(out));
        log_quote("ab\"cdefghijkl", out, size);
        cr_expect_lt(strlen(out), size);
        cr_expect_eq(out[strlen(out) - 1], '"', "size %zu: %s", size, out);
        cr_expect_eq(out[size], '#', "written behind the end");
    }
}

/* ---- Lines ---- */

Test(log, a_text_line)
{
    log_setup(LOG_LEVEL_INFO, false);
    struct log_subject subject = { .tenant = "acme", .principal = "raspi", .session = 42 };
    capture_begin(STDERR_FILENO);
    log_write(LOG_LEVEL_WARN, &subject, "opened %s:%d", "web", 80);
    cr_expect_str_eq(behind_time(one_line()), "warn tenant=acme principal=raspi session=42 opened web:80");
}

Test(log, what_is_not_known_of_the_subject_is_left_out)
{
    log_setup(LOG_LEVEL_INFO, false);
    struct log_subject subject = { .session = UINT64_MAX };
    capture_begin(STDERR_FILENO);
    log_write(LOG_LEVEL_ERROR, &subject, "x");
    cr_expect_str_eq(behind_time(one_line()), "error session=18446744073709551615 x");
    capture_begin(STDERR_FILENO);
    log_info("y");
    cr_expect_str_eq(behind_time(one_line()), "info y");
}

Test(log, a_peer_cannot_forge_a_line)
{
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(STDERR_FILENO);
    log_warn("version %s", "SSH\n2026-01-01T00:00:00.000Z error forged\r\x1b[2J\xff");
    const char *line = one_line();
    cr_expect_not_null(strstr(line, "SSH\\x0a2026"));
    cr_expect_not_null(strstr(line, "\\x0d\\x1b[2J\\xff"));
}

Test(log, nor_can_a_name)
{
    log_setup(LOG_LEVEL_INFO, false);
    struct log_subject subject = { .tenant = "a\nb", .principal = "c\x1b[2J", .session = 1 };
    capture_begin(STDERR_FILENO);
    log_write(LOG_LEVEL_INFO, &subject, "x");
    cr_expect_str_eq(behind_time(one_line()), "info tenant=a\\x0ab principal=c\\x1b[2J session=1 x");
}

Test(log, thresholds)
{
    for (int threshold = LOG_LEVEL_ERROR; threshold <= LOG_LEVEL_DEBUG; threshold++) {
        log_setup((enum log_level)threshold, false);
        capture_begin(STDERR_FILENO);
        for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++)
            log_write((enum log_level)level, NULL, "x");
        int lines = 0;
        for (const char *p = capture_end(); *p != '\0'; p++)
            lines += *p == '\n';
        cr_expect_eq(lines, threshold + 1);
    }
}

Test(log, a_message_of_any_length_is_one_line)
{
    static const size_t lengths[] = { 0, 1, 500, 2040, 2046, 2047, 2048, 2049, 3000, 60000 };
    char tenant[301], principal[301];
    snprintf(tenant, sizeof(tenant), "%s", repeat('t', 300));
    snprintf(principal, sizeof(principal), "%s", repeat('p', 300));
    struct log_subject subject = { .tenant = tenant, .principal = principal, .session = UINT64_MAX };
    for (int json = 0; json < 2; json++) {
        log_setup(LOG_LEVEL_INFO, json);
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            capture_begin(STDERR_FILENO);
            log_write(LOG_LEVEL_INFO, &subject, "%s", repeat('"', lengths[i]));
            one_line();
            capture_begin(STDERR_FILENO);
            log_write(LOG_LEVEL_INFO, &subject, "%s", repeat('\n', lengths[i]));
            one_line();
        }
    }
}

/* ---- JSON ---- */

Test(log, a_json_line)
{
    log_setup(LOG_LEVEL_INFO, true);
    struct log_subject subject = { .tenant = "acme", .principal = "raspi", .session = 42 };
    capture_begin(STDERR_FILENO);
    log_write(LOG_LEVEL_INFO, &subject, "say \"%s\"", "hi\n\xff");
    json_t *line = json_loads(one_line(), JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(line);
    cr_expect_str_eq(json_string_value(json_object_get(line, "level")), "info");
    cr_expect_str_eq(json_string_value(json_object_get(line, "tenant")), "acme");
    cr_expect_str_eq(json_string_value(json_object_get(line, "principal")), "raspi");
    cr_expect_eq(json_integer_value(json_object_get(line, "session")), 42);
    cr_expect_str_eq(json_string_value(json_object_get(line, "message")), "say \"hi\\x0a\\xff\"");
    cr_expect_eq(strlen(json_string_value(json_object_get(line, "time"))), 24);
    cr_expect_eq(json_object_size(line), 6);
    json_decref(line);

    capture_begin(STDERR_FILENO);
    log_error("x");
    line = json_loads(one_line(), 0, NULL);
    cr_expect_eq(json_object_size(line), 3);
    json_decref(line);
}

/* ---- Threads ---- */

/* Whoever reads the other end of a datagram socket meets each write() by itself. */
Test(log, a_line_is_one_write)
{
    int fds[2];
    char line[8192];
    log_setup(LOG_LEVEL_INFO, false);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
    capture_begin(STDERR_FILENO);
    dup2(fds[0], STDERR_FILENO);
    log_info("%s", repeat('x', 3000));
    log_info("second");
    capture_end();
    ssize_t n = recv(fds[1], line, sizeof(line), MSG_DONTWAIT);
    cr_assert_gt(n, 2000);
    cr_expect_eq(line[n - 1], '\n');
    n = recv(fds[1], line, sizeof(line), MSG_DONTWAIT);
    cr_assert_gt(n, 7);
    cr_expect_eq(memcmp(line + n - 7, "second\n", 7), 0);
    cr_expect_lt(recv(fds[1], line, sizeof(line), MSG_DONTWAIT), 0);
}

#define PER_THREAD 100

static void *log_many(void *arg)
{
    for (int i = 0; i < PER_THREAD; i++)
        log_info("from %s to %s end", (const char *)arg, (const char *)arg);
    return NULL;
}

Test(log, lines_of_many_threads_do_not_mix)
{
    static const char letters[] = "abcd";
    pthread_t threads[4];
    char texts[4][41];
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(STDERR_FILENO);
    for (int i = 0; i < 4; i++) {
        memset(texts[i], letters[i], 40);
        texts[i][40] = '\0';
        pthread_create(&threads[i], NULL, log_many, texts[i]);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    int lines = 0;
    for (const char *line = capture_end(); *line != '\0'; line = strchr(line, '\n') + 1, lines++) {
        const char *from = strstr(line, " from ") + 6;
        cr_assert_eq(strspn(from, (char[]){ *from, '\0' }), 40);
        cr_assert_eq(strncmp(from + 40, " to ", 4), 0);
        cr_assert_eq(strncmp(from + 44, from, 40), 0);
        cr_assert_eq(strncmp(from + 84, " end\n", 5), 0);
    }
    cr_assert_eq(lines, 4 * PER_THREAD);
}

/* ---- The writer ---- */

Test(log, nothing_is_lost_at_a_normal_end)
{
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(STDERR_FILENO);
    cr_assert_eq(log_start(), 0);
    for (int i = 0; i < 1000; i++)
        log_info("line %d end", i);
    log_stop();
    log_info("line 1000 end");
    const char *line = capture_end();
    for (int i = 0; i <= 1000; i++) {
        char expected[32];
        snprintf(expected, sizeof(expected), "info line %d end\n", i);
        cr_assert_eq(strncmp(behind_time(line), expected, strlen(expected)), 0, "%.80s", line);
        line = strchr(line, '\n') + 1;
    }
    cr_expect_str_empty(line);
}

/* stderr becomes a pipe that nobody reads; returns the end to read from. */
static int stall_stderr(void)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    return fds[0];
}

static void *read_to_end(void *arg)
{
    static char text[16 << 20];
    size_t used = 0;
    for (ssize_t n = 1; n > 0; used += (size_t)n)
        n = read(*(int *)arg, text + used, sizeof(text) - 1 - used);
    return text;
}

/* More than the pipe and the queue hold, so that this does not end if anybody waits for the reader. */
Test(log, who_logs_does_not_wait_for_the_reader, .timeout = 60)
{
    enum { TOTAL = 20000 };
    pthread_t reader;
    void *text;
    char what[64] = "";
    int kept = 0, next = 0, gap = 0, lost = 0;
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(STDERR_FILENO);
    int fd = stall_stderr();
    cr_assert_eq(log_start(), 0);
    for (int i = 0; i < TOTAL; i++)
        log_info("number %d %s", i, repeat('x', 100));
    pthread_create(&reader, NULL, read_to_end, &fd);
    log_stop();
    capture_end(); /* closes the pipe */
    pthread_join(reader, &text);
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (sscanf(behind_time(line), "info number %d %63s", &next, what) == 2)
            cr_assert_eq(next, kept++ + lost, "in order, without a gap that is not told");
        else if (sscanf(behind_time(line), "warn log: %d lines were lost here", &gap) == 1)
            lost += gap;
        else
            cr_assert_fail("%.80s", line);
    }
    cr_expect_gt(kept, 1000);
    cr_expect_gt(lost, 0);
    cr_expect_eq(kept + lost, TOTAL);
}

static void log_as(const char *tenant, uint64_t session, const char *text)
{
    struct log_subject subject = { .tenant = tenant, .session = session };
    log_write(LOG_LEVEL_INFO, &subject, "%s", text);
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

/* Three fill all that they may, as many as there may be are there, and yet each that has little to say is
 * heard. */
Test(log, nobody_takes_the_room_of_others, .timeout = 60)
{
    static const char *const loud[] = { "loud", NULL, "louder" };
    enum { LINES = 6000 };
    pthread_t reader;
    void *text;
    char name[16];
    unsigned long long lost = 0, n;
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(STDERR_FILENO);
    int fd = stall_stderr();
    cr_assert_eq(log_start(), 0);
    for (int i = 0; i < 3 * LINES; i++)
        log_as(loud[i / LINES], 1, repeat('x', 100));
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        log_as(name, 1, "quiet");
    }
    log_as("loud", 0, "own"); /* what an administrator did to it */
    log_info("own");
    pthread_create(&reader, NULL, read_to_end, &fd);
    log_stop();
    capture_end();
    pthread_join(reader, &text);
    cr_expect_eq(count(text, "session=1 quiet\n"), 100);
    cr_expect_eq(count(text, " own\n"), 2);
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1)
        if (sscanf(behind_time(line), "warn tenant=loud log: %llu lines were lost here", &n) == 1)
            lost += n;
    cr_expect_gt(lost, 0);
    cr_expect_eq(count(text, "tenant=loud session=1 xxx") + lost, LINES);
    cr_expect_gt(count(text, "tenant=loud session=1 xxx"), 1000);
    cr_expect_gt(count(text, "info session=1 xxx"), 100);
    cr_expect_eq(count(text, "tenant=louder log: "), 1);
}

Test(log, the_end_does_not_wait_for_ever, .timeout = 60)
{
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(STDERR_FILENO);
    int fd = stall_stderr();
    cr_assert_eq(log_start(), 0);
    for (int i = 0; i < 1000; i++)
        log_info("%s", repeat('x', 1000));
    log_stop();
    log_info("lost");
    _exit(fd < 0); /* the writer still hangs in its write */
}
