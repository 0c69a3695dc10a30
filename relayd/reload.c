#include "relayd/reload.h"

#include "relayd/audit.h"
#include "relayd/gate.h"
#include "relayd/log.h"
#include "relayd/loop.h"
#include "relayd/systemd.h"
#include "relayd/trail.h"

#include <stdio.h>
#include <string.h>

/* The keeper's, once it runs. */
static struct {
    int argc;
    char **argv;
    const struct config *started; /* with which relayd was started: what is fixed is as it says */
    const struct config *current; /* held */
} reload;

void reload_init(int argc, char *argv[], const struct relay *relay)
{
    reload.argc = argc;
    reload.argv = argv;
    reload.started = &relay->config;
    reload.current = config_hold(&relay->config);
}

static json_t *differences(const struct config *old, const struct config *new, bool of_fixed)
{
    json_t *names = json_array();
    const char *name;
    size_t at = 0;
    bool fixed;
    while ((name = config_difference(old, new, &at, &fixed)) != NULL)
        if (fixed == of_fixed)
            json_array_append_new(names, json_string(name));
    return names;
}

/* The names, with a blank before each. */
static const char *list_names(const json_t *names, char text[512])
{
    size_t i, used = 0;
    json_t *name;
    text[0] = '\0';
    json_array_foreach(names, i, name)
        if (used < 512)
            used += (size_t)snprintf(text + used, 512 - used, " %s", json_string_value(name));
    return text;
}

static void log_names(const char *what, const json_t *names)
{
    char text[512];
    if (json_array_size(names) > 0)
        log_info("%s:%s", what, list_names(names, text));
}

static void record(const struct request *request, const char *names)
{
    struct audit_event event = { .kind = EVENT_reload,
                                 .reason = request->failure.reason,
                                 .principal = request->actor.principal,
                                 .address = request->actor.address,
                                 .object = names };
    audit(&event);
}

int reload_read(struct store *store, struct request *request)
{
    (void)store;
    systemd_reloading();
    char names[512];
    struct config *config = config_reload(reload.argc, reload.argv, &request->failure);
    if (config == NULL) {
        char plain[600];
        log_escape(request->failure.text, plain, sizeof(plain));
        systemd_ready("serving; the configuration stays as it was: %s", plain);
        record(request, "");
        return -1;
    }
    json_t *changed = differences(reload.current, config, false);
    json_t *restart = differences(reload.started, config, true);
    log_setup((enum log_level)config->log_level, config->log_format);
    gate_configure(config);
    trail_configure(config);
    log_info("the configuration was read again");
    record(request, list_names(changed, names) + strspn(names, " "));
    request->result = json_pack("{s:s, s:o, s:o}", "status", "reloaded", "changed", changed, "restart",
                                restart);
    config_release(reload.current);
    reload.current = config_hold(config);
    request->config = config;
    return 0;
}

int reload_apply(struct loop *loop, struct request *request)
{
    config_release(loop->config);
    loop->config = config_hold(request->config);
    if (loop->index + 1 < loop->relay->nloops)
        return 0;
    log_names("changed now", json_object_get(request->result, "changed"));
    log_names("changed at the next start only", json_object_get(request->result, "restart"));
    systemd_ready("serving");
    return 0;
}
