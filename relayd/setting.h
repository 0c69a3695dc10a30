#ifndef RELAYD_SETTING_H
#define RELAYD_SETTING_H

#include "relayd/hash.h"

#include <stdbool.h>
#include <stdint.h>

/* What administrators have set for endpoints, whether or not somebody serves them: a hash of a tenant's
 * worker, by "name:port". Pure; NULL is the empty one. */
struct setting {
    int64_t device;      /* that owns the name */
    bool proxy_protocol; /* its service gets a header first: proxy.h */
    const char *note;    /* "" if none */
    const char *name;
    UT_hash_handle hh;
    char key[]; /* "name:port", and name and note behind it */
};

/* Puts one in, in place of what was there. -1: out of memory, and nothing has changed. */
int setting_put(struct setting **settings, int64_t device, const char *name, uint16_t port, const char *note,
                bool proxy_protocol) __attribute__((warn_unused_result));

/* NULL if nothing was set. */
const struct setting *setting_find(const struct setting *settings, const char *name, uint16_t port);

/* Takes out those of a device, those of a name, or all. */
void setting_forget_device(struct setting **settings, int64_t device);
void setting_forget_name(struct setting **settings, const char *name);
void setting_forget_all(struct setting **settings);

#endif
