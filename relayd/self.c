#include "relayd/self.h"

#include "relayd/session.h"

#include <stdio.h>

unsigned self_roles(const struct session *session)
{
    const struct principal *principal = session->principal;
    if (principal->kind == PRINCIPAL_DEVICE)
        return ROLE_DEVICE;
    return ROLE_CLIENT | (principal->admin ? ROLE_TENANT : 0u);
}

json_t *self_help(struct session *session, const json_t *args, struct failure *failure)
{
    json_t *rows = json_array();
    (void)args, (void)failure;
    for (unsigned i = 0; command_at(i) != NULL; i++) {
        const struct command *command = command_at(i);
        if ((command->roles & self_roles(session)) == 0)
            continue;
        char words[160];
        snprintf(words, sizeof(words), "%s %s", command->words, command->arguments);
        json_array_append_new(rows, json_pack("{s:s, s:s}", "command", words, "what_it_does", command->help));
    }
    return rows;
}

static json_t *rules_text(const struct principal *principal)
{
    json_t *rules = json_array();
    for (size_t i = 0; i < principal->rules.n; i++)
        json_array_append_new(rules, json_string(rule_text(principal->rules.rule[i])));
    if (principal->kind == PRINCIPAL_DEVICE) {
        char own[NAME_SIZE + 32];
        snprintf(own, sizeof(own), "%s *.%s", principal->name, principal->name);
        json_array_insert_new(rules, 0, json_string(own));
    }
    return rules;
}

json_t *self_whoami(struct session *session, const json_t *args, struct failure *failure)
{
    const struct principal *principal = session->principal;
    bool device = principal->kind == PRINCIPAL_DEVICE;
    (void)args, (void)failure;
    json_t *who = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:o}", "name", principal->name, "kind",
                            principal_kind_name(principal), "tenant", session->tenant->name, "key",
                            session->fingerprint, "address", session->address, "session",
                            (json_int_t)session->id, device ? "may_publish" : "may_reach",
                            rules_text(principal));
    if (!device)
        json_object_set_new(who, "admin", json_boolean(principal->admin));
    return who;
}

/* A device sees what it publishes in any of its sessions, a client what it may reach. */
static bool is_mine(const struct session *session, const struct endpoint *endpoint)
{
    const struct principal *principal = session->principal;
    if (principal->kind == PRINCIPAL_CLIENT)
        return rules_allow(&principal->rules, endpoint->name, endpoint->port);
    return endpoint->publications->session->principal == principal;
}

json_t *self_ls(struct session *session, const json_t *args, struct failure *failure)
{
    json_t *rows = json_array();
    const char *pattern = json_string_value(json_object_get(args, "pattern"));
    (void)failure;
    for (struct endpoint *endpoint = NULL;
         (endpoint = directory_next(session->tenant->directory, endpoint)) != NULL;) {
        if (!is_mine(session, endpoint) || (pattern != NULL && !policy_glob(pattern, endpoint->name)))
            continue;
        struct session *serves = endpoint->publications->session;
        json_array_append_new(
            rows, json_pack("{s:s, s:s}", "endpoint", endpoint->key, "device", serves->principal->name));
    }
    return rows;
}

json_t *self_greeting(struct session *session)
{
    json_t *endpoints = self_ls(session, NULL, NULL);
    json_t *greeting = self_whoami(session, NULL, NULL);
    bool device = session->principal->kind == PRINCIPAL_DEVICE;
    json_object_set_new(greeting, device ? "published" : "online", endpoints);
    return greeting;
}
