#include "relayd/policy.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct port_range {
    uint16_t low, high;
};

struct rule {
    size_t nranges; /* 0: every port */
    struct port_range ranges[RULE_RANGES];
    char *pattern;
    char text[];
};

bool policy_glob(const char *pattern, const char *name)
{
    const char *star = NULL, *retry = NULL;
    while (*name != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            retry = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star + 1;
            name = ++retry;
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == '\0';
}

/* Reads a port number and moves *text behind it; 0 if there is none. */
static uint16_t parse_port(const char **text)
{
    unsigned long port = 0;
    size_t digits = strspn(*text, "0123456789");
    if (digits == 0 || digits > 5)
        return 0;
    for (size_t i = 0; i < digits; i++)
        port = port * 10 + (unsigned long)((*text)[i] - '0');
    *text += digits;
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

static int parse_ranges(const char *text, struct rule *rule)
{
    for (;;) {
        if (rule->nranges == RULE_RANGES)
            return -1;
        struct port_range *range = &rule->ranges[rule->nranges++];
        range->low = range->high = parse_port(&text);
        if (*text == '-') {
            text++;
            range->high = parse_port(&text);
        }
        if (range->low == 0 || range->high < range->low)
            return -1;
        if (*text == '\0')
            return 0;
        if (*text++ != ',')
            return -1;
    }
}

static bool pattern_valid(const char *pattern)
{
    size_t len = strlen(pattern);
    return len > 0 && len <= 253 && strspn(pattern, "abcdefghijklmnopqrstuvwxyz0123456789-_.*?") == len;
}

/* The text again from what was understood; it grows no longer than it was. */
static void format_ranges(struct rule *rule)
{
    char *at = rule->text + strlen(rule->pattern);
    for (size_t i = 0; i < rule->nranges; i++) {
        const struct port_range *range = &rule->ranges[i];
        at += snprintf(at, 16, range->low == range->high ? "%c%u" : "%c%u-%u", i == 0 ? ':' : ',', range->low,
                       range->high);
    }
}

struct rule *rule_new(const char *text)
{
    size_t len = strlen(text), pattern_len = strcspn(text, ":");
    if (len >= RULE_SIZE) {
        errno = EINVAL;
        return NULL;
    }
    struct rule *rule = calloc(1, sizeof(*rule) + len + 1);
    if (rule == NULL)
        return NULL;
    for (size_t i = 0; i < len; i++)
        rule->text[i] = (char)tolower((unsigned char)text[i]);
    rule->pattern = strndup(rule->text, pattern_len);
    if (rule->pattern == NULL)
        goto fail;
    errno = EINVAL;
    if (!pattern_valid(rule->pattern))
        goto fail;
    if (text[pattern_len] == ':' && parse_ranges(text + pattern_len + 1, rule) != 0)
        goto fail;
    format_ranges(rule);
    return rule;
fail:
    rule_free(rule);
    return NULL;
}

void rule_free(struct rule *rule)
{
    if (rule == NULL)
        return;
    free(rule->pattern);
    free(rule);
}

const char *rule_text(const struct rule *rule)
{
    return rule->text;
}

bool rule_matches(const struct rule *rule, const char *name, uint16_t port)
{
    bool port_ok = rule->nranges == 0;
    for (size_t i = 0; i < rule->nranges && !port_ok; i++)
        port_ok = port >= rule->ranges[i].low && port <= rule->ranges[i].high;
    return port_ok && policy_glob(rule->pattern, name);
}

int rules_add(struct rules *rules, const char *text)
{
    struct rule *rule = rule_new(text);
    struct rule **grown = rule != NULL ? reallocarray(rules->rule, rules->n + 1, sizeof(rule)) : NULL;
    if (grown == NULL) {
        rule_free(rule);
        return -1;
    }
    rules->rule = grown;
    rules->rule[rules->n++] = rule;
    return 0;
}

int rules_add_new(struct rules *rules, const char *text)
{
    if (rules_add(rules, text) != 0)
        return -1;
    for (size_t i = 0; i + 1 < rules->n; i++) {
        if (strcmp(rules->rule[i]->text, rules->rule[rules->n - 1]->text) == 0) {
            rule_free(rules->rule[--rules->n]);
            break;
        }
    }
    return 0;
}

void rules_clear(struct rules *rules)
{
    for (size_t i = 0; i < rules->n; i++)
        rule_free(rules->rule[i]);
    free(rules->rule);
    rules->rule = NULL;
    rules->n = 0;
}

bool rules_allow(const struct rules *rules, const char *name, uint16_t port)
{
    for (size_t i = 0; i < rules->n; i++)
        if (rule_matches(rules->rule[i], name, port))
            return true;
    return false;
}

bool rules_allow_every_name(const struct rules *rules, uint16_t port)
{
    for (size_t i = 0; i < rules->n; i++)
        if (strspn(rules->rule[i]->pattern, "*") == strlen(rules->rule[i]->pattern) &&
            rule_matches(rules->rule[i], "", port))
            return true;
    return false;
}
