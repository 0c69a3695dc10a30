#ifndef RELAYCTL_CTL_H
#define RELAYCTL_CTL_H

#include <jansson.h>

/* Exit codes, the same for every command. */
enum ctl_exit { CTL_DONE = 0, CTL_REFUSED = 1, CTL_USAGE = 2, CTL_UNREACHABLE = 3 };

/* Sends a command over the control socket at path and waits for the answer: a new reference to the whole
 * answer object, or NULL after a sentence on stderr. A batch goes in as many requests as it needs. */
json_t *ctl_exchange(const char *path, const char *cmd, const char *tenant, json_t *args);

/* Returns, a second later at the earliest, when somebody listens there, or when a signal has come. */
void ctl_wait(const char *path);

#endif
