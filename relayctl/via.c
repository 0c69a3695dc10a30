#include "relayctl/via.h"

#include "schema/quote.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SSH_FAILED 255 /* its own exit status, when it could not connect */
#define RETRY_S 5

extern char **environ;

int via_has_bare_port(const char *dest)
{
    const char *colon = strrchr(dest, ':');
    if (colon == NULL || strncmp(dest, "ssh://", 6) == 0)
        return 0;
    int address = strchr(dest, ':') != colon && colon[-1] != ']';
    return !address && colon[1] != '\0' && colon[1 + strspn(colon + 1, "0123456789")] == '\0';
}

/* The words of ssh, then: no terminal, and nothing behind "--" is an option. The words point into copy. NULL
 * after a sentence on stderr. */
static char **make_argv(char *copy, const char *dest, const char *line)
{
    static char no_terminal[] = "-T", no_more_options[] = "--";
    int n = 0;
    const char *error = "out of memory";
    char **words = copy != NULL ? quote_split(copy, &n, &error) : NULL;
    char **argv = words != NULL && n > 0 ? calloc((size_t)n + 5, sizeof(*argv)) : NULL;
    if (argv != NULL) {
        memcpy(argv, words, (size_t)n * sizeof(*argv));
        argv[n] = no_terminal;
        argv[n + 1] = no_more_options;
        argv[n + 2] = (char *)(uintptr_t)dest;
        argv[n + 3] = (char *)(uintptr_t)line;
    } else {
        fprintf(stderr, "relayctl: --ssh: %s\n",
                words != NULL && n == 0 ? "there is no program in it" : error);
    }
    free(words);
    return argv;
}

/* Starts it with nothing as its input. Its output comes out of the descriptor that is returned, -1 with
 * errno. */
static int start(char *const argv[], pid_t *pid)
{
    int ends[2];
    posix_spawn_file_actions_t actions;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc == 0) {
        rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (rc == 0)
            rc = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        if (rc == 0)
            rc = posix_spawnp(pid, argv[0], &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (rc == 0)
        return ends[0];
    close(ends[0]);
    errno = rc;
    return -1;
}

/* Waits for its end; its exit status, or SSH_FAILED if it was killed. */
static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return SSH_FAILED;
    return WIFEXITED(status) ? WEXITSTATUS(status) : SSH_FAILED;
}

static json_t *read_document(int fd)
{
    FILE *in = fdopen(fd, "r");
    if (in == NULL) {
        close(fd);
        return NULL;
    }
    json_t *document = json_loadf(in, JSON_DECODE_ANY, NULL);
    fclose(in);
    return document;
}

/* relayd ends a command with 0 and its result, or with 1 or 2 and {"error":...}; anything else is not its
 * answer. */
static json_t *make_answer(json_t *document, int status)
{
    json_t *error = json_object_get(document, "error");
    if (document != NULL && status == 0)
        return json_pack("{s:b, s:O}", "ok", 1, "result", document);
    if (json_is_object(error) && (status == 1 || status == 2))
        return json_pack("{s:b, s:O}", "ok", 0, "error", error);
    return NULL;
}

json_t *via_exchange(const char *ssh, const char *dest, const char *line)
{
    pid_t pid;
    json_t *answer = NULL;
    char *copy = strdup(ssh), **argv = make_argv(copy, dest, line);
    int fd = argv != NULL ? start(argv, &pid) : -1;
    if (fd >= 0) {
        json_t *document = read_document(fd);
        int status = wait_for(pid);
        answer = make_answer(document, status);
        json_decref(document);
        if (answer == NULL && status == SSH_FAILED)
            fprintf(stderr, "relayctl: %s could not reach relayd at %s\n", argv[0], dest);
        else if (answer == NULL)
            fprintf(stderr, "relayctl: what answers at %s is no relayd (%s ended with %d)\n", dest, argv[0],
                    status);
    } else if (argv != NULL) {
        fprintf(stderr, "relayctl: cannot run %s: %s\n", argv[0], strerror(errno));
    }
    free(argv);
    free(copy);
    return answer;
}

void via_wait(void)
{
    nanosleep(&(struct timespec){ .tv_sec = RETRY_S }, NULL);
}
