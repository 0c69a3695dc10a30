#include "relayd/config.h"

#include "relayd/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Each parser returns NULL, or what it expected. */
typedef const char *parser(const char *text, void *value);

/* "127.0.0.1:2222" or "[::1]:2222"; port 0 lets the kernel choose. Cuts the word up. */
static int parse_address(char *word, struct config_address *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->addr;
    char *colon = strrchr(word, ':');
    if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) > 5 ||
        colon[1 + strspn(colon + 1, "0123456789")])
        return -1;
    unsigned long port = strtoul(colon + 1, NULL, 10);
    *colon = '\0';
    if (port > UINT16_MAX)
        return -1;
    if (word[0] == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        address->len = sizeof(*v6);
        return inet_pton(AF_INET6, word + 1, &v6->sin6_addr) == 1 ? 0 : -1;
    }
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    address->len = sizeof(*v4);
    return inet_pton(AF_INET, word, &v4->sin_addr) == 1 ? 0 : -1;
}

/* Calls add(list, word), which returns what is wrong or NULL, for each word of a list. */
static const char *parse_list(const char *text, void *list, const char *(*add)(void *list, char *word))
{
    char copy[1024];
    char *rest = copy, *word;
    const char *wrong = NULL;
    if (strlen(text) >= sizeof(copy))
        return "a list of fewer than 1024 bytes";
    memcpy(copy, text, strlen(text) + 1);
    while (wrong == NULL && (word = strsep(&rest, " ,")) != NULL)
        if (*word != '\0')
            wrong = add(list, word);
    return wrong;
}

static const char an_address[] = "ADDR:PORT such as 0.0.0.0:2222 or [::]:2222";

static const char *add_address(void *value, char *word)
{
    struct config_addresses *list = value;
    if (list->n == CONFIG_LISTEN_MAX)
        return "at most 16 addresses";
    if (parse_address(word, &list->v[list->n]) != 0)
        return an_address;
    list->n++;
    return NULL;
}

static const char *parse_ADDRESSES(const char *text, void *value)
{
    const struct config_addresses *list = value;
    const char *wrong = parse_list(text, value, add_address);
    return wrong == NULL && list->n == 0 ? an_address : wrong;
}

static const char *add_network(void *value, char *word)
{
    struct config_networks *list = value;
    if (list->n == CONFIG_NETWORKS_MAX)
        return "at most 64 networks";
    if (network_parse(word, &list->v[list->n]) != 0)
        return "an address or a network such as 192.0.2.0/24 or 2001:db8::/32";
    list->n++;
    return NULL;
}

/* None at all is good. */
static const char *parse_NETWORKS(const char *text, void *value)
{
    return parse_list(text, value, add_network);
}

static const char *parse_TEXT(const char *text, void *value)
{
    size_t len = strlen(text);
    if (len >= CONFIG_TEXT_SIZE)
        return "a text of at most 255 bytes";
    memcpy(value, text, len + 1);
    return NULL;
}

static const char *parse_PATH(const char *text, void *value)
{
    if (*text == '\0')
        return "a path";
    return parse_TEXT(text, value);
}

/* HOST or HOST:PORT, an IPv6 address in brackets, or nothing. */
static const char *parse_HOST(const char *text, void *value)
{
    size_t host = text[0] == '['
                      ? strspn(text + 1, "0123456789abcdefABCDEF:.") + 2
                      : strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
    bool closed = text[0] != '[' || (host <= strlen(text) && text[host - 1] == ']');
    size_t digits = closed && text[host] == ':' ? strspn(text + host + 1, "0123456789") : 0;
    bool whole = closed && (text[host] == '\0' ||
                            (host > 0 && digits > 0 && digits <= 5 && text[host + 1 + digits] == '\0'));
    return whole ? parse_TEXT(text, value) : "HOST or HOST:PORT, with an IPv6 address in brackets";
}

/* A whole number followed by a unit of the table (name, factor); *result in the base unit. */
struct unit {
    const char *name;
    uint64_t factor;
};

static int parse_number(const char *text, const struct unit *units, uint64_t max, uint64_t *result)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    for (; units->name != NULL; units++) {
        if (strcmp(end, units->name) != 0)
            continue;
        if (errno != 0 || number > max / units->factor)
            return -1;
        *result = number * units->factor;
        return 0;
    }
    return -1;
}

static const char *parse_COUNT(const char *text, void *value)
{
    static const struct unit units[] = { { "", 1 }, { NULL, 0 } };
    uint64_t number;
    if (parse_number(text, units, 256, &number) != 0)
        return "a whole number from 0 to 256";
    *(unsigned *)value = (unsigned)number;
    return NULL;
}

