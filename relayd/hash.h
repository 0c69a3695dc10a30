#ifndef RELAYD_HASH_H
#define RELAYD_HASH_H

/* uthash, told not to end the process when memory runs out: after HASH_ADD*, an element whose
 * hh.tbl is NULL was not added. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((void)(element))
#include <uthash.h>

#endif
