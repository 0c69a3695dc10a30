#include "relayd/mailbox.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct letter {
    struct mail mail; /* first */
    int from, number;
};

static bool is_readable(const struct mailbox *box)
{
    struct pollfd fd = { .fd = mailbox_fd(box), .events = POLLIN };
    return poll(&fd, 1, 0) == 1 && fd.revents == POLLIN;
}

static int count(const struct mail *mail)
{
    int n = 0;
    for (; mail != NULL; mail = mail->next)
        n++;
    return n;
}

/* Checks that the mails are letters first, first + 1, ... and that there are n of them. */
static void expect_letters(const struct mail *mail, int first, int n)
{
    cr_assert_eq(count(mail), n, "%d mails in place of %d", count(mail), n);
    for (; mail != NULL; mail = mail->next, first++)
        cr_expect_eq(((const struct letter *)mail)->number, first);
}

static void number_letters(struct letter *letters, int n)
{
    for (int i = 0; i < n; i++)
        letters[i] = (struct letter){ .number = i };
}

Test(mailbox, oldest_first)
{
    struct letter letters[5];
    struct mailbox *box = mailbox_new(10);
    number_letters(letters, 5);
    cr_expect_null(mailbox_take(box, 100));
    for (int i = 0; i < 5; i++)
        cr_assert_eq(mailbox_post(box, &letters[i].mail), 0);
    expect_letters(mailbox_take(box, 100), 0, 5);
    cr_expect_null(mailbox_take(box, 100));
    mailbox_free(box);
}

Test(mailbox, readable_while_mail_waits_and_only_then)
{
    struct letter letters[6];
    struct mailbox *box = mailbox_new(10);
    number_letters(letters, 6);
    for (int round = 0; round < 3; round++) {
        cr_expect_not(is_readable(box));
        cr_expect_null(mailbox_take(box, 1));
        cr_expect_not(is_readable(box));
        for (int i = 0; i < 6; i++) {
            cr_assert_eq(mailbox_post(box, &letters[i].mail), 0);
            cr_expect(is_readable(box));
        }
        expect_letters(mailbox_take(box, 2), 0, 2);
        cr_expect(is_readable(box));
        expect_letters(mailbox_take(box, 3), 2, 3);
        cr_expect(is_readable(box));
        expect_letters(mailbox_take(box, 1), 5, 1);
        cr_expect_not(is_readable(box));
    }
    mailbox_free(box);
}

Test(mailbox, mail_posted_behind_a_partial_take_comes_last)
{
    struct letter letters[4];
    struct mailbox *box = mailbox_new(10);
    number_letters(letters, 4);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(mailbox_post(box, &letters[i].mail), 0);
    expect_letters(mailbox_take(box, 1), 0, 1);
    cr_assert_eq(mailbox_post(box, &letters[3].mail), 0);
    expect_letters(mailbox_take(box, 100), 1, 3);
    cr_expect_not(is_readable(box));
    mailbox_free(box);
}

Test(mailbox, full_refuses_and_post_always_does_not)
{
    struct letter letters[6];
    struct mailbox *box = mailbox_new(2);
    number_letters(letters, 6);
    cr_expect_eq(mailbox_post(box, &letters[0].mail), 0);
    cr_expect_eq(mailbox_post(box, &letters[1].mail), 0);
    cr_expect_eq(mailbox_post(box, &letters[5].mail), -1);
    mailbox_post_always(box, &letters[2].mail);
    cr_expect_eq(mailbox_post(box, &letters[5].mail), -1);
    expect_letters(mailbox_take(box, 2), 0, 2);
    cr_expect_eq(mailbox_post(box, &letters[3].mail), 0);
    cr_expect_eq(mailbox_post(box, &letters[5].mail), -1);
    expect_letters(mailbox_take(box, 100), 2, 2);
    mailbox_free(box);
}

Test(mailbox, a_box_for_nothing_takes_only_what_cannot_be_refused)
{
    struct letter letter = { .number = 0 };
    struct mailbox *box = mailbox_new(0);
    cr_expect_eq(mailbox_post(box, &letter.mail), -1);
    cr_expect_not(is_readable(box));
    mailbox_post_always(box, &letter.mail);
    cr_expect(is_readable(box));
    expect_letters(mailbox_take(box, SIZE_MAX), 0, 1);
    mailbox_free(box);
    mailbox_free(NULL);
}

Test(mailbox, taking_none_leaves_all)
{
    struct letter letters[2];
    struct mailbox *box = mailbox_new(10);
    number_letters(letters, 2);
    mailbox_post_always(box, &letters[0].mail);
    cr_expect_null(mailbox_take(box, 0));
    cr_expect(is_readable(box));
    mailbox_post_always(box, &letters[1].mail);
    expect_letters(mailbox_take(box, 10), 0, 2);
    mailbox_free(box);
}

/* A mail may be posted again as soon as it was taken: its old successor is forgotten. */
Test(mailbox, a_mail_can_travel_again)
{
    struct letter letters[2];
    struct mailbox *box = mailbox_new(10);
    number_letters(letters, 2);
    mailbox_post_always(box, &letters[0].mail);
    mailbox_post_always(box, &letters[1].mail);
    cr_assert_eq(count(mailbox_take(box, 10)), 2);
    mailbox_post_always(box, &letters[0].mail);
    cr_expect_eq(count(mailbox_take(box, 10)), 1);
    mailbox_free(box);
}

/* ---- Several threads ---- */

#define SENDERS 4
#define LETTERS 3000
#define ROOM 64

struct sender {
    struct mailbox *box;
    int index;
    atomic_uint refused;
};

static void *send_all(void *arg)
{
    struct sender *sender = arg;
    for (int i = 0; i < LETTERS; i++) {
        struct letter *letter = calloc(1, sizeof(*letter));
        if (letter == NULL)
            abort();
        letter->from = sender->index;
        letter->number = i;
        while (mailbox_post(sender->box, &letter->mail) != 0) {
            sender->refused++;
            sched_yield();
        }
    }
    return NULL;
}

Test(mailbox, many_threads_one_taker, .timeout = 60)
{
    struct mailbox *box = mailbox_new(ROOM);
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    int next[SENDERS] = { 0 };
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){ .box = box, .index = i };
        cr_assert_eq(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    for (int left = SENDERS * LETTERS; left > 0;) {
        struct pollfd fd = { .fd = mailbox_fd(box), .events = POLLIN };
        cr_assert_eq(poll(&fd, 1, 10000), 1, "%d letters have not come", left);
        struct mail *mail = mailbox_take(box, 7);
        cr_assert_not_null(mail, "readable and empty");
        cr_assert_leq(count(mail), 7);
        while (mail != NULL) {
            struct letter *letter = (struct letter *)mail;
            mail = mail->next;
            cr_assert_eq(letter->number, next[letter->from]++, "sender %d", letter->from);
            free(letter);
            left--;
        }
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    cr_expect_not(is_readable(box));
    cr_expect_null(mailbox_take(box, SIZE_MAX));
    mailbox_free(box);
}