static const char *parse_LOGINS(const char *text, void *value)
{
    static const struct unit units[] = { { "", 1 }, { NULL, 0 } };
    uint64_t number;
    if (parse_number(text, units, 1000000, &number) != 0 || number == 0)
        return "a whole number from 1 to 1000000";
    *(unsigned *)value = (unsigned)number;
    return NULL;
}

static const char *parse_ROWS(const char *text, void *value)
{
    static const struct unit units[] = { { "", 1 }, { NULL, 0 } };
    uint64_t number;
    if (parse_number(text, units, 100000000, &number) != 0 || number == 0)
        return "a whole number from 1 to 100000000";
    *(unsigned *)value = (unsigned)number;
    return NULL;
}

static const char *parse_DURATION(const char *text, void *value)
{
    static const struct unit units[] = { { "ms", 1 },      { "s", 1000 },         { "m", 60 * 1000 },
                                         { "h", 3600000 }, { "d", 24 * 3600000 }, { NULL, 0 } };
    uint64_t number;
    if (parse_number(text, units, 7 * 24 * 3600000, &number) != 0)
        return "a duration such as 500ms, 30s, 5m or 8h, at most 7d";
    *(unsigned *)value = (unsigned)number;
    return NULL;
}

/* A duration after which something is given up: never at once. */
static const char *parse_TIMEOUT(const char *text, void *value)
{
    const char *expected = parse_DURATION(text, value);
    return expected == NULL && *(unsigned *)value == 0 ? "a duration of more than 0, such as 30s" : expected;
}

/* One in which a healthy peer can answer a few probes, which go out once a second at most. */
static const char *parse_PATIENCE(const char *text, void *value)
{
    const char *expected = parse_DURATION(text, value);
    return expected == NULL && *(unsigned *)value < 5000 ? "a duration of 5s or more, such as 45s" : expected;
}

/* How long something is kept. */
static const char *parse_AGE(const char *text, void *value)
{
    static const struct unit units[] = {
        { "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 24 * 3600 }, { NULL, 0 }
    };
    uint64_t number;
    if (parse_number(text, units, UINT64_C(3660) * 24 * 3600, &number) != 0 || number == 0)
        return "a duration of more than 0 such as 12h or 90d, at most 3660d";
    *(uint64_t *)value = number;
    return NULL;
}

static const char *parse_SIZE(const char *text, void *value)
{
    static const struct unit units[] = {
        { "", 1 }, { "K", 1u << 10 }, { "M", 1u << 20 }, { "G", 1u << 30 }, { NULL, 0 }
    };
    uint64_t number;
    if (parse_number(text, units, UINT64_C(1) << 40, &number) != 0 || (number > 0 && number < 65536))
        return "0, or a size of 64K or more, such as 2M or 1G";
    *(uint64_t *)value = number;
    return NULL;
}

static const char *parse_LEVEL(const char *text, void *value)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *(unsigned *)value = i;
            return NULL;
        }
    }
    return "error, warn, info or debug";
}

static const char *parse_FORMAT(const char *text, void *value)
{
    *(bool *)value = strcmp(text, "json") == 0;
    return *(bool *)value || strcmp(text, "text") == 0 ? NULL : "text or json";
}

static const char *parse_SWITCH(const char *text, void *value)
{
    *(bool *)value = strcmp(text, "on") == 0;
    return *(bool *)value || strcmp(text, "off") == 0 ? NULL : "on or off";
}

static const struct key {
    const char *name;
    const char *value;
    const char *help;
    parser *parse;
    size_t offset, size;
    bool repeatable;
    bool fixed;
} keys[] = {
#define KEY(id, key, type, value, help, fixed)                                                               \
    { key,                                                                                                   \
      value,                                                                                                 \
      help,                                                                                                  \
      parse_##type,                                                                                          \
      offsetof(struct config, id),                                                                           \
      sizeof(((struct config *)NULL)->id),                                                                   \
      parse_##type == parse_ADDRESSES || parse_##type == parse_NETWORKS,                                     \
      fixed },
#define CONFIG(...) KEY(__VA_ARGS__, false)
#define CONFIG_FIXED(...) KEY(__VA_ARGS__, true)
#include "relayd/config.def"
#undef CONFIG
#undef KEY
};
#define NKEYS (sizeof(keys) / sizeof(keys[0]))

/* While a file or the options are read: which keys were met there already. A repeatable key met
 * first replaces what an earlier source said. */
