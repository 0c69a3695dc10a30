#include "relayd/config.h"

#include "relayd/log.h"
#include "support.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct config config;
static const char *said; /* on stderr by the last load() */

TestSuite(config, .init = temp_make, .fini = temp_remove);

#define ARGS(...) ((const char *const[]){ "relayd", __VA_ARGS__, NULL })
#define NO_ARGS ((const char *const[]){ "relayd", NULL })

static enum config_outcome load(const char *const words[])
{
    char *argv[32]; /* getopt moves them about */
    int argc = 0;
    for (; words[argc] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    argv[argc] = NULL;
    memset(&config, 0x5a, sizeof(config));
    capture_begin(STDERR_FILENO);
    enum config_outcome outcome = config_load(&config, argc, argv);
    said = capture_end();
    cr_expect_eq(outcome == CONFIG_ERROR, *said != '\0', "an error says why, nothing else speaks: %s", said);
    return outcome;
}

static enum config_outcome load_option(const char *option, const char *value)
{
    return load(ARGS(option, value));
}

static enum config_outcome load_file(const char *text)
{
    return load(ARGS("--config", temp_file("relayd.conf", text)));
}

/* The address number i as text, "127.0.0.1:22" or "[::1]:22". */
static const char *address(size_t i)
{
    static char text[80];
    char host[INET6_ADDRSTRLEN];
    cr_assert_lt(i, config.listen.n);
    const struct sockaddr_storage *any = &config.listen.v[i].addr;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)any;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)any;
    if (any->ss_family == AF_INET) {
        cr_expect_eq(config.listen.v[i].len, sizeof(*v4));
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(text, sizeof(text), "%s:%u", host, ntohs(v4->sin_port));
    } else {
        cr_expect_eq(any->ss_family, AF_INET6);
        cr_expect_eq(config.listen.v[i].len, sizeof(*v6));
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(text, sizeof(text), "[%s]:%u", host, ntohs(v6->sin6_port));
    }
    return text;
}

/* ---- Defaults ---- */

Test(config, defaults)
{
    cr_assert_eq(load(NO_ARGS), CONFIG_RUN);
    cr_expect_eq(config.listen.n, 2);
    cr_expect_str_eq(address(0), "[::]:2222");
    cr_expect_str_eq(address(1), "0.0.0.0:2222");
    cr_expect_str_eq(config.state_dir.text, "/var/lib/relayd");
    cr_expect_str_eq(config.control_socket.text, "/run/relayd/control.sock");
    cr_expect_str_eq(config.user.text, "");
    cr_expect_eq(config.workers, 0);
    cr_expect_eq(config.log_level, LOG_LEVEL_INFO);
    cr_expect_not(config.log_format);
    cr_expect_eq(config.login_grace, 30000);
    cr_expect_eq(config.max_logins, 1000);
    cr_expect(config.penalties);
    cr_expect_eq(config.penalty_exempt.n, 2);
    cr_expect_eq(config.drain_timeout, 3000);
    cr_expect_eq(config.dead_peer_timeout, 45000);
    cr_expect_eq(config.rekey_limit, 0);
    cr_expect_eq(config.event_age, 90 * 86400);
    cr_expect_eq(config.event_count, 100000);
    cr_expect_not(config.check_only);
}

/* ---- Each type ---- */

