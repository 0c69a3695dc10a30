#include "relayd/mailbox.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mailbox {
    pthread_mutex_t lock; /* guards all below; no other lock is taken while it is held */
    struct mail *first, **last;
    size_t n, limit;
    int fd; /* its count is 1 while mail waits, else 0 */
};

struct mailbox *mailbox_new(size_t limit)
{
    struct mailbox *mailbox = calloc(1, sizeof(*mailbox));
    if (mailbox == NULL)
        return NULL;
    mailbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->fd < 0) {
        free(mailbox);
        return NULL;
    }
    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->last = &mailbox->first;
    mailbox->limit = limit;
    return mailbox;
}

void mailbox_free(struct mailbox *mailbox)
{
    if (mailbox == NULL)
        return;
    close(mailbox->fd);
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

int mailbox_fd(const struct mailbox *mailbox)
{
    return mailbox->fd;
}

/* Called with the lock held. The eventfd cannot overflow: it is only raised from empty. */
static void append(struct mailbox *mailbox, struct mail *mail)
{
    uint64_t one = 1;
    mail->next = NULL;
    *mailbox->last = mail;
    mailbox->last = &mail->next;
    if (mailbox->n++ == 0 && write(mailbox->fd, &one, sizeof(one)) < 0)
        abort();
}

int mailbox_post(struct mailbox *mailbox, struct mail *mail)
{
    int rc = -1;
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->n < mailbox->limit) {
        append(mailbox, mail);
        rc = 0;
    }
    pthread_mutex_unlock(&mailbox->lock);
    return rc;
}

void mailbox_post_always(struct mailbox *mailbox, struct mail *mail)
{
    pthread_mutex_lock(&mailbox->lock);
    append(mailbox, mail);
    pthread_mutex_unlock(&mailbox->lock);
}

size_t mailbox_waiting(struct mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    size_t n = mailbox->n;
    pthread_mutex_unlock(&mailbox->lock);
    return n;
}

/* Behind the first n. Called with the lock held: all of them are taken without a walk. */
static struct mail **behind(struct mailbox *mailbox, size_t n)
{
    struct mail **end = &mailbox->first;
    if (n == mailbox->n)
        return mailbox->last;
    while (n-- > 0)
        end = &(*end)->next;
    return end;
}

struct mail *mailbox_take(struct mailbox *mailbox, size_t max)
{
    uint64_t count;
    pthread_mutex_lock(&mailbox->lock);
    size_t n = max < mailbox->n ? max : mailbox->n;
    struct mail *first = n > 0 ? mailbox->first : NULL, **end = behind(mailbox, n);
    mailbox->n -= n;
    if (first != NULL) {
        mailbox->first = *end;
        *end = NULL;
    }
    if (mailbox->first == NULL) {
        mailbox->last = &mailbox->first;
        if (first != NULL && read(mailbox->fd, &count, sizeof(count)) < 0)
            abort();
    }
    pthread_mutex_unlock(&mailbox->lock);
    return first;
}
