#include "relayd/when.h"

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

const char when_expected[] =
    "a duration such as 8h or 30d, a date such as 2026-12-31, or 2026-12-31T18:00:00Z";

/* In seconds; 0: that is none. */
static int64_t parse_duration(const char *text)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 7 * 86400 } };
    char *end;
    long long number = strtoll(text, &end, 10);
    if (end > text && number > 0 && number < 1000000 && end[0] != '\0' && end[1] == '\0')
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
            if (*end == units[i].unit)
                return number * units[i].seconds;
    return 0;
}

static int64_t parse_date(const char *text)
{
    struct tm tm = { 0 };
    char *end = strptime(text, "%Y-%m-%d", &tm);
    if (end != NULL && *end != '\0')
        end = strptime(end, "T%H:%M:%SZ", &tm);
    if (end == NULL || *end != '\0')
        return 0;
    int day = tm.tm_mday;
    int64_t when = timegm(&tm); /* makes the 30th of February a day in March */
    return tm.tm_mday == day ? when : 0;
}

int64_t when_parse(const char *text, int64_t now, int direction)
{
    int64_t duration = parse_duration(text);
    return duration != 0 ? now + direction * duration : parse_date(text);
}

void when_write(int64_t when, char out[WHEN_SIZE])
{
    time_t time = (time_t)when;
    struct tm utc;
    if (gmtime_r(&time, &utc) == NULL || strftime(out, WHEN_SIZE, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        out[0] = '\0';
}
