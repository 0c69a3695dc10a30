#include "relayd/event.h"

static const struct {
    const char *code;
    const char *words;
} kinds[] = {
#define EVENT(id, words) { #id, words },
#include "relayd/events.def"
#undef EVENT
};

const char *event_code(enum event_kind kind)
{
    return kinds[kind].code;
}

const char *event_words(enum event_kind kind)
{
    return kinds[kind].words;
}
