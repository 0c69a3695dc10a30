#include "relayctl/batch.h"
#include "relayctl/ctl.h"
#include "relayctl/events.h"
#include "relayctl/key.h"
#include "relayctl/print.h"
#include "relayctl/via.h"
#include "relayctl/watch.h"
#include "schema/usage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SOCKET "/run/relayd/control.sock"

enum role { ADMIN = 1, TENANT = 2, DEVICE = 4, CLIENT = 8 };

static const struct command {
    const char *words;
    const char *arguments;
    unsigned roles;
    const char *help;
} commands[] = {
#define COMMAND(id, words, arguments, roles, help) { words, arguments, roles, help },
#include "schema/commands.def"
#undef COMMAND
};
#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

struct options {
    const char *socket;
    const char *tenant; /* NULL: not given */
    const char *via;    /* NULL: over the socket */
    const char *ssh;
    const char *interval;
    int json;
    int follow, watch;
};

/* Those that may be run there; which of them the key may run, relayd knows. */
static int is_known(const struct options *options, const struct command *command)
{
    return (command->roles & (options->via != NULL ? TENANT | DEVICE | CLIENT : ADMIN)) != 0;
}

static void print_usage(const struct options *options, FILE *out)
{
    fputs("usage: relayctl [--control-socket PATH] [--tenant NAME] [--json] COMMAND [ARGUMENTS]\n"
          "       relayctl --via DEST [--ssh COMMAND] [--json] COMMAND [ARGUMENTS]\n"
          "       relayctl [...] --watch [--interval SECONDS] list|show|status [ARGUMENTS]\n"
          "       relayctl [...] events [--follow] [ARGUMENTS]\n\n"
          "relayctl administers a running relayd, with --via over SSH, for the administrators of a tenant\n"
          "(relayctl --via DEST --help lists what there is for them). KEY is a public key, the name of a "
          ".pub file, or -\n"
          "for standard input; FILE has a key a line (see relayctl(8)); FINGERPRINT is SHA256:...; RULE is\n"
          "PATTERN[:PORTS]; WHEN is a duration such as 8h, or a date.\n\n",
          out);
    for (size_t i = 0; i < NCOMMANDS; i++)
        if (is_known(options, &commands[i]))
            fprintf(out, "  %s%s%s\n      %s\n", commands[i].words, *commands[i].arguments ? " " : "",
                    commands[i].arguments, commands[i].help);
}

/* Takes an option of relayctl's own at argv[i]. Returns the words used, 0 if it is none, -1 if its
 * value is missing. */
static int take_option(struct options *options, int argc, char *argv[], int i)
{
    const struct {
        const char *name, **value;
    } known[] = { { "--control-socket", &options->socket },
                  { "--tenant", &options->tenant },
                  { "--via", &options->via },
                  { "--ssh", &options->ssh },
                  { "--interval", &options->interval } };
    const struct {
        const char *name;
        int *flag;
    } flags[] = { { "--json", &options->json },
                  { "--follow", &options->follow },
                  { "--watch", &options->watch } };
    const char **value = NULL;
    for (size_t n = 0; n < sizeof(known) / sizeof(known[0]); n++)
        if (strcmp(argv[i], known[n].name) == 0)
            value = known[n].value;
    for (size_t n = 0; n < sizeof(flags) / sizeof(flags[0]); n++)
        if (strcmp(argv[i], flags[n].name) == 0)
            return *flags[n].flag = 1;
    if (value == NULL)
        return 0;
    if (i + 1 == argc) {
        fprintf(stderr, "relayctl: option %s needs a value\n", argv[i]);
        return -1;
    }
    *value = argv[i + 1];
    return 2;
}

/* Takes the global options out of argv, wherever they stand. Returns how many words are left, -1
 * on error. */
static int take_options(struct options *options, int argc, char *argv[])
{
    int left = 0;
    for (int i = 0; i < argc;) {
        int used = take_option(options, argc, argv, i);
        if (used < 0)
            return -1;
        if (used == 0)
            argv[left++] = argv[i++];
        i += used;
    }
    return left;
}

/* Finds the command that the first one or two words name; *used says how many those were. */
static const struct command *find_command(const struct options *options, int argc, char *const argv[],
                                          int *used)
{
    for (int words = argc < 2 ? argc : 2; words > 0; words--) {
        char name[64];
        snprintf(name, sizeof(name), "%s%s%s", argv[0], words > 1 ? " " : "", words > 1 ? argv[1] : "");
        for (size_t i = 0; i < NCOMMANDS; i++) {
            if (is_known(options, &commands[i]) && strcmp(commands[i].words, name) == 0) {
                *used = words;
                return &commands[i];
            }
        }
    }
    return NULL;
}

