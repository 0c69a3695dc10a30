#ifndef RELAYD_CONFIG_H
#define RELAYD_CONFIG_H

#include "relayd/reason.h"
#include "relayd/source.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONFIG_LISTEN_MAX 16
#define CONFIG_NETWORKS_MAX 64
#define CONFIG_TEXT_SIZE 256

struct config_address {
    struct sockaddr_storage addr;
    socklen_t len;
};

struct config_addresses {
    struct config_address v[CONFIG_LISTEN_MAX];
    size_t n;
};

struct config_networks {
    struct network v[CONFIG_NETWORKS_MAX];
    size_t n;
};

#define CONFIG_C_ADDRESSES struct config_addresses
#define CONFIG_C_NETWORKS struct config_networks
#define CONFIG_C_PATH                                                                                        \
    struct {                                                                                                 \
        char text[CONFIG_TEXT_SIZE];                                                                         \
    }
#define CONFIG_C_TEXT CONFIG_C_PATH
#define CONFIG_C_HOST CONFIG_C_PATH
#define CONFIG_C_COUNT unsigned
#define CONFIG_C_LOGINS unsigned
#define CONFIG_C_SWITCH bool
#define CONFIG_C_LEVEL unsigned    /* enum log_level */
#define CONFIG_C_FORMAT bool       /* true: json */
#define CONFIG_C_TIMEOUT unsigned  /* milliseconds, not 0 */
#define CONFIG_C_PATIENCE unsigned /* milliseconds, 5000 at least */
#define CONFIG_C_DURATION unsigned /* milliseconds */
#define CONFIG_C_SIZE uint64_t     /* bytes */
#define CONFIG_C_AGE uint64_t      /* seconds, not 0 */
#define CONFIG_C_ROWS unsigned     /* not 0 */

/* All of relayd's configuration. It does not change once it is loaded, so every thread that holds it
 * may read it; a reload makes a new one. */
struct config {
#define CONFIG(id, key, type, value, help) CONFIG_C_##type id;
#include "relayd/config.def"
#undef CONFIG
    bool check_only; /* --check-config */
    atomic_uint holders;
};

enum config_outcome {
    CONFIG_RUN,
    CONFIG_HELPED,  /* --help was answered */
    CONFIG_VERSION, /* --version is to be answered */
    CONFIG_ERROR,   /* one line on stderr said why */
};

/* Defaults, then the file named by --config, then the options. The caller owns it and holds it for good. */
enum config_outcome config_load(struct config *config, int argc, char *argv[]);

/* The same again, with the file as it is now; one holder. NULL with the first of the reasons; all are
 * logged. One thread at a time. */
struct config *config_reload(int argc, char *argv[], struct failure *failure);

/* One more holder; the last one to release it frees it. Any thread; NULL is nothing. */
const struct config *config_hold(const struct config *config);
void config_release(const struct config *config);

/* The names of the keys with different values, one a call: *at begins at 0. *fixed: such a change takes
 * effect at the next start. NULL at the end. */
const char *config_difference(const struct config *a, const struct config *b, size_t *at, bool *fixed);

#endif