struct input {
    struct config *config;
    struct failure *failure; /* for the first complaint of a reload; NULL at the start */
    const char *file;        /* NULL: the command line */
    FILE *in;
    int line;    /* that is being read; inih takes long ones in pieces */
    int refused; /* the first line that was refused; 0: none */
    bool met[NKEYS];
};

/* At the start people read stderr, later the log. */
static void __attribute__((format(printf, 2, 3))) complain(struct failure *failure, const char *fmt, ...)
{
    char text[1536];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (failure == NULL) {
        fprintf(stderr, "relayd: %s\n", text);
        return;
    }
    log_error("the configuration stays as it was: %s", text);
    if (failure->reason == REASON_none)
        fail(failure, REASON_bad_config, "%s", text);
}

static int set_key(struct input *input, size_t i, const char *text, char *error, size_t size)
{
    void *value = (char *)input->config + keys[i].offset;
    if (input->met[i] && !keys[i].repeatable && input->file != NULL) {
        snprintf(error, size, "%s stands there twice", keys[i].name);
        return -1;
    }
    if (!input->met[i] || !keys[i].repeatable)
        memset(value, 0, keys[i].size); /* nothing of an older value is left, so that two can be compared */
    input->met[i] = true;
    const char *expected = keys[i].parse(text, value);
    if (expected == NULL)
        return 0;
    snprintf(error, size, "%s = %.200s: expected %s", keys[i].name, text, expected);
    return -1;
}

