#include "relayd/exchange.h"

#include "relayd/audit.h"
#include "relayd/keeper.h"
#include "relayd/log.h"

#include <event2/event.h>

#define APPLY_TIMEOUT_S 5 /* after which a stored change is reported as not applied */
#define BATCH_RATE 5000   /* lines that have a second more */

/* It takes too long. What has not been begun never will be; of the rest we say what is known. */
static enum reason give_up(struct request *request)
{
    enum request_progress progress = REQUEST_QUEUED;
    if (atomic_compare_exchange_strong(&request->progress, &progress, REQUEST_CANCELLED))
        return request->command->steps->changes ? REASON_store_unavailable : REASON_timeout;
    return progress == REQUEST_STORED && request->command->steps->changes ? REASON_durable_not_applied
                                                                          : REASON_timeout;
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct exchange *exchange = arg;
    struct failure failure = { 0 };
    (void)fd, (void)what;
    enum reason reason = give_up(exchange->request);
    fail(&failure, reason, "%s", reason_sentence(reason));
    exchange_leave(exchange);
    exchange->answer(exchange, &failure, NULL);
}

void exchange_init(struct exchange *exchange, struct event_base *base, exchange_answer *answer)
{
    exchange->request = NULL;
    exchange->answer = answer;
    evtimer_assign(&exchange->timer, base, on_timeout, exchange);
}

void exchange_begin(struct exchange *exchange, struct request *request)
{
    size_t lines = json_array_size(json_object_get(request->args, "batch"));
    struct timeval delay = { .tv_sec = APPLY_TIMEOUT_S + (time_t)(lines / BATCH_RATE) };
    exchange->request = request;
    request->exchange = exchange;
    evtimer_add(&exchange->timer, &delay);
    keeper_request(request);
}

void exchange_leave(struct exchange *exchange)
{
    evtimer_del(&exchange->timer);
    if (exchange->request != NULL)
        exchange->request->exchange = NULL;
    exchange->request = NULL;
}

/* ---- The outcome ---- */

/* " raspi", whom it is about, as the result says or else the arguments; "" for what is about nobody. */
static void name_whom(const struct request *request, char out[NAME_SIZE])
{
    static const char *const keys[] = { "name", "session", "principal", "tenant", "pending", "fingerprint" };
    const char *whom = json_string_value(json_object_get(request->result, "name"));
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && whom == NULL; i++)
        whom = request_arg(request, keys[i]);
    if (json_object_get(request->args, "batch") != NULL)
        snprintf(out, NAME_SIZE, " a batch of %zu lines",
                 json_array_size(json_object_get(request->args, "batch")));
    else
        snprintf(out, NAME_SIZE, "%s%.252s", whom != NULL ? " " : "", whom != NULL ? whom : "");
}

static void log_change(const struct request *request, const struct log_subject *subject)
{
    const char *status = json_string_value(json_object_get(request->result, "status"));
    char whom[NAME_SIZE];
    name_whom(request, whom);
    log_write(LOG_LEVEL_INFO, subject, "control: %s: %s%s; closed %u sessions and %u bridges",
              request->command->words, status != NULL ? status : "done", whom, request->closed_sessions,
              request->closed_bridges);
}

/* "add-device raspi" */
static void record(const struct request *request)
{
    const struct actor *actor = &request->actor;
    char object[NAME_SIZE + 64], whom[NAME_SIZE];
    name_whom(request, whom);
    snprintf(object, sizeof(object), "%s%s", request->command->words, whom);
    struct audit_event event = {
        .kind = EVENT_command,
        .reason = request->failure.reason,
        .tenant_id = request->tenant_id,
        .principal_id = actor->principal_id,
        .tenant = request->tenant,
        .principal = actor->principal,
        .address = actor->address,
        .object = object,
    };
    audit(&event);
}

/* Also if nobody waits for it any more: what was done is done. */
static void log_outcome(const struct request *request)
{
    const struct actor *actor = &request->actor;
    struct log_subject subject = {
        .tenant = request->tenant,
        .principal = actor->session != 0 ? actor->principal : NULL,
        .session = actor->session,
    };
    if (request->failure.reason != REASON_none)
        log_write(LOG_LEVEL_INFO, &subject, "control: %s refused: %s: %s", request->command->words,
                  reason_code(request->failure.reason), request->failure.text);
    else if (request->changed)
        log_change(request, &subject);
    if (request->changed || (request->failure.reason != REASON_none && request->command->steps->changes))
        record(request);
}

void exchange_end(struct request *request)
{
    struct exchange *exchange = request->exchange;
    log_outcome(request);
    if (exchange != NULL) {
        exchange_leave(exchange);
        exchange->answer(exchange, &request->failure, request->result);
    }
    request_free(request);
}
