/* What is set for endpoints. */
#include "relayd/setting.h"

#include <criterion/criterion.h>

static struct setting *settings;

static void end(void)
{
    setting_forget_all(&settings);
}

TestSuite(setting, .fini = end);

static int put(int64_t device, const char *name, uint16_t port, const char *note)
{
    return setting_put(&settings, device, name, port, note, port == 80);
}

static const char *note(const char *name, uint16_t port)
{
    const struct setting *setting = setting_find(settings, name, port);
    return setting != NULL ? setting->note : "nothing";
}

Test(setting, is_found_by_name_and_port)
{
    cr_assert_null(setting_find(settings, "web", 80));
    cr_assert_eq(put(1, "web", 80, "a shop"), 0);
    cr_assert_eq(put(1, "web", 8, "an eight"), 0);
    cr_expect_str_eq(note("web", 80), "a shop");
    cr_expect(setting_find(settings, "web", 80)->proxy_protocol);
    cr_expect_str_eq(note("web", 8), "an eight");
    cr_expect_not(setting_find(settings, "web", 8)->proxy_protocol);
    cr_expect_null(setting_find(settings, "web", 81));
    cr_expect_null(setting_find(settings, "we", 80));
    cr_expect_null(setting_find(settings, "web:80", 80));
}

Test(setting, a_second_one_takes_the_place_of_the_first)
{
    cr_assert_eq(put(1, "web", 80, "old"), 0);
    cr_assert_eq(put(2, "web", 80, "new"), 0);
    cr_expect_str_eq(note("web", 80), "new");
    setting_forget_device(&settings, 1);
    cr_expect_str_eq(note("web", 80), "new");
    setting_forget_device(&settings, 2);
    cr_expect_null(settings);
}

Test(setting, goes_with_its_device_or_its_name)
{
    cr_assert_eq(put(1, "a", 1, "a1"), 0);
    cr_assert_eq(put(1, "a", 2, "a2"), 0);
    cr_assert_eq(put(1, "x.a", 1, "xa1"), 0);
    cr_assert_eq(put(2, "b", 1, "b1"), 0);
    setting_forget_name(&settings, "a");
    cr_expect_str_eq(note("a", 1), "nothing");
    cr_expect_str_eq(note("a", 2), "nothing");
    cr_expect_str_eq(note("x.a", 1), "xa1");
    cr_expect_str_eq(note("b", 1), "b1");
    setting_forget_device(&settings, 1);
    cr_expect_str_eq(note("x.a", 1), "nothing");
    cr_expect_str_eq(note("b", 1), "b1");
}
