#ifndef TESTS_UNIT_SUPPORT_H
#define TESTS_UNIT_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

/* What several test files need. Every test runs in a process of its own, so there is one temporary
 * directory and one capture at a time. */

/* Fit for .init and .fini of a test or suite: an empty directory, and its end with all in it. */
void temp_make(void);
void temp_remove(void);

/* The path of a file in it; good until the fourth call from now. */
const char *temp_path(const char *name);

/* Writes a file into it and returns its path. */
const char *temp_file(const char *name, const char *text);

/* From begin to end all that goes to the descriptor (1, 2) is kept; end returns it, good until the
 * next begin. */
void capture_begin(int fd);
const char *capture_end(void);

/* c n times in a row; good until the fourth call from now. n < 70000. */
const char *repeat(char c, size_t n);

/* Pseudo-random numbers, the same in each run: xorshift64. The state must not start at 0. */
uint64_t random_next(uint64_t *state);

#endif