static int find_key(const char *name)
{
    for (size_t i = 0; i < NKEYS; i++)
        if (strcmp(keys[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int refuse_line(struct input *input, const char *why)
{
    char plain[1024];
    log_escape(why, plain, sizeof(plain));
    complain(input->failure, "%s:%d: %s", input->file, input->line, plain);
    if (input->refused == 0)
        input->refused = input->line;
    return 0;
}

/* inih's reader: fgets() that counts lines, and refuses those that inih would take in pieces. */
static char *read_line(char *line, int size, void *arg)
{
    struct input *input = arg;
    input->line++;
    char *got = fgets(line, size, input->in);
    if (got == NULL || strchr(got, '\n') != NULL || feof(input->in))
        return got;
    for (int c = 0; c != '\n' && c != EOF;)
        c = fgetc(input->in);
    refuse_line(input, "that line is too long or has a NUL byte: expected at most 198 bytes of text");
    line[0] = '\0'; /* for inih: an empty line */
    return line;
}

/* inih's handler: one key of the file. Returns 1 if it was good. */
static int on_key(void *arg, const char *section, const char *name, const char *value)
{
    struct input *input = arg;
    char error[768];
    int i = find_key(name);
    if (strcmp(section, "relayd") != 0) {
        if (*section == '\0')
            snprintf(error, sizeof(error), "%s stands before the line [relayd]", name);
        else
            snprintf(error, sizeof(error), "section [%s]: expected [relayd]", section);
        return refuse_line(input, error);
    }
    if (i < 0) {
        snprintf(error, sizeof(error), "unknown key \"%s\": relayd --help lists the keys", name);
        return refuse_line(input, error);
    }
    return set_key(input, (size_t)i, value, error, sizeof(error)) == 0 ? 1 : refuse_line(input, error);
}

/* What a pipe held is gone: only a plain file can be read again. */
static bool is_plain_file(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 || S_ISREG(st.st_mode);
}

static int load_file(struct config *config, const char *path, struct failure *failure)
{
    struct input input = { .config = config, .failure = failure, .file = path };
    if (failure != NULL && !is_plain_file(path)) {
        complain(failure, "%s is not a plain file: it can be read at the start only", path);
        return -1;
    }
    input.in = fopen(path, "re");
    if (input.in == NULL) {
        complain(failure, "cannot read %s: %s", path, strerror(errno));
        return -1;
    }
    int first_bad = ini_parse_stream(read_line, &input, on_key, &input);
    if (ferror(input.in)) {
        complain(failure, "cannot read %s: %s", path, strerror(errno));
        fclose(input.in);
        return -1;
    }
    fclose(input.in);
    if (first_bad > 0 && (input.refused == 0 || first_bad < input.refused))
        complain(failure, "%s:%d: expected KEY = VALUE or [relayd]", path, first_bad);
    return first_bad == 0 && input.refused == 0 ? 0 : -1;
}

static void load_defaults(struct config *config)
{
    struct input input = { .config = config };
    char error[768];
    memset(config, 0, sizeof(*config));
    for (size_t i = 0; i < NKEYS; i++)
        if (set_key(&input, i, keys[i].value, error, sizeof(error)) != 0)
            abort();
}

static void print_help(void)
{
    printf("usage: relayd [--config FILE] [--KEY VALUE]...\n\n"
           "relayd is an SSH rendezvous relay; it stays in the foreground. Keys, also in FILE as\n"
           "KEY = VALUE below [relayd]:\n\n");
    for (size_t i = 0; i < NKEYS; i++)
        printf("  --%-18s %s%s%s%s\n", keys[i].name, keys[i].help, *keys[i].value ? " (" : "", keys[i].value,
               *keys[i].value ? ")" : "");
    printf("\n  --%-18s check the configuration and exit\n", "check-config");
    printf("  --%-18s print the versions and exit\n", "version");
    printf("\nSee relayd(8) and relayd.conf(5).\n");
}

enum { OPTION_CONFIG = NKEYS, OPTION_CHECK, OPTION_VERSION, OPTION_HELP, NOPTIONS };

static void make_options(struct option options[NOPTIONS + 1])
{
    memset(options, 0, sizeof(options[0]) * (NOPTIONS + 1));
    for (size_t i = 0; i < NKEYS; i++)
        options[i] = (struct option){ keys[i].name, required_argument, NULL, (int)i };
    options[OPTION_CONFIG] = (struct option){ "config", required_argument, NULL, OPTION_CONFIG };
    options[OPTION_CHECK] = (struct option){ "check-config", no_argument, NULL, OPTION_CHECK };
    options[OPTION_VERSION] = (struct option){ "version", no_argument, NULL, OPTION_VERSION };
    options[OPTION_HELP] = (struct option){ "help", no_argument, NULL, OPTION_HELP };
}

/* The file must be read before the options are set, wherever --config stands: two passes. */
static enum config_outcome read_options(struct config *config, int argc, char *argv[], bool first,
                                        struct failure *failure)
{
    struct option options[NOPTIONS + 1];
    struct input input = { .config = config, .failure = failure };
    char error[768];
    int option;
    make_options(options);
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_CONFIG) {
            if (first && load_file(config, optarg, failure) != 0)
                return CONFIG_ERROR;
        } else if (option == OPTION_CHECK) {
            config->check_only = true;
        } else if (option == OPTION_HELP) {
            print_help();
            return CONFIG_HELPED;
        } else if (option == OPTION_VERSION) {
            return CONFIG_VERSION;
        } else if (option == '?') {
            return CONFIG_ERROR;
        } else if (!first && set_key(&input, (size_t)option, optarg, error, sizeof(error)) != 0) {
            complain(failure, "--%s", error);
            return CONFIG_ERROR;
        }
    }
    if (optind < argc) {
        complain(failure, "there is no use for \"%s\": see relayd --help", argv[optind]);
        return CONFIG_ERROR;
    }
    return CONFIG_RUN;
}

static enum config_outcome load(struct config *config, int argc, char *argv[], struct failure *failure)
{
    load_defaults(config);
    atomic_store(&config->holders, 1);
    enum config_outcome outcome = read_options(config, argc, argv, true, failure);
    return outcome == CONFIG_RUN ? read_options(config, argc, argv, false, failure) : outcome;
}

enum config_outcome config_load(struct config *config, int argc, char *argv[])
{
    return load(config, argc, argv, NULL);
}

/* ---- Reloading ---- */

struct config *config_reload(int argc, char *argv[], struct failure *failure)
{
    struct config *config = malloc(sizeof(*config));
    if (config == NULL) {
        complain(failure, "%s", reason_sentence(REASON_out_of_memory));
    } else if (load(config, argc, argv, failure) != CONFIG_RUN) {
        free(config);
        config = NULL;
    }
    return config;
}

/* Nobody sees the count but these two. */
static struct config *counted(const struct config *config)
{
    return (struct config *)(uintptr_t)config;
}

const struct config *config_hold(const struct config *config)
{
    atomic_fetch_add(&counted(config)->holders, 1);
    return config;
}

void config_release(const struct config *config)
{
    if (config != NULL && atomic_fetch_sub(&counted(config)->holders, 1) == 1)
        free(counted(config));
}

const char *config_difference(const struct config *a, const struct config *b, size_t *at, bool *fixed)
{
    while (*at < NKEYS) {
        const struct key *key = &keys[(*at)++];
        if (memcmp((const char *)a + key->offset, (const char *)b + key->offset, key->size) != 0) {
            *fixed = key->fixed;
            return key->name;
        }
    }
    return NULL;
}
