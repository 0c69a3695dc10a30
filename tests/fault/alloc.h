#ifndef FAULT_ALLOC_H
#define FAULT_ALLOC_H

/* Included by the compiler's command line before each source of relayd, for tests/fault/relayd alone:
 * every allocation of relayd's own code may fail. What libevent allocates may as well (faults.c);
 * libssh, SQLite and jansson keep their memory. */

#include "tests/fault/faults.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAULT_OR(call) (fault_strikes(__FILE__, __LINE__) ? NULL : (call))

/* A macro is not expanded again inside itself. */
#define malloc(...) FAULT_OR(malloc(__VA_ARGS__))
#define calloc(...) FAULT_OR(calloc(__VA_ARGS__))
#define realloc(...) FAULT_OR(realloc(__VA_ARGS__))
#define reallocarray(...) FAULT_OR(reallocarray(__VA_ARGS__))
#define strdup(...) FAULT_OR(strdup(__VA_ARGS__))
#define strndup(...) FAULT_OR(strndup(__VA_ARGS__))
#define open_memstream(...) FAULT_OR(open_memstream(__VA_ARGS__))

#endif
