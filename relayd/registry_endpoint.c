#include "relayd/registry.h"

#include "relayd/entry.h"
#include "relayd/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTE_MAX 200 /* bytes of a note */

/* ---- Names ---- */

static int read_name(struct request *request, const char *raw, char name[NAME_SIZE])
{
    if (name_canonical(raw, request->tenant, name) == REASON_none)
        return 0;
    return fail(&request->failure, REASON_bad_name, "\"%.253s\": %s", raw, reason_sentence(REASON_bad_name));
}

static int nobody_has(struct request *request, const char *name)
{
    return fail(&request->failure, REASON_not_found,
                "nobody has published the name %s in tenant %s: see relayctl list endpoints (give the name "
                "without its port)",
                name, request->tenant);
}

/* Whose own name it is: that of the device that is called so, or like what it stands under. *at is how that
 * one is called. 1: found; 0: it is nobody's own; -1. */
static int find_own(struct store *store, struct request *request, const char *name, struct entry *entry,
                    const char **at)
{
    for (*at = name; *at != NULL; *at = name_parent(*at)) {
        int rc = entry_find(store, request, *at, entry);
        if (rc < 0 || (rc > 0 && entry->kind == ENTRY_DEVICE))
            return rc;
    }
    return 0;
}

/* Tells the live step whose settings or owner have changed. */
static void name_changed(struct request *request, const char *name)
{
    request->changed = true;
    snprintf(request->endpoint, sizeof(request->endpoint), "%s", name);
}

int registry_remove_endpoint(struct store *store, struct request *request)
{
    char name[NAME_SIZE];
    if (read_name(request, request_arg(request, "name"), name) != 0)
        return -1;
    int rows = store_run(store, SQL_remove_endpoint, "it", request->tenant_id, name);
    int settings = store_run(store, SQL_remove_settings, "it", request->tenant_id, name);
    if (rows < 0 || settings < 0)
        return entry_failed(store, request);
    if (rows + settings == 0)
        return nobody_has(request, name);
    name_changed(request, name);
    return request_done(request, "removed", name);
}

int registry_move_endpoint(struct store *store, struct request *request)
{
    char name[NAME_SIZE], device[NAME_SIZE];
    const char *own;
    struct entry entry, owner;
    if (read_name(request, request_arg(request, "name"), name) != 0)
        return -1;
    int64_t before = store_value(store, SQL_get_owner, "it", request->tenant_id, name);
    if (before <= 0)
        return before < 0 ? entry_failed(store, request) : nobody_has(request, name);
    if (entry_get(store, request, request_arg(request, "device"), &entry, device) != 0)
        return -1;
    int rc = find_own(store, request, name, &owner, &own);
    if (rc != 0)
        return rc < 0 ? -1
                      : fail(&request->failure, REASON_in_use,
                             "%s is device %s's own name and cannot be moved", name, own);
    if (entry.kind != ENTRY_DEVICE)
        return fail(&request->failure, REASON_bad_argument, "%s is a client: only a device can own a name",
                    device);
    if (store_run(store, SQL_move_endpoint, "iti", request->tenant_id, name, entry.id) < 0 ||
        store_run(store, SQL_move_settings, "iti", request->tenant_id, name, entry.id) < 0)
        return entry_failed(store, request);
    if (before != entry.id)
        name_changed(request, name);
    request_done(request, before == entry.id ? "unchanged" : "moved", name);
    json_object_set_new(request->result, "device", json_string(device));
    return 0;
}

/* ---- Settings ---- */

/* What set-endpoint is about, and makes it. */
struct change {
    char name[NAME_SIZE];
    uint16_t port;
    char note[NOTE_MAX + 1];
    bool proxy_protocol;
};

/* NAME:PORT, as everybody writes an endpoint. */
static int read_endpoint(struct request *request, struct change *change)
{
    const char *text = request_arg(request, "endpoint"), *colon = strrchr(text, ':');
    char raw[NAME_SIZE + 64];
    if (colon == NULL)
        return fail(&request->failure, REASON_bad_port,
                    "\"%.253s\" is a name without a port: an endpoint is NAME:PORT, as in web.raspi:80",
                    text);
    size_t digits = strspn(colon + 1, "0123456789");
    unsigned long port = strtoul(colon + 1, NULL, 10);
    if (digits == 0 || digits > 5 || colon[1 + digits] != '\0' || port == 0 || port > UINT16_MAX)
        return fail(&request->failure, REASON_bad_port, "\"%.40s\": %s", colon + 1,
                    reason_sentence(REASON_bad_port));
    change->port = (uint16_t)port;
    snprintf(raw, sizeof(raw), "%.*s", (int)(colon - text), text);
    return read_name(request, strlen(raw) == (size_t)(colon - text) ? raw : text, change->name);
}

/* The code point at *text, which is valid UTF-8, as JSON is; *text goes on behind it. */
static uint32_t next_character(const char **text)
{
    const unsigned char *at = (const unsigned char *)*text;
    unsigned more = at[0] < 0xC0 ? 0 : at[0] < 0xE0 ? 1 : at[0] < 0xF0 ? 2 : 3;
    uint32_t character = more == 0 ? at[0] : at[0] & (0x3Fu >> more);
    for (unsigned i = 1; i <= more; i++)
        character = character << 6 | (at[i] & 0x3Fu);
    *text += 1 + more;
    return character;
}

