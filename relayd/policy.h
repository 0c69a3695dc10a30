#ifndef RELAYD_POLICY_H
#define RELAYD_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rules: what a principal may publish or connect to. A rule is PATTERN[:PORTS]; in PATTERN `*`
 * stands for any bytes, dots too, and `?` for one; PORTS are numbers and ranges joined by commas,
 * and without them every port is meant. Rights are the listed rules and nothing else. */
#define RULE_SIZE 512 /* bytes of a rule's text with the NUL */
#define RULE_RANGES 16

struct rule;

/* Parses and owns a rule. NULL with errno: EINVAL if the text is not one, ENOMEM. */
struct rule *rule_new(const char *text);
void rule_free(struct rule *rule);

/* The canonical text: lower case, numbers without leading zeros. Borrowed. */
const char *rule_text(const struct rule *rule);
bool rule_matches(const struct rule *rule, const char *name, uint16_t port);

/* An owned set of rules. */
struct rules {
    struct rule **rule;
    size_t n;
};

int rules_add(struct rules *rules, const char *text);     /* -1 with errno, as above */
int rules_add_new(struct rules *rules, const char *text); /* the same; a second time is no change */
void rules_clear(struct rules *rules);
bool rules_allow(const struct rules *rules, const char *name, uint16_t port);

/* True if one rule allows every name on that port. */
bool rules_allow_every_name(const struct rules *rules, uint16_t port);

/* True if the pattern matches the whole of name. Linear in pattern times name, whatever they are. */
bool policy_glob(const char *pattern, const char *name);

#endif