static void expect_values(const char *option, const char *const good[], const char *const bad[])
{
    for (; *good != NULL; good++)
        cr_expect_eq(load_option(option, *good), CONFIG_RUN, "%s \"%s\"", option, *good);
    for (; *bad != NULL; bad++) {
        cr_expect_eq(load_option(option, *bad), CONFIG_ERROR, "%s \"%s\"", option, *bad);
        cr_expect_not_null(strstr(said, option), "%s", said);
        cr_expect_not_null(strstr(said, "expected"), "%s", said);
    }
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

Test(config, counts)
{
    expect_values("--workers", LIST("0", "1", "256", "007"),
                  LIST("", " ", "257", "-1", "+1", "1.5", "x", "0x10", "1 ", " 1", "4294967297",
                       "18446744073709551617", "99999999999999999999999"));
    load_option("--workers", "256");
    cr_expect_eq(config.workers, 256);
}

Test(config, durations)
{
    static const struct {
        const char *text;
        unsigned ms;
    } rows[] = { { "0s", 0 },         { "1ms", 1 },
                 { "500ms", 500 },    { "30s", 30000 },
                 { "5m", 300000 },    { "8h", 28800000 },
                 { "7d", 604800000 }, { "168h", 604800000 },
                 { "0ms", 0 },        { "604800s", 604800000 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect_eq(load_option("--drain-timeout", rows[i].text), CONFIG_RUN);
        cr_expect_eq(config.drain_timeout, rows[i].ms, "%s", rows[i].text);
    }
    expect_values("--drain-timeout", LIST("0m"),
                  LIST("", "30", "s", "-1s", "1.5s", "30 s", "30S", "30sec", "1w", "8d", "169h",
                       "604800001ms", "18446744073709551616s", "18446744073709552s", "213503982334602d",
                       "30s5"));
}

Test(config, timeouts_are_not_nothing)
{
    expect_values("--login-grace", LIST("1ms", "30s"), LIST("0", "0s", "0ms", "", "30"));
    expect_values("--dead-peer-timeout", LIST("5s", "5000ms", "1h"), LIST("0s", "4s", "4999ms", "5"));
}

Test(config, ages_and_rows)
{
    expect_values("--event-age", LIST("1s", "90d", "3660d", "12h"),
                  LIST("", "0s", "0d", "90", "500ms", "3661d", "-1d", "1w", "18446744073709551616s"));
    load_option("--event-age", "3660d");
    cr_expect_eq(config.event_age, UINT64_C(3660) * 86400);
    expect_values("--event-count", LIST("1", "100000000"), LIST("", "0", "100000001", "-1", "x", "1K"));
    load_option("--event-count", "5000");
    cr_expect_eq(config.event_count, 5000);
}

Test(config, sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = { { "0", 0 },
                 { "65536", 65536 },
                 { "64K", 65536 },
                 { "2M", 2097152 },
                 { "1G", 1073741824 },
                 { "1024G", UINT64_C(1) << 40 },
                 { "1099511627776", UINT64_C(1) << 40 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect_eq(load_option("--rekey-limit", rows[i].text), CONFIG_RUN);
        cr_expect_eq(config.rekey_limit, rows[i].bytes, "%s", rows[i].text);
    }
    expect_values("--rekey-limit", LIST("100K"),
                  LIST("", "K", "1", "1K", "65535", "-1", "1k", "1KB", "1 K", "1T", "1025G", "1099511627777",
                       "18446744073709551615", "18014398509481984K", "1e3"));
}

Test(config, words)
{
    expect_values("--log-level", LIST("error", "warn", "info", "debug"),
                  LIST("", "INFO", "infos", "inf", "2"));
    load_option("--log-level", "debug");
    cr_expect_eq(config.log_level, LOG_LEVEL_DEBUG);
    expect_values("--log-format", LIST("text", "json"), LIST("", "JSON", "xml"));
    load_option("--log-format", "json");
    cr_expect(config.log_format);
}

Test(config, switches_and_logins)
{
    expect_values("--penalties", LIST("on", "off"), LIST("", "yes", "ON", "1", "offf"));
    load_option("--penalties", "off");
    cr_expect_not(config.penalties);
    expect_values("--max-logins", LIST("1", "1000000"), LIST("", "0", "1000001", "-1", "x", "1K"));
    load_option("--max-logins", "257");
    cr_expect_eq(config.max_logins, 257);
}

Test(config, networks)
{
    char many[2048] = "";
    expect_values("--penalty-exempt", LIST("", " ", "::1", "10.0.0.0/8, 2001:db8::/32"),
                  LIST("10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0/8;", repeat('1', 2000)));
    cr_assert_eq(load(ARGS("--penalty-exempt", "10.0.0.0/8 ::1", "--penalty-exempt", "192.0.2.1")),
                 CONFIG_RUN);
    cr_assert_eq(config.penalty_exempt.n, 3, "the defaults are replaced");
    cr_expect_eq(config.penalty_exempt.v[0].bits, 8);
    cr_expect_eq(config.penalty_exempt.v[2].bits, 32);
    for (int i = 0; i < CONFIG_NETWORKS_MAX; i++)
        strcat(many, "10.0.0.0/8 ");
    cr_expect_eq(load_option("--penalty-exempt", many), CONFIG_RUN);
    strcat(many, "::1");
    cr_expect_eq(load_option("--penalty-exempt", many), CONFIG_ERROR);
}

Test(config, texts_and_paths)
{
    expect_values("--public-address", LIST("", "relay.example.net:2222", repeat('a', 255)),
                  LIST(repeat('a', 256)));
    cr_expect_eq(load_option("--public-address", repeat('b', 60000)), CONFIG_ERROR);
    expect_values("--state-dir", LIST("/", repeat('a', 255)), LIST("", repeat('a', 256)));
    load_option("--state-dir", repeat('z', 255));
    cr_expect_str_eq(config.state_dir.text, repeat('z', 255));
}

Test(config, addresses)
{
    static const char *const good[] = { "127.0.0.1:2222", "0.0.0.0:0", "[::1]:65535", "[fe80::1]:1" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_expect_eq(load_option("--listen", good[i]), CONFIG_RUN, "%s", good[i]);
        cr_expect_eq(config.listen.n, 1);
        cr_expect_str_eq(address(0), good[i]);
    }
    expect_values("--listen", LIST("127.0.0.1:02222"),
                  LIST(":22", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1",
                       "127.0.0.1:22x", "127.0.0.1:123456", "localhost:22", "::1:22", "[::1]", "[::1]:",
                       "[::1:22", "::1]:22", "[]:22", "[:22", "[]", "]:22", "[127.0.0.1]:22", "[::1]x:22",
                       "1.2.3:22", "1.2.3.4.5:22", "*:22", "22", "127.0.0.1:2222\t127.0.0.1:2223"));
}

Test(config, several_addresses)
{
    cr_assert_eq(load(ARGS("--listen", "1.1.1.1:1, [::2]:2", "--listen", "3.3.3.3:3")), CONFIG_RUN);
    cr_assert_eq(config.listen.n, 3);
    cr_expect_str_eq(address(1), "[::2]:2");
    cr_expect_str_eq(address(2), "3.3.3.3:3");
    char many[1024] = "";
    for (int i = 0; i < CONFIG_LISTEN_MAX; i++)
        strcat(many, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535 ");
    cr_expect_eq(load_option("--listen", many), CONFIG_RUN);
    cr_expect_eq(config.listen.n, CONFIG_LISTEN_MAX);
    strcat(many, "1.1.1.1:1");
    cr_expect_eq(load_option("--listen", many), CONFIG_ERROR);
}

Test(config, nothing_of_a_long_list_is_dropped_in_silence)
{
    char text[1200];
    snprintf(text, sizeof(text), "1.1.1.1:1 %s 2.2.2.2:2", repeat(' ', 1050));
    if (load_option("--listen", text) == CONFIG_RUN)
        cr_expect_eq(config.listen.n, 2);
}

Test(config, a_long_value_does_not_hide_what_was_expected)
{
    load_option("--public-address", repeat('b', 5000));
    cr_expect_not_null(strstr(said, "at most 255"), "%s", said);
}

Test(config, to_listen_nowhere_is_an_error)
{
    cr_expect_eq(load_option("--listen", ""), CONFIG_ERROR);
    cr_expect_eq(load_option("--listen", " , "), CONFIG_ERROR);
    cr_expect_eq(load_file("[relayd]\nlisten =\n"), CONFIG_ERROR);
}

/* ---- Files ---- */

Test(config, a_file)
{
    cr_assert_eq(
        load_file("# a comment\n; another\n\n[relayd]\nlisten = 1.1.1.1:1\nstate-dir=/s p  \n"
                  "workers = 3 ; why\nlisten = 2.2.2.2:2\nlogin-grace: 5s\n[relayd]\nlog-format = json"),
        CONFIG_RUN);
    cr_expect_eq(config.listen.n, 2);
    cr_expect_str_eq(address(0), "1.1.1.1:1");
    cr_expect_str_eq(address(1), "2.2.2.2:2");
    cr_expect_str_eq(config.state_dir.text, "/s p");
    cr_expect_eq(config.workers, 3);
    cr_expect_eq(config.login_grace, 5000);
    cr_expect(config.log_format);
    cr_expect_eq(config.drain_timeout, 3000, "what the file does not say keeps its default");
    cr_expect_eq(load_file(""), CONFIG_RUN);
}

Test(config, each_bad_line_is_refused_and_named)
{
    static const struct {
        const char *text, *where, *what;
    } rows[] = {
        { "[relayd]\nworkers = 300\n", ":2: ", "workers = 300" },
        { "[relayd]\n\n# x\nworkers = x\n", ":4: ", "workers = x" },
        { "[relayd]\nworker = 3\n", ":2: ", "worker" },
        { "[relayd]\nWorkers = 3\n", ":2: ", "Workers" },
        { "workers = 3\n", ":1: ", "[relayd]" },
        { "[relay]\nworkers = 3\n", ":2: ", "[relay]" },
        { "[relayd]\nworkers\n", ":2: ", "KEY = VALUE" },
        { "[relayd\nworkers = 3\n", ":1: ", "[relayd]" },
        { "[relayd]\nworkers = 3\nworkers = 3\n", ":3: ", "twice" },
        { "[relayd]\nstate-dir =\n", ":2: ", "state-dir" },
        { "[relayd]\nconfig = /x\n", ":2: ", "config" },
        { "[relayd]\nworkers = 3\nnonsense\nlog-format = xml\n", ":3: ", "KEY = VALUE" },
        { "[relayd]\nworkers = 3\nnonsense\nlog-format = xml\n", ":4: ", "log-format" },
        { "[relayd]\nlog-format = \x1b[2J\n", ":2: ", "\\x1b[2J" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect_eq(load_file(rows[i].text), CONFIG_ERROR, "%s", rows[i].text);
        cr_expect_not_null(strstr(said, "relayd.conf"), "%s", said);
        cr_expect_not_null(strstr(said, rows[i].where), "%s", said);
        cr_expect_not_null(strstr(said, rows[i].what), "%s", said);
    }
}

Test(config, long_lines)
{
    char text[1024];
    snprintf(text, sizeof(text), "[relayd]\nstate-dir = %s\nworkers = 3\n", repeat('a', 180));
    cr_expect_eq(load_file(text), CONFIG_RUN);
    cr_expect_eq(config.workers, 3);
    snprintf(text, sizeof(text), "[relayd]\nstate-dir = %s\nworkers = x\n", repeat('a', 250));
    cr_expect_eq(load_file(text), CONFIG_ERROR);
    cr_expect_not_null(strstr(said, ":2: "), "%s", said);
    cr_expect_not_null(strstr(said, ":3: "), "%s", said);
    for (size_t n = 150; n < 260; n++) {
        snprintf(text, sizeof(text), "[relayd]\n# %sworkers = 7\nstate-dir = /x\n", repeat('#', n));
        load_file(text);
        cr_expect_eq(config.workers, 0, "the end of a comment of %zu bytes was obeyed", n);
    }
}

Test(config, files_that_cannot_be_read)
{
    cr_expect_eq(load(ARGS("--config", temp_path("missing"))), CONFIG_ERROR);
    cr_expect_not_null(strstr(said, "missing"));
    cr_expect_eq(load(ARGS("--config", temp_path("."))), CONFIG_ERROR, "a directory");
}

/* ---- Options ---- */

Test(config, an_option_wins_over_the_file)
{
    const char *file = temp_file("relayd.conf", "[relayd]\nworkers = 3\nlisten = 1.1.1.1:1\nuser = pi\n");
    cr_assert_eq(load(ARGS("--workers", "5", "--config", file, "--listen", "2.2.2.2:2")), CONFIG_RUN);
    cr_expect_eq(config.workers, 5, "also when it stands before --config");
    cr_expect_eq(config.listen.n, 1, "the file's addresses must go");
    cr_expect_str_eq(address(0), "2.2.2.2:2");
    cr_expect_str_eq(config.user.text, "pi");
    cr_assert_eq(load(ARGS("--config", file, "--workers=6", "--workers", "7")), CONFIG_RUN);
    cr_expect_eq(config.workers, 7, "the last one wins");
    cr_expect_str_eq(address(0), "1.1.1.1:1");
}

Test(config, a_bad_file_is_an_error_whatever_the_options_say)
{
    const char *file = temp_file("relayd.conf", "[relayd]\nworkers = x\n");
    cr_expect_eq(load(ARGS("--config", file, "--workers", "5")), CONFIG_ERROR);
}

Test(config, options_that_are_none)
{
    cr_expect_eq(load(ARGS("--colour", "red")), CONFIG_ERROR);
    cr_expect_eq(load(ARGS("--workers")), CONFIG_ERROR);
    cr_expect_eq(load(ARGS("--config")), CONFIG_ERROR);
    cr_expect_eq(load(ARGS("stray")), CONFIG_ERROR);
    cr_expect_not_null(strstr(said, "stray"));
    cr_expect_eq(load(ARGS("--", "stray")), CONFIG_ERROR);
    cr_expect_eq(load(ARGS("-w", "3")), CONFIG_ERROR);
}

Test(config, questions)
{
    cr_expect_eq(load(ARGS("--version")), CONFIG_VERSION);
    cr_expect_eq(load(ARGS("--check-config")), CONFIG_RUN);
    cr_expect(config.check_only);
    cr_expect_eq(load(ARGS("--check-config", "--workers", "x")), CONFIG_ERROR);
}

Test(config, help_tells_of_every_key)
{
    static const char *const keys[] = {
#define CONFIG(id, key, type, value, help) "--" key " ",
#include "relayd/config.def"
#undef CONFIG
        "--config ",
        "--check-config ",
        "--version "
    };
    char *argv[] = { (char[]){ "relayd" }, (char[]){ "--help" }, NULL };
    capture_begin(STDOUT_FILENO);
    enum config_outcome outcome = config_load(&config, 2, argv);
    const char *help = capture_end();
    cr_expect_eq(outcome, CONFIG_HELPED);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        cr_expect_not_null(strstr(help, keys[i]), "%s", keys[i]);
}

/* ---- Reloading ---- */

static struct config *reload(const char *text, struct failure *failure)
{
    char *argv[] = { (char[]){ "relayd" }, (char[]){ "--config" },
                     (char *)(uintptr_t)temp_file("relayd.conf", text), NULL };
    capture_begin(STDERR_FILENO);
    struct config *got = config_reload(3, argv, failure);
    said = capture_end();
    return got;
}

/* The names of the keys with different values, a "!" before those that are fixed. */
static const char *differences(const struct config *a, const struct config *b)
{
    static char text[512];
    const char *name;
    size_t at = 0, used = 0;
    bool fixed;
    text[0] = '\0';
    while ((name = config_difference(a, b, &at, &fixed)) != NULL)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s ", fixed ? "!" : "", name);
    return text;
}

Test(config, what_differs_is_named)
{
    struct failure failure = { 0 };
    cr_assert_eq(load_file("[relayd]\nstate-dir = /a/long/path\nlogin-grace = 30s\n"), CONFIG_RUN);
    struct config *new = reload("[relayd]\nstate-dir = /a/long/path\nlogin-grace = 30000ms\n", &failure);
    cr_expect_str_eq(differences(&config, new), "");
    config_release(new);
    new = reload("[relayd]\nlogin-grace = 5s\nlisten = 1.1.1.1:1\nstate-dir = /x\nlog-format = json\n",
                 &failure);
    cr_expect_str_eq(differences(&config, new), "!listen !state-dir log-format login-grace ");
    config_release(new);
    cr_expect_eq(failure.reason, REASON_none);
}

Test(config, what_a_longer_value_left_behind_is_no_difference)
{
    struct failure failure = { 0 };
    load_file("[relayd]\nlisten = 1.1.1.1:1\n");
    char *argv[] = { (char[]){ "relayd" },    (char[]){ "--config" },
                     (char[]){ "" },          (char[]){ "--state-dir" },
                     (char[]){ "/x" },        (char[]){ "--listen" },
                     (char[]){ "3.3.3.3:3" }, NULL };
    argv[2] = (char *)(uintptr_t)temp_file("a",
                                           "[relayd]\nstate-dir = /long/one\nlisten = 1.1.1.1:1 2.2.2.2:2\n");
    struct config *a = config_reload(7, argv, &failure);
    argv[2] = (char *)(uintptr_t)temp_file("b", "");
    struct config *b = config_reload(7, argv, &failure);
    cr_expect_str_eq(differences(a, b), "");
    config_release(a);
    config_release(b);
}

Test(config, a_bad_reload_gives_the_first_reason_and_logs_all)
{
    struct failure failure = { 0 };
    cr_assert_null(reload("[relayd]\nworkers = x\nlog-format = xml\n", &failure));
    cr_expect_eq(failure.reason, REASON_bad_config);
    cr_expect_not_null(strstr(failure.text, ":2: workers = x"), "%s", failure.text);
    cr_expect_not_null(strstr(said, ":2: workers = x"), "%s", said);
    cr_expect_not_null(strstr(said, ":3: log-format = xml"), "%s", said);
}

Test(config, the_last_holder_frees_it)
{
    struct failure failure = { 0 };
    struct config *got = reload("", &failure);
    cr_expect_eq(config_hold(got), got);
    config_release(got);
    cr_expect_eq(got->login_grace, 30000);
    config_release(got);
    config_release(NULL);
}
