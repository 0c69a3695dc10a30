#include "relayd/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MAX 63

static bool is_label_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool label_valid(const char *label, size_t len)
{
    if (len == 0 || len > LABEL_MAX || label[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_label_char(label[i]))
            return false;
    return true;
}

bool name_valid(const char *name)
{
    if (strlen(name) >= NAME_SIZE)
        return false;
    for (const char *label = name;;) {
        size_t len = strcspn(label, ".");
        if (!label_valid(label, len))
            return false;
        if (label[len] == '\0')
            return strspn(label, "0123456789") != len && strcmp(label, "localhost") != 0;
        label += len + 1;
    }
}

bool name_valid_tenant(const char *name)
{
    return strchr(name, '.') == NULL && name_valid(name);
}

enum reason name_canonical(const char *raw, const char *tenant, char out[NAME_SIZE])
{
    char name[NAME_SIZE + LABEL_MAX + 1];
    size_t len = strlen(raw), suffix = strlen(tenant) + 1;
    if (len >= sizeof(name))
        return REASON_bad_name;
    for (size_t i = 0; i <= len; i++)
        name[i] = lower(raw[i]);
    if (len > suffix && name[len - suffix] == '.' && strcmp(name + len - suffix + 1, tenant) == 0)
        name[len - suffix] = '\0';
    if (!name_valid(name))
        return REASON_bad_name;
    memcpy(out, name, strlen(name) + 1);
    return REASON_none;
}

bool name_is_loopback(const char *raw)
{
    static const char *const spellings[] = { "", "*", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::" };
    char name[16];
    size_t len = strlen(raw);
    if (len >= sizeof(name))
        return false;
    for (size_t i = 0; i <= len; i++)
        name[i] = lower(raw[i]);
    for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++)
        if (strcmp(name, spellings[i]) == 0)
            return true;
    return false;
}

bool name_is_under(const char *name, const char *owner)
{
    size_t len = strlen(name), tail = strlen(owner);
    if (len < tail || strcmp(name + len - tail, owner) != 0)
        return false;
    return len == tail || name[len - tail - 1] == '.';
}

const char *name_parent(const char *name)
{
    const char *dot = strchr(name, '.');
    return dot != NULL ? dot + 1 : NULL;
}

bool name_of_endpoint(const char *endpoint, char name[NAME_SIZE], uint16_t *port)
{
    const char *colon = strrchr(endpoint, ':');
    if (colon == NULL || colon - endpoint >= NAME_SIZE)
        return false;
    snprintf(name, NAME_SIZE, "%.*s", (int)(colon - endpoint), endpoint);
    *port = (uint16_t)atoi(colon + 1);
    return name_valid(name) && *port != 0;
}

bool name_from_text(const char *text, char out[NAME_SIZE])
{
    size_t used = 0;
    for (const char *p = text; *p != '\0' && used < LABEL_MAX; p++) {
        char c = lower(*p);
        if (is_label_char(c) && !(c == '-' && used == 0))
            out[used++] = c;
        else if (used > 0 && out[used - 1] != '-')
            out[used++] = '-';
    }
    while (used > 0 && out[used - 1] == '-')
        used--;
    out[used] = '\0';
    return name_valid(out);
}
