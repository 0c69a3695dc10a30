#ifndef RELAYD_CONFIG_H
#define RELAYD_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONFIG_LISTEN_MAX 16
#define CONFIG_TEXT_SIZE 256

struct config_address {
    struct sockaddr_storage addr;
    socklen_t len;
};

struct config_addresses {
    struct config_address v[CONFIG_LISTEN_MAX];
    size_t n;
};

#define CONFIG_C_ADDRESSES struct config_addresses
#define CONFIG_C_PATH                                                                                        \
    struct {                                                                                                 \
        char text[CONFIG_TEXT_SIZE];                                                                         \
    }
#define CONFIG_C_TEXT CONFIG_C_PATH
#define CONFIG_C_HOST CONFIG_C_PATH
#define CONFIG_C_COUNT unsigned
#define CONFIG_C_LEVEL unsigned    /* enum log_level */
#define CONFIG_C_FORMAT bool       /* true: json */
#define CONFIG_C_TIMEOUT unsigned  /* milliseconds, not 0 */
#define CONFIG_C_DURATION unsigned /* milliseconds */
#define CONFIG_C_SIZE uint64_t     /* bytes */

/* All of relayd's configuration; fixed once the threads run, so every thread may read it. */
struct config {
#define CONFIG(id, key, type, value, help) CONFIG_C_##type id;
#include "relayd/config.def"
#undef CONFIG
    bool check_only; /* --check-config */
};

enum config_outcome {
    CONFIG_RUN,
    CONFIG_HELPED,  /* --help was answered */
    CONFIG_VERSION, /* --version is to be answered */
    CONFIG_ERROR,   /* one line on stderr said why */
};

/* Defaults, then the file named by --config, then the options. */
enum config_outcome config_load(struct config *config, int argc, char *argv[]);

#endif