/* Which words would have been right there: the second words if the first is one of ours. */
static void complain_about_words(const struct options *options, int argc, char *const argv[])
{
    size_t len = strlen(argv[0]), known = 0;
    for (size_t i = 0; i < NCOMMANDS; i++)
        known += is_known(options, &commands[i]) && strncmp(commands[i].words, argv[0], len) == 0 &&
                 commands[i].words[len] == ' ';
    if (known > 0 && argc > 1)
        fprintf(stderr, "relayctl: there is no %s %s; known are", argv[0], argv[1]);
    else if (known > 0)
        fprintf(stderr, "relayctl: %s what? known are", argv[0]);
    else
        fprintf(stderr, "relayctl: unknown command %s; known are", argv[0]);
    const char *before = ": ";
    for (size_t i = 0; i < NCOMMANDS; i++) {
        const char *words = commands[i].words;
        if (!is_known(options, &commands[i]) || (known > 0 && strncmp(words, argv[0], len) != 0))
            continue;
        fprintf(stderr, "%s%s", before, known > 0 ? words + len + 1 : words);
        before = ", ";
    }
    fprintf(stderr, "\n");
}

/* Puts in the place of a file's name what is in it. */
static int read_argument(json_t *args, const char *name, json_t *(*read)(const char *given))
{
    json_t *given = json_object_get(args, name);
    const json_t *file = json_is_array(given) ? json_array_get(given, 0) : given;
    if (given == NULL)
        return 0;
    if (json_array_size(given) > 1) {
        fprintf(stderr, "relayctl: give one --%s at a time\n", name);
        return -1;
    }
    json_t *content = read(json_string_value(file));
    return content != NULL ? json_object_set_new(args, name, content) : -1;
}

/* The JSON arguments; NULL after a sentence on stderr. *status is the exit code then. */
static json_t *make_args(const struct command *command, int argc, char *const argv[])
{
    struct usage usage;
    char error[256];
    usage_parse(command->arguments, &usage);
    json_t *args = usage_from_words(&usage, argc, argv, error, sizeof(error));
    if (args == NULL) {
        fprintf(stderr, "relayctl: %s: %s\nusage: relayctl %s%s%s\n", command->words, error, command->words,
                *command->arguments ? " " : "", command->arguments);
        return NULL;
    }
    if (read_argument(args, "key", key_read) == 0 && read_argument(args, "batch", batch_read) == 0)
        return args;
    json_decref(args);
    return NULL;
}

/* A command over SSH is one line. */
static int fits(const struct options *options, const json_t *args)
{
    if (options->via == NULL || json_array_size(json_object_get(args, "batch")) <= USAGE_LIST_MAX)
        return 1;
    fprintf(stderr, "relayctl: over SSH a batch has at most %d lines\n", USAGE_LIST_MAX);
    return 0;
}

static json_t *exchange_via(const struct options *options, const struct command *command, json_t *args)
{
    struct usage usage;
    char words[64];
    /* ssh would take a leading option for its own */
    snprintf(words, sizeof(words), "%s --json", command->words);
    usage_parse(command->arguments, &usage);
    char *line = usage_to_line(&usage, words, args);
    json_t *answer = line != NULL ? via_exchange(options->ssh, options->via, line) : NULL;
    free(line);
    return answer;
}

/* Events are of all tenants, if none is named, nor anybody in one. */
static const char *tenant_for(const struct options *options, const struct command *command,
                              const json_t *args)
{
    int all = strcmp(command->words, "events") == 0 && json_object_get(args, "principal") == NULL;
    return options->tenant != NULL ? options->tenant : all ? "*" : "default";
}

static json_t *exchange(const struct options *options, const struct command *command, json_t *args)
{
    return options->via != NULL
               ? exchange_via(options, command, args)
               : ctl_exchange(options->socket, command->words, tenant_for(options, command, args), args);
}

/* ---- events ---- */

/* Seconds between looks. Over SSH each is a login, and that is an event, too. */
#define PAUSE 1
#define PAUSE_WATCH 2
#define PAUSE_VIA 10

struct conversation {
    const struct options *options;
    const struct command *command;
};

static json_t *ask(const void *context, json_t *args)
{
    const struct conversation *conversation = context;
    return exchange(conversation->options, conversation->command, args);
}

