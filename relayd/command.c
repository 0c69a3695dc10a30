#include "relayd/command.h"

#include "relayd/audit.h"
#include "relayd/config.h"
#include "relayd/live.h"
#include "relayd/log.h"
#include "relayd/pubkey.h"
#include "relayd/recipe.h"
#include "relayd/registry.h"
#include "relayd/reload.h"
#include "relayd/self.h"
#include "relayd/why.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADMIN ROLE_ADMIN
#define TENANT ROLE_TENANT
#define DEVICE ROLE_DEVICE
#define CLIENT ROLE_CLIENT

/* What each row of commands.def does. */
static const struct command_steps steps[COMMAND_COUNT] = {
    [COMMAND_add_tenant] = { SCOPE_ALL, true, registry_add_tenant, NULL, NULL },
    [COMMAND_remove_tenant] = { SCOPE_TENANT, true, registry_remove_tenant, live_apply, NULL },
    [COMMAND_add_device] = { SCOPE_TENANT, true, registry_add_device, live_apply, NULL },
    [COMMAND_add_client] = { SCOPE_TENANT, true, registry_add_client, live_apply, NULL },
    [COMMAND_add_key] = { SCOPE_TENANT, true, registry_add_key, live_apply, NULL },
    [COMMAND_set_admin] = { SCOPE_TENANT, true, registry_set_admin, live_apply, NULL },
    [COMMAND_remove_device] = { SCOPE_TENANT, true, registry_remove_device, live_apply, NULL },
    [COMMAND_remove_client] = { SCOPE_TENANT, true, registry_remove_client, live_apply, NULL },
    [COMMAND_remove_key] = { SCOPE_TENANT, true, registry_remove_key, live_apply, NULL },
    [COMMAND_remove_pending] = { SCOPE_TENANT, true, registry_remove_pending, NULL, NULL },
    [COMMAND_remove_endpoint] = { SCOPE_TENANT, true, registry_remove_endpoint, live_apply, NULL },
    [COMMAND_rename] = { SCOPE_TENANT, true, registry_rename, live_apply, NULL },
    [COMMAND_allow] = { SCOPE_TENANT, true, registry_allow, live_apply, NULL },
    [COMMAND_disallow] = { SCOPE_TENANT, true, registry_disallow, live_apply, NULL },
    [COMMAND_move_endpoint] = { SCOPE_TENANT, true, registry_move_endpoint, live_apply, NULL },
    [COMMAND_set_endpoint] = { SCOPE_TENANT, true, registry_set_endpoint, live_apply, NULL },
    [COMMAND_limit] = { SCOPE_TENANT, true, registry_limit, live_limit, NULL },
    [COMMAND_list_tenants] = { SCOPE_ALL, false, registry_list_tenants, live_list_tenants, NULL },
    [COMMAND_list_devices] = { SCOPE_TENANT, false, registry_list_devices, live_list_principals, NULL },
    [COMMAND_list_clients] = { SCOPE_TENANT, false, registry_list_clients, live_list_principals, NULL },
    [COMMAND_list_keys] = { SCOPE_TENANT, false, registry_list_keys, NULL, NULL },
    [COMMAND_list_pending] = { SCOPE_TENANT, false, registry_list_pending, NULL, NULL },
    [COMMAND_list_endpoints] = { SCOPE_TENANT, false, registry_list_endpoints, live_list_endpoints, NULL },
    [COMMAND_list_sessions] = { SCOPE_TENANT, false, registry_find_tenant, live_list_sessions, NULL },
    [COMMAND_list_bridges] = { SCOPE_TENANT, false, registry_find_tenant, live_list_bridges, NULL },
    [COMMAND_show] = { SCOPE_TENANT, false, registry_show, live_show, NULL },
    [COMMAND_events] = { SCOPE_ANY, false, registry_events, NULL, NULL },
    [COMMAND_status] = { SCOPE_ALL, false, registry_status, live_status, NULL },
    [COMMAND_disconnect] = { SCOPE_TENANT, false, registry_find_tenant, live_disconnect, NULL },
    [COMMAND_reload] = { SCOPE_LOOPS, false, reload_read, reload_apply, NULL },
    [COMMAND_host_key] = { SCOPE_ALL, false, NULL, live_host_key, NULL },
    [COMMAND_help] = { SCOPE_TENANT, false, NULL, NULL, self_help, self_help_text },
    [COMMAND_whoami] = { SCOPE_TENANT, false, NULL, NULL, self_whoami },
    [COMMAND_ls] = { SCOPE_TENANT, false, NULL, NULL, self_ls },
    [COMMAND_why] = { SCOPE_TENANT, false, why_read, NULL, NULL, why_text },
    [COMMAND_config] = { SCOPE_TENANT, false, NULL, NULL, self_config, recipe_text },
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

static const struct command *find(const char *words, unsigned roles)
{
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        if ((table[i].roles & roles) != 0 && strcmp(table[i].words, words) == 0)
            return &table[i];
    return NULL;
}

const struct command *command_authorise(const char *words, unsigned roles, const json_t *args,
                                        struct failure *failure)
{
    struct usage usage;
    char error[256];
    const struct command *command = find(words, roles);
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

const struct command *command_in_words(int n, char *const words[], unsigned roles, int *used)
{
    for (*used = n < 2 ? n : 2; *used > 0; --*used) {
        char name[64];
        snprintf(name, sizeof(name), "%s%s%s", words[0], *used > 1 ? " " : "", *used > 1 ? words[1] : "");
        const struct command *command = find(name, roles);
        if (command != NULL)
            return command;
    }
    return NULL;
}

struct request *request_new(const struct command *command, unsigned roles, const char *tenant, json_t *args)
{
    struct request *request = calloc(1, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->mail.kind = MAIL_REQUEST;
    request->command = command;
    request->actor.roles = roles;
    request->args = json_incref(args);
    /* A command that takes a tenant as its argument is about that one. */
    const char *named = (roles & ROLE_ADMIN) != 0 ? request_arg(request, "tenant") : NULL;
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
    free(request->batch);
    free(request);
}

const char *request_arg(const struct request *request, const char *name)
{
    return json_string_value(json_object_get(request->args, name));
}

bool request_flag(const struct request *request, const char *name)
{
    return json_is_true(json_object_get(request->args, name));
}

bool request_by_relay(const struct request *request)
{
    return (request->actor.roles & ROLE_ADMIN) != 0;
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

int request_batch(struct request *request, size_t n)
{
    request->batch = calloc(n + 1, sizeof(*request->batch));
    request->nbatch = n;
    if (request->batch == NULL)
        return fail(&request->failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    return 0;
}

/* ---- For the log and the audit trail ---- */

#define WORD_MAX 200

static bool is_simple(const char *word)
{
    static const char simple[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:,*/@+=_-";
    return *word != '\0' && word[strspn(word, simple)] == '\0';
}

/* Appends one word, and a blank before it. */
static void add_word(char text[COMMAND_TEXT_SIZE], const char *word)
{
    size_t used = strlen(text), left = COMMAND_TEXT_SIZE - used;
    if (left < 8)
        return;
    text[used] = ' ';
    if (is_simple(word))
        snprintf(text + used + 1, left - 1, "%s", word);
    else
        log_quote(word, text + used + 1, left - 1);
}

static void add_value(char text[COMMAND_TEXT_SIZE], const char *name, const char *value)
{
    struct pubkey key = { 0 };
    struct failure failure;
    if (strcmp(name, "key") == 0)
        add_word(text, pubkey_parse(value, &key, &failure) == 0 ? key.fingerprint : "KEY");
    else
        add_word(text, strlen(value) <= WORD_MAX ? value : "...");
    pubkey_clear(&key);
}

static void add_argument(char text[COMMAND_TEXT_SIZE], const struct usage_arg *arg, const json_t *value)
{
    char option[sizeof(arg->name) + 2], lines[40];
    if (json_is_false(value))
        return;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    snprintf(option, sizeof(option), "--%s", arg->name);
    if (strcmp(arg->name, "batch") == 0) {
        snprintf(lines, sizeof(lines), "%zu lines", n);
        add_word(text, option);
        add_word(text, lines);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (arg->option)
            add_word(text, option);
        if (!arg->flag)
            add_value(text, arg->name,
                      json_string_value(json_is_array(value) ? json_array_get(value, i) : value));
    }
}

void command_describe(const struct request *request, char text[COMMAND_TEXT_SIZE])
{
    struct usage usage;
    usage_parse(request->command->arguments, &usage);
    snprintf(text, COMMAND_TEXT_SIZE, "%s", request->command->words);
    for (size_t i = 0; i < usage.n; i++) {
        const json_t *value = json_object_get(request->args, usage.arg[i].name);
        if (value != NULL)
            add_argument(text, &usage.arg[i], value);
    }
}

static const char *result_text(const struct request *request, const char *key)
{
    const char *text = json_string_value(json_object_get(request->result, key));
    return text != NULL ? text : "";
}

bool command_had_effect(const struct request *request)
{
    return request->failure.reason == REASON_none && strcmp(result_text(request, "status"), "unchanged") != 0;
}

void command_record(const struct request *request)
{
    char text[COMMAND_TEXT_SIZE];
    int64_t tenant_id = request->tenant_id > 0 ? request->tenant_id : request->actor.tenant_id;
    bool of_tenant = tenant_id > 0;
    if (request->failure.reason == REASON_none && !command_had_effect(request))
        return;
    command_describe(request, text);
    struct audit_event event = { .kind = EVENT_command,
                                 .reason = request->failure.reason,
                                 .tenant_id = of_tenant ? tenant_id : AUDIT_RELAY,
                                 .tenant = of_tenant ? request->tenant : "",
                                 .principal_id = request->actor.principal_id,
                                 .principal = request->actor.principal,
                                 .address = request->actor.address,
                                 .object = text,
                                 .peer = result_text(request, "name") };
    audit(&event);
}
