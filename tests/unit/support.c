#include "support.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char directory[64];

void temp_make(void)
{
    snprintf(directory, sizeof(directory), "/tmp/relayd-unit-XXXXXX");
    cr_assert_not_null(mkdtemp(directory), "no temporary directory");
}

void temp_remove(void)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;
    cr_assert_not_null(entries);
    while ((entry = readdir(entries)) != NULL)
        unlinkat(dirfd(entries), entry->d_name, 0);
    closedir(entries);
    rmdir(directory);
}

const char *temp_path(const char *name)
{
    static char paths[4][256];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
    return path;
}

const char *temp_file(const char *name, const char *text)
{
    const char *path = temp_path(name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file, "cannot write %s", path);
    fputs(text, file);
    cr_assert_eq(fclose(file), 0);
    return path;
}

static struct {
    int fd;    /* what is captured */
    int saved; /* where it went before */
    FILE *file;
    char text[65536];
} capture;

void capture_begin(int fd)
{
    fflush(NULL);
    capture.fd = fd;
    capture.saved = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    capture.file = tmpfile();
    cr_assert_not_null(capture.file);
    cr_assert_eq(dup2(fileno(capture.file), fd), fd);
}

const char *capture_end(void)
{
    fflush(NULL);
    dup2(capture.saved, capture.fd);
    close(capture.saved);
    rewind(capture.file);
    size_t n = fread(capture.text, 1, sizeof(capture.text) - 1, capture.file);
    capture.text[n] = '\0';
    fclose(capture.file);
    return capture.text;
}

const char *repeat(char c, size_t n)
{
    static char texts[4][70001];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    cr_assert_lt(n, sizeof(texts[0]));
    memset(text, c, n);
    text[n] = '\0';
    return text;
}

uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}
