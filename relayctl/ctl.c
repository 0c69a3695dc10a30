#include "relayctl/ctl.h"

#include "relayctl/batch.h"
#include "schema/wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_S 30

static int open_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_S };
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static const char *advice(int error)
{
    switch (error) {
    case ENOENT:
    case ECONNREFUSED:
        return ": is relayd running, and is this its control-socket?";
    case EACCES:
        return ": you must be root or in its group";
    default:
        return "";
    }
}

static int send_all(int fd, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t n = send(fd, text, left, MSG_NOSIGNAL);
        if (n < 0)
            return -1;
        text += n;
        left -= (size_t)n;
    }
    return 0;
}

static json_t *receive(int fd)
{
    char *line = NULL;
    size_t size = 0;
    FILE *in = fdopen(dup(fd), "r");
    if (in == NULL)
        return NULL;
    errno = 0;
    json_t *answer = getline(&line, &size, in) > 0 ? json_loads(line, 0, NULL) : NULL;
    fclose(in);
    free(line);
    return answer;
}

/* One request and its answer; NULL with errno. */
static json_t *ask(int fd, const char *cmd, const char *tenant, json_t *args, bool more)
{
    char *line = wire_request_line(1, cmd, tenant, args, more);
    json_t *answer = NULL;
    errno = 0;
    if (line != NULL && send_all(fd, line) == 0)
        answer = receive(fd);
    free(line);
    return answer;
}

/* The first refusal ends it. */
static json_t *ask_batch(int fd, const char *cmd, const char *tenant, json_t *args)
{
    json_t *lines = json_incref(json_object_get(args, "batch")), *answer = NULL;
    size_t at = 0, total = json_array_size(lines);
    while (at < total) {
        json_t *part = batch_part(lines, &at);
        json_decref(answer);
        batch_progress(at, total);
        json_object_set_new(args, "batch", part);
        answer = ask(fd, cmd, tenant, args, at < total);
        if (!json_is_true(json_object_get(answer, "ok")))
            break;
    }
    int error = errno;
    batch_progress(0, total);
    errno = error;
    json_decref(lines);
    return answer;
}

json_t *ctl_exchange(const char *path, const char *cmd, const char *tenant, json_t *args)
{
    int fd = open_socket(path);
    if (fd < 0) {
        fprintf(stderr, "relayctl: cannot reach relayd at %s: %s%s\n", path, strerror(errno), advice(errno));
        return NULL;
    }
    json_t *answer = json_object_get(args, "batch") != NULL ? ask_batch(fd, cmd, tenant, args)
                                                            : ask(fd, cmd, tenant, args, false);
    if (answer == NULL)
        fprintf(stderr, "relayctl: relayd at %s gave no answer%s%s\n", path, errno != 0 ? ": " : "",
                errno != 0 ? strerror(errno) : "");
    close(fd);
    return answer;
}

void ctl_wait(const char *path)
{
    int fd = -1;
    do {
        if (nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL) != 0)
            return;
        fd = open_socket(path);
    } while (fd < 0);
    close(fd);
}
