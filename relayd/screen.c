#include "relayd/screen.h"

#include "relayd/limits.h"
#include "schema/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MIN 20
#define COLUMNS_DEFAULT 80
#define COLUMNS_MAX 1000

int screen_init(struct screen *screen)
{
    memset(screen, 0, sizeof(*screen));
    screen->columns = COLUMNS_DEFAULT;
    screen->out = evbuffer_new();
    screen->err = evbuffer_new();
    if (screen->out != NULL && screen->err != NULL)
        return 0;
    screen_clear(screen);
    return -1;
}

void screen_clear(struct screen *screen)
{
    if (screen->out != NULL)
        evbuffer_free(screen->out);
    if (screen->err != NULL)
        evbuffer_free(screen->err);
    screen->out = screen->err = NULL;
}

void screen_set_terminal(struct screen *screen, unsigned columns)
{
    screen->pty = true;
    screen->columns = columns == 0            ? COLUMNS_DEFAULT
                      : columns < COLUMNS_MIN ? COLUMNS_MIN
                      : columns > COLUMNS_MAX ? COLUMNS_MAX
                                              : columns;
}

unsigned screen_width(const struct screen *screen)
{
    return screen->pty ? screen->columns : 0;
}

static void put(const struct screen *screen, struct evbuffer *out, const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        evbuffer_add(out, text, len);
        text += len;
        if (*text == '\n') {
            evbuffer_add(out, "\r\n" + !screen->pty, 1u + screen->pty);
            text++;
        }
    }
}

static void put_owned(const struct screen *screen, struct evbuffer *out, char *text)
{
    put(screen, out, text != NULL ? text : "out of memory\n");
    free(text);
}

void screen_show(struct screen *screen, const char *text)
{
    put(screen, screen->out, text);
}

void screen_show_line(struct screen *screen, const char *line)
{
    put_owned(screen, screen->out, text_line("", line, screen->columns));
}

void screen_show_value(struct screen *screen, const json_t *value)
{
    put_owned(screen, screen->out, text_render_in(value, screen_width(screen)));
}

void screen_show_document(struct screen *screen, const json_t *document)
{
    put_owned(screen, screen->out,
              document != NULL ? json_dumps(document, JSON_INDENT(2) | JSON_ENSURE_ASCII) : NULL);
    put(screen, screen->out, "\n");
}

void screen_complain(struct screen *screen, const char *text)
{
    put_owned(screen, screen->pty ? screen->out : screen->err, text_line("relayd: ", text, screen->columns));
}

static void put_line(struct screen *screen, const char *line, time_t now)
{
    char head[16];
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(head, sizeof(head), "%H:%M:%SZ  ", &utc);
    put_owned(screen, screen->out, text_line(head, line, screen_width(screen)));
}

void screen_tell(struct screen *screen, const char *line, time_t now)
{
    /* What was lost before comes first, or it would seem to be what is lost after. */
    if (screen->lost > 0 || evbuffer_get_length(screen->out) + strlen(line) > LIMIT_FEED)
        screen->lost++;
    else
        put_line(screen, line, now);
}

bool screen_tell_lost(struct screen *screen, time_t now)
{
    char line[64];
    if (screen->lost == 0)
        return false;
    snprintf(line, sizeof(line), "%u lines were lost here: they were not read in time", screen->lost);
    screen->lost = 0;
    put_line(screen, line, now);
    return true;
}