/* Control characters, ends of lines, and what makes text run the other way or hides in it. */
static bool is_printable(uint32_t character)
{
    static const struct {
        uint32_t first, last;
    } not_printable[] = { { 0, 0x1F },        { 0x7F, 0x9F },     { 0xAD, 0xAD },      { 0x61C, 0x61C },
                          { 0x180E, 0x180E }, { 0x200B, 0x200F }, { 0x2028, 0x202E },  { 0x2060, 0x206F },
                          { 0xFEFF, 0xFEFF }, { 0xFFF0, 0xFFFB }, { 0xE0000, 0xE0FFF } };
    for (size_t i = 0; i < sizeof(not_printable) / sizeof(not_printable[0]); i++)
        if (character >= not_printable[i].first && character <= not_printable[i].last)
            return false;
    return true;
}

static int read_note(struct request *request, struct change *change)
{
    const char *text = request_arg(request, "note");
    if (text == NULL)
        return 0;
    if (strlen(text) > NOTE_MAX)
        return fail(&request->failure, REASON_bad_argument,
                    "--note: a note has at most %d bytes, this has %zu", NOTE_MAX, strlen(text));
    for (const char *at = text; *at != '\0';)
        if (!is_printable(next_character(&at)))
            return fail(&request->failure, REASON_bad_argument,
                        "--note: a note is one line of printable text, without control characters");
    snprintf(change->note, sizeof(change->note), "%s", text);
    return 0;
}

static int read_proxy_protocol(struct request *request, struct change *change)
{
    const char *text = request_arg(request, "proxy-protocol");
    if (text == NULL)
        return 0;
    change->proxy_protocol = strcmp(text, "on") == 0;
    if (change->proxy_protocol || strcmp(text, "off") == 0)
        return 0;
    return fail(&request->failure, REASON_bad_argument, "--proxy-protocol \"%.40s\": expected on or off",
                text);
}

/* The device that owns the name: it need not have published it yet if that is its own. 1: found; 0: there
 * is none; -1. */
static int find_owner(struct store *store, struct request *request, const char *name, int64_t *owner)
{
    struct entry entry;
    const char *own;
    int rc = find_own(store, request, name, &entry, &own);
    *owner = rc > 0 ? entry.id : 0;
    if (rc != 0)
        return rc;
    *owner = store_value(store, SQL_get_owner, "it", request->tenant_id, name);
    return *owner < 0 ? entry_failed(store, request) : *owner > 0;
}

/* What is set now; nothing if that is not there. *known says whether it is. */
static int find_setting(struct store *store, struct request *request, struct change *setting, bool *known)
{
    struct query *query = store_query(store, SQL_find_setting, "iti", request->tenant_id, setting->name,
                                      (int64_t)setting->port);
    int rc = query_next(query);
    *known = rc > 0;
    if (*known) {
        snprintf(setting->note, sizeof(setting->note), "%s", query_text(query, 0));
        setting->proxy_protocol = query_int(query, 1) != 0;
    }
    query_end(query);
    return rc < 0 ? entry_failed(store, request) : 0;
}

/* What is as if it had never been set has no row. */
static int write_setting(struct store *store, struct request *request, const struct change *change,
                         int64_t owner)
{
    int64_t port = change->port;
    bool needed = change->note[0] != '\0' || change->proxy_protocol;
    int rc = needed ? store_run(store, SQL_set_setting, "itiiti", request->tenant_id, change->name, port,
                                owner, change->note, change->proxy_protocol ? INT64_C(2) : INT64_C(0))
                    : store_run(store, SQL_remove_setting, "iti", request->tenant_id, change->name, port);
    return rc < 0 ? entry_failed(store, request) : 0;
}

/* The tenant's worker holds all of them. */
static int check_room(struct store *store, struct request *request, int64_t owner)
{
    if (entry_check_room(store, request, SQL_count_all_settings, request->tenant_id, LIMIT_REGISTERED) != 0)
        return -1;
    int64_t n = store_value(store, SQL_count_settings, "i", owner);
    if (n < 0)
        return entry_failed(store, request);
    if (n < LIMIT_SETTINGS)
        return 0;
    return fail(
        &request->failure, REASON_too_many_endpoints,
        "%d endpoints of that device are set already: take a note or --proxy-protocol from another first",
        LIMIT_SETTINGS);
}

int registry_set_endpoint(struct store *store, struct request *request)
{
    struct change before = { 0 }, after;
    int64_t owner;
    bool known;
    char key[NAME_SIZE + 8];
    if (request_arg(request, "note") == NULL && request_arg(request, "proxy-protocol") == NULL)
        return fail(&request->failure, REASON_bad_argument, "set what? Give --note or --proxy-protocol");
    if (read_endpoint(request, &before) != 0)
        return -1;
    int rc = find_owner(store, request, before.name, &owner);
    if (rc <= 0)
        return rc < 0 ? -1
                      : fail(&request->failure, REASON_not_found,
                             "no device of tenant %s is called %s or has published that name: see relayctl "
                             "list devices, endpoints",
                             request->tenant, before.name);
    if (find_setting(store, request, &before, &known) != 0)
        return -1;
    after = before;
    if (read_note(request, &after) != 0 || read_proxy_protocol(request, &after) != 0 ||
        (!known && check_room(store, request, owner) != 0))
        return -1;
    bool same = strcmp(before.note, after.note) == 0 && before.proxy_protocol == after.proxy_protocol;
    if (!same && write_setting(store, request, &after, owner) != 0)
        return -1;
    if (!same)
        name_changed(request, after.name);
    snprintf(key, sizeof(key), "%s:%u", after.name, after.port);
    request_done(request, same ? "unchanged" : "set", key);
    json_object_set_new(request->result, "kind", json_string("endpoint"));
    json_object_set_new(request->result, "note", json_string(after.note));
    json_object_set_new(request->result, "proxy_protocol", json_boolean(after.proxy_protocol));
    return 0;
}
