#include "relayd/self.h"

#include "relayd/recipe.h"
#include "relayd/session.h"
#include "schema/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREETING_ENDPOINTS 50

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
        char words[256];
        snprintf(words, sizeof(words), "%s%s%s", command->words, *command->arguments != '\0' ? " " : "",
                 command->arguments);
        json_array_append_new(rows, json_pack("{s:s, s:s}", "command", words, "what_it_does", command->help));
    }
    return rows;
}

char *self_help_text(const json_t *result, unsigned columns)
{
    char *text = NULL;
    size_t i, size;
    json_t *row;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    json_array_foreach(result, i, row) {
        text_write_line(out, "", json_string_value(json_object_get(row, "command")), columns);
        text_write_line(out, "    ", json_string_value(json_object_get(row, "what_it_does")), columns);
    }
    text_write_line(out, "", "With --json any of them answers in JSON.", columns);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
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

static int by_key(const void *a, const void *b)
{
    const struct endpoint *const *left = a, *const *right = b;
    return strcmp((*left)->key, (*right)->key);
}

/* A device wants to know which of its sessions it is. */
static json_t *endpoint_row(const struct session *session, const struct endpoint *endpoint)
{
    const struct session *server = endpoint->publications->session;
    json_t *row = json_pack("{s:s, s:s}", "endpoint", endpoint->key, "device", server->principal->name);
    if (session->principal->kind == PRINCIPAL_DEVICE) {
        char by[SOURCE_TEXT_SIZE + 40] = "this session";
        if (server != session)
            snprintf(by, sizeof(by), "session %llu from %s", (unsigned long long)server->id, server->address);
        json_object_set_new(row, "served_by", json_string(by));
    }
    const struct setting *setting = setting_find(session->tenant->settings, endpoint->name, endpoint->port);
    json_object_set_new(row, "note", json_string(setting != NULL ? setting->note : ""));
    return row;
}

/* The first rows, `most` at most; *n is how many there are. pattern: NULL for all. NULL: out of memory. */
static json_t *list_mine(const struct session *session, const char *pattern, size_t most, size_t *n)
{
    const struct endpoint **found = calloc(directory_count(session->tenant->directory) + 1, sizeof(*found));
    *n = 0;
    if (found == NULL)
        return NULL;
    for (struct endpoint *endpoint = NULL;
         (endpoint = directory_next(session->tenant->directory, endpoint)) != NULL;)
        if (is_mine(session, endpoint) && (pattern == NULL || policy_glob(pattern, endpoint->name)))
            found[(*n)++] = endpoint;
    qsort(found, *n, sizeof(*found), by_key);
    json_t *rows = json_array();
    for (size_t i = 0; i < *n && i < most; i++)
        json_array_append_new(rows, endpoint_row(session, found[i]));
    free(found);
    return rows;
}

json_t *self_ls(struct session *session, const json_t *args, struct failure *failure)
{
    size_t n;
    json_t *rows = list_mine(session, json_string_value(json_object_get(args, "pattern")), SIZE_MAX, &n);
    if (rows == NULL)
        fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    return rows;
}

json_t *self_config(struct session *session, const json_t *args, struct failure *failure)
{
    const struct loop *loop = session->loop;
    const char *address = loop->config->public_address.text;
    struct place place;
    bool device = session->principal->kind == PRINCIPAL_DEVICE;
    json_t *endpoints = self_ls(session, NULL, failure);
    (void)args;
    if (endpoints == NULL)
        return NULL;
    if (address[0] != '\0') {
        place_parse(address, &place);
    } else {
        char local[SOURCE_TEXT_SIZE];
        sshio_local(session->ssh, local, &place.port);
        snprintf(place.host, sizeof(place.host), "%s", local);
    }
    struct recipe recipe = {
        .name = session->principal->name,
        .tenant = session->tenant->name,
        .fingerprint = session->fingerprint,
        .place = &place,
        .guessed = address[0] == '\0',
        .host_key = loop->relay->host_key.line,
        .endpoints = endpoints,
        .everything = rules_allow_every_name(&session->principal->rules, 22),
    };
    json_t *parts = device ? recipe_device(&recipe) : recipe_client(&recipe);
    json_decref(endpoints);
    return parts;
}

/* A greeting is for reading, and comes with every `ssh -L` that lacks -N: of a fleet it has the first few. */
json_t *self_greeting(struct session *session)
{
    struct failure failure;
    size_t n;
    json_t *endpoints = list_mine(session, NULL, GREETING_ENDPOINTS, &n);
    json_t *greeting = self_whoami(session, NULL, &failure);
    bool device = session->principal->kind == PRINCIPAL_DEVICE;
    json_object_set_new(greeting, device ? "published" : "online", endpoints);
    if (n > GREETING_ENDPOINTS) {
        char more[64];
        snprintf(more, sizeof(more), "%zu, see ssh RELAY ls", n - GREETING_ENDPOINTS);
        json_object_set_new(greeting, "more", json_string(more));
    }
    return greeting;
}
