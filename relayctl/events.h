#ifndef RELAYCTL_EVENTS_H
#define RELAYCTL_EVENTS_H

#include <jansson.h>

/* How a page of events is asked for: `ask` returns the answer as ctl_exchange() does, and borrows the
 * arguments; after it has failed, `wait` returns when it is worth another try. */
struct events_source {
    json_t *(*ask)(const void *context, json_t *args);
    void (*wait)(const void *context);
    const void *context;
    int pause; /* seconds between looks for what is new */
};

/* `relayctl events`: page after page, if --since asks for more than one, and with `follow` what comes then,
 * until Ctrl-C; a relayd that is away is waited for. Returns the exit code. */
int events_run(const struct events_source *source, json_t *args, int as_json, int follow);

#endif