static void wait_for_relayd(const void *context)
{
    const struct conversation *conversation = context;
    fprintf(stderr, "relayctl: waiting for relayd\n");
    if (conversation->options->via == NULL)
        ctl_wait(conversation->options->socket);
    else
        via_wait();
}

static int run_events(const struct options *options, const struct command *command, json_t *args)
{
    struct conversation conversation = { options, command };
    struct events_source source = { ask, wait_for_relayd, &conversation,
                                    options->via != NULL ? PAUSE_VIA : PAUSE };
    return events_run(&source, args, options->json, options->follow);
}

/* ---- All others ---- */

static int run(const struct options *options, const struct command *command, json_t *args)
{
    json_t *answer = exchange(options, command, args);
    if (answer == NULL)
        return CTL_UNREACHABLE;
    int done = json_is_true(json_object_get(answer, "ok"));
    if (done)
        print_result(json_object_get(answer, "result"), options->json);
    else
        print_error(json_object_get(answer, "error"), options->json);
    json_decref(answer);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "relayctl: it was %s, but the answer cannot be written: %s\n",
                done ? "done" : "refused", strerror(errno));
        return CTL_REFUSED;
    }
    return done ? CTL_DONE : CTL_REFUSED;
}

/* What only shows something may be asked for again and again. */
static int may_watch(const struct command *command)
{
    return strncmp(command->words, "list ", 5) == 0 || strcmp(command->words, "show") == 0 ||
           strcmp(command->words, "status") == 0;
}

static int run_watch(const struct options *options, const struct command *command, json_t *args)
{
    struct conversation conversation = { options, command };
    char title[160];
    int pause = options->via != NULL ? PAUSE_VIA : PAUSE_WATCH;
    struct watch watch = { .title = title,
                           .interval = options->interval != NULL ? watch_interval(options->interval) : pause,
                           .json = options->json,
                           .ask = ask,
                           .context = &conversation,
                           .args = args };
    if (!may_watch(command) || watch.interval == 0) {
        fprintf(stderr, "relayctl: %s\n",
                may_watch(command) ? "--interval takes seconds, from 0.1 to 86400"
                                   : "--watch works with list, show and status");
        return CTL_USAGE;
    }
    snprintf(title, sizeof(title), "%s%s%.80s", command->words, options->tenant != NULL ? " of tenant " : "",
             options->tenant != NULL ? options->tenant : "");
    return watch_run(&watch);
}

static const char *from_environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

/* A sentence about options that do not go together, or cannot mean anything; NULL if all is well. */
static const char *find_wrong(const struct options *options)
{
    if (options->via != NULL && options->tenant != NULL)
        return "--tenant: over SSH the tenant is the one that the login selects";
    if (options->via != NULL && via_has_bare_port(options->via))
        return "--via: for a port write ssh://USER@HOST:PORT";
    if (options->interval != NULL && !options->watch)
        return "--interval goes with --watch";
    return NULL;
}

int main(int argc, char *argv[])
{
    struct options options = {
        .socket = from_environment("RELAYD_CONTROL_SOCKET", DEFAULT_SOCKET),
        .ssh = from_environment("RELAYCTL_SSH", VIA_SSH),
    };
    int used, words = take_options(&options, argc - 1, argv + 1);
    if (words < 0)
        return CTL_USAGE;
    const char *wrong = find_wrong(&options);
    if (wrong != NULL) {
        fprintf(stderr, "relayctl: %s\n", wrong);
        return CTL_USAGE;
    }
    if (words == 0) {
        print_usage(&options, stderr);
        return CTL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || (strcmp(argv[1], "help") == 0 && options.via == NULL)) {
        print_usage(&options, stdout);
        return CTL_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("relayctl %s\n", PACKAGE_VERSION);
        return CTL_DONE;
    }
    const struct command *command = find_command(&options, words, argv + 1, &used);
    if (command == NULL) {
        complain_about_words(&options, words, argv + 1);
        return CTL_USAGE;
    }
    int is_events = strcmp(command->words, "events") == 0;
    if (options.follow && !is_events) {
        fprintf(stderr, "relayctl: there is no use for --follow in %s\n", command->words);
        return CTL_USAGE;
    }
    json_t *args = make_args(command, words - used, argv + 1 + used);
    if (args == NULL)
        return CTL_USAGE;
    int status = CTL_USAGE;
    if (fits(&options, args))
        status = (is_events ? run_events : options.watch ? run_watch : run)(&options, command, args);
    json_decref(args);
    return status;
}
