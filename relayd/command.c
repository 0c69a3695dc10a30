#include "relayd/command.h"

#include "relayd/config.h"
#include "relayd/live.h"
#include "relayd/registry.h"
#include "relayd/reload.h"
#include "relayd/self.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADMIN ROLE_ADMIN
#define DEVICE ROLE_DEVICE
#define CLIENT ROLE_CLIENT

/* What each row of commands.def does. */
static const struct command_steps steps[COMMAND_COUNT] = {
    [COMMAND_add_tenant] = { SCOPE_ALL, true, registry_add_tenant, NULL, NULL },
    [COMMAND_remove_tenant] = { SCOPE_TENANT, true, registry_remove_tenant, live_apply, NULL },
    [COMMAND_add_device] = { SCOPE_TENANT, true, registry_add_device, live_apply, NULL },
    [COMMAND_add_client] = { SCOPE_TENANT, true, registry_add_client, live_apply, NULL },
    [COMMAND_add_key] = { SCOPE_TENANT, true, registry_add_key, live_apply, NULL },
    [COMMAND_remove_device] = { SCOPE_TENANT, true, registry_remove_device, live_apply, NULL },
    [COMMAND_remove_client] = { SCOPE_TENANT, true, registry_remove_client, live_apply, NULL },
    [COMMAND_remove_key] = { SCOPE_TENANT, true, registry_remove_key, live_apply, NULL },
    [COMMAND_remove_endpoint] = { SCOPE_TENANT, true, registry_remove_endpoint, live_apply, NULL },
    [COMMAND_rename] = { SCOPE_TENANT, true, registry_rename, live_apply, NULL },
    [COMMAND_allow] = { SCOPE_TENANT, true, registry_allow, live_apply, NULL },
    [COMMAND_disallow] = { SCOPE_TENANT, true, registry_disallow, live_apply, NULL },
    [COMMAND_move_endpoint] = { SCOPE_TENANT, true, registry_move_endpoint, live_apply, NULL },
    [COMMAND_limit] = { SCOPE_TENANT, true, registry_limit, live_limit, NULL },
    [COMMAND_list_tenants] = { SCOPE_ALL, false, registry_list_tenants, live_list_tenants, NULL },
    [COMMAND_list_devices] = { SCOPE_TENANT, false, registry_list_devices, live_list_principals, NULL },
    [COMMAND_list_clients] = { SCOPE_TENANT, false, registry_list_clients, live_list_principals, NULL },
    [COMMAND_list_keys] = { SCOPE_TENANT, false, registry_list_keys, NULL, NULL },
    [COMMAND_list_endpoints] = { SCOPE_TENANT, false, registry_list_endpoints, live_list_endpoints, NULL },
    [COMMAND_list_sessions] = { SCOPE_TENANT, false, registry_find_tenant, live_list_sessions, NULL },
    [COMMAND_list_bridges] = { SCOPE_TENANT, false, registry_find_tenant, live_list_bridges, NULL },
    [COMMAND_show] = { SCOPE_TENANT, false, registry_show, live_show, NULL },
    [COMMAND_status] = { SCOPE_ALL, false, registry_status, live_status, NULL },
    [COMMAND_disconnect] = { SCOPE_TENANT, false, registry_find_tenant, live_disconnect, NULL },
    [COMMAND_reload] = { SCOPE_ALL, false, reload_read, reload_apply, NULL },
    [COMMAND_host_key] = { SCOPE_ALL, false, NULL, live_host_key, NULL },
    [COMMAND_help] = { SCOPE_TENANT, false, NULL, NULL, self_help },
    [COMMAND_whoami] = { SCOPE_TENANT, false, NULL, NULL, self_whoami },
    [COMMAND_ls] = { SCOPE_TENANT, false, NULL, NULL, self_ls },
};

static const struct command table[COMMAND_COUNT] = {
#define COMMAND(id, words, arguments, roles, help) { words, arguments, roles, help, &steps[COMMAND_##id] },
#include "schema/commands.def"
#undef COMMAND
};

const struct command *command_at(unsigned i)
{
    return i < COMMAND_COUNT ? &table[i] : NULL;
}

static const struct command *find(const char *words, unsigned role)
{
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        if ((table[i].roles & role) != 0 && strcmp(table[i].words, words) == 0)
            return &table[i];
    return NULL;
}

const struct command *command_authorise(const char *words, unsigned role, const json_t *args,
                                        struct failure *failure)
{
    struct usage usage;
    char error[256];
    const struct command *command = find(words, role);
    if (command == NULL) {
        fail(failure, REASON_unknown_command, "there is no command \"%.64s\"", words);
        return NULL;
    }
    usage_parse(command->arguments, &usage);
    if (usage_check(&usage, args, error, sizeof(error)) != 0) {
        fail(failure, REASON_bad_argument, "%s: %s", command->words, error);
        return NULL;
    }
    return command;
}

const struct command *command_in_line(char *line, unsigned role, char **rest)
{
    line += strspn(line, " \t");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        size_t len = strlen(table[i].words);
        if ((table[i].roles & role) == 0 || strncmp(line, table[i].words, len) != 0 ||
            strchr(" \t", line[len]) == NULL)
            continue;
        *rest = line + len;
        return &table[i];
    }
    return NULL;
}

struct request *request_new(const struct command *command, const char *tenant, json_t *args)
{
    struct request *request = calloc(1, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->mail.kind = MAIL_REQUEST;
    request->command = command;
    request->args = json_incref(args);
    /* A command that takes a tenant as its argument is about that one. */
    const char *named = request_arg(request, "tenant");
    snprintf(request->tenant, sizeof(request->tenant), "%.253s", named != NULL ? named : tenant);
    return request;
}

void request_free(struct request *request)
{
    if (request == NULL)
        return;
    json_decref(request->args);
    json_decref(request->result);
    config_release(request->config);
    free(request);
}

const char *request_arg(const struct request *request, const char *name)
{
    return json_string_value(json_object_get(request->args, name));
}

void request_result(struct request *request, json_t *result)
{
    json_decref(request->result);
    request->result = result;
}

int request_done(struct request *request, const char *status, const char *name)
{
    request_result(request,
                   json_pack("{s:s, s:s, s:s}", "status", status, "tenant", request->tenant, "name", name));
    return 0;
}

void request_changed(struct request *request, int64_t principal_id)
{
    request->changed = true;
    request->principal_id = principal_id;
}
