#include "schema/usage.h"

#include "schema/quote.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static void copy_name(char name[24], const char *word, size_t len)
{
    assert(len > 0 && len < 24);
    for (size_t i = 0; i < len; i++)
        name[i] = (char)tolower((unsigned char)word[i]);
    name[len] = '\0';
}

/* Is what begins here one of several, of which one is to be given? */
static bool in_group(const char *line)
{
    const char *end = strpbrk(line, "()");
    return end != NULL && *end == ')';
}

void usage_parse(const char *line, struct usage *usage)
{
    unsigned group = 0;
    memset(usage, 0, sizeof(*usage));
    while (*line != '\0') {
        assert(usage->n < USAGE_MAX);
        struct usage_arg *arg = &usage->arg[usage->n++];
        group += *line == '(';
        line += strspn(line, "(| ");
        bool optional = *line == '[';
        line += optional;
        arg->group = in_group(line) ? group : 0;
        arg->required = !optional && arg->group == 0;
        arg->option = strncmp(line, "--", 2) == 0;
        line += arg->option ? 2 : 0;
        size_t len = strcspn(line, " .]");
        copy_name(arg->name, line, len);
        line += len;
        arg->flag = arg->option && *line == ']';
        arg->file = arg->option && strncmp(line, " FILE", 5) == 0;
        if (arg->option && !arg->flag)
            line += 1 + strcspn(line + 1, " .]");
        if (optional) {
            assert(*line == ']');
            line++;
        }
        bool dots = strncmp(line, "...", 3) == 0;
        arg->repeated = dots || arg->file;
        line += dots ? 3 : 0;
        line += strspn(line, " )");
    }
}

static const struct usage_arg *find_option(const struct usage *usage, const char *name)
{
    for (size_t i = 0; i < usage->n; i++)
        if (usage->arg[i].option && strcmp(usage->arg[i].name, name) == 0)
            return &usage->arg[i];
    return NULL;
}

static json_t *join_words(int argc, char *const argv[])
{
    char text[USAGE_VALUE_MAX + 1];
    size_t used = 0;
    for (int i = 0; i < argc; i++) {
        int n = snprintf(text + used, sizeof(text) - used, "%s%s", i ? " " : "", argv[i]);
        if (n < 0 || (size_t)n >= sizeof(text) - used)
            return NULL;
        used += (size_t)n;
    }
    return json_string(text);
}

/* What is lost here would be taken for not given: rules, an expiry. */
static int put_value(json_t *args, const struct usage_arg *arg, json_t *value, char *error, size_t size)
{
    bool list = arg->option && arg->repeated;
    if (list && json_object_get(args, arg->name) == NULL)
        json_object_set_new(args, arg->name, json_array());
    int rc = list ? json_array_append_new(json_object_get(args, arg->name), value)
                  : json_object_set_new(args, arg->name, value);
    if (rc != 0)
        snprintf(error, size, "out of memory");
    return rc;
}

/* Takes the option at argv[0]. Returns the number of words used, 0 on error. */
static int take_option(const struct usage *usage, int argc, char *const argv[], json_t *args, char *error,
                       size_t size)
{
    const struct usage_arg *option = find_option(usage, argv[0] + 2);
    if (option == NULL) {
        snprintf(error, size, "unknown option %s", argv[0]);
        return 0;
    }
    if (option->flag)
        return put_value(args, option, json_true(), error, size) == 0 ? 1 : 0;
    if (argc < 2) {
        snprintf(error, size, "option %s needs a value", argv[0]);
        return 0;
    }
    json_t *value = json_string(argv[1]);
    if (value == NULL) {
        snprintf(error, size, "the value of %s is not UTF-8 text", argv[0]);
        return 0;
    }
    return put_value(args, option, value, error, size) == 0 ? 2 : 0;
}

/* Whether a word stands where a file was given instead: most likely a second file. */
static bool is_second_file(const struct usage *usage, const struct usage_arg *word, const json_t *args)
{
    for (size_t i = 0; i < usage->n && word->group != 0; i++) {
        const struct usage_arg *arg = &usage->arg[i];
        if (arg->file && arg->group == word->group && json_object_get(args, arg->name) != NULL)
            return true;
    }
    return false;
}

/* Gives the positional words their names. */
static int take_words(const struct usage *usage, int argc, char *const argv[], json_t *args, char *error,
                      size_t size)
{
    int used = 0;
    for (size_t i = 0; i < usage->n; i++) {
        const struct usage_arg *arg = &usage->arg[i];
        if (arg->option)
            continue;
        if (used == argc) {
            if (!arg->required)
                continue;
            snprintf(error, size, "%s is missing", arg->name);
            return -1;
        }
        if (is_second_file(usage, arg, args)) {
            snprintf(error, size, "give one file at a time, and no %s beside it", arg->name);
            return -1;
        }
        int words = arg->repeated ? argc - used : 1;
        json_t *value = join_words(words, argv + used);
        if (value == NULL) {
            snprintf(error, size, "%s is too long or not UTF-8 text", arg->name);
            return -1;
        }
        if (put_value(args, arg, value, error, size) != 0)
            return -1;
        used += words;
    }
    if (used < argc) {
        snprintf(error, size, "there is no use for \"%s\" here", argv[used]);
        return -1;
    }
    return 0;
}

/* "key, --pending or --batch": those of a group. */
static void put_group(const struct usage *usage, unsigned group, const char *last, char *out, size_t size)
{
    size_t used = 0, left = 0;
    for (size_t i = 0; i < usage->n; i++)
        left += usage->arg[i].group == group;
    for (size_t i = 0; i < usage->n && used < size; i++) {
        const struct usage_arg *arg = &usage->arg[i];
        if (arg->group != group)
            continue;
        const char *behind = --left > 1 ? ", " : left == 1 ? last : "";
        used += (size_t)snprintf(out + used, size - used, "%s%s%s", arg->option ? "--" : "", arg->name,
                                 behind);
    }
}

/* Is exactly one of each group there? */
static int check_groups(const struct usage *usage, const json_t *args, char *error, size_t size)
{
    char names[160];
    for (unsigned group = 1; group <= USAGE_MAX; group++) {
        size_t members = 0, given = 0;
        for (size_t i = 0; i < usage->n; i++) {
            bool member = usage->arg[i].group == group;
            members += member;
            given += member && json_object_get(args, usage->arg[i].name) != NULL;
        }
        if (members == 0 || given == 1)
            continue;
        put_group(usage, group, given == 0 ? " or " : " and ", names, sizeof(names));
        snprintf(error, size, given == 0 ? "%s is missing" : "only one of %s can be given", names);
        return -1;
    }
    return 0;
}

json_t *usage_from_words(const struct usage *usage, int argc, char *const argv[], char *error, size_t size)
{
    char *words[256];
    int count = 0;
    json_t *args = json_object();
    if (args == NULL) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    for (int i = 0; i < argc;) {
        /* "-" is a word: standard input. So is what begins with more dashes, such as a private key
         * that was pasted by mistake and must not be repeated. */
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '-') {
            int n = take_option(usage, argc - i, argv + i, args, error, size);
            if (n == 0)
                goto fail;
            i += n;
            continue;
        }
        if (count == 256) {
            snprintf(error, size, "too many words");
            goto fail;
        }
        words[count++] = argv[i++];
    }
    if (take_words(usage, count, words, args, error, size) == 0 &&
        check_groups(usage, args, error, size) == 0)
        return args;
fail:
    json_decref(args);
    return NULL;
}

static void put_option(FILE *out, const char *name, const char *value)
{
    fprintf(out, " --%s", name);
    if (value != NULL) {
        fputc(' ', out);
        quote_word(out, value);
    }
}

static void put_arg(FILE *out, const struct usage_arg *arg, const json_t *value)
{
    size_t i;
    json_t *item;
    if (value == NULL || json_is_false(value))
        return;
    if (arg->flag) {
        put_option(out, arg->name, NULL);
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, item)
            put_option(out, arg->name, json_string_value(item));
    } else if (arg->option) {
        put_option(out, arg->name, json_string_value(value));
    } else {
        fputc(' ', out);
        quote_word(out, json_string_value(value));
    }
}

char *usage_to_line(const struct usage *usage, const char *words, const json_t *args)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    fputs(words, out);
    for (size_t i = 0; i < usage->n; i++)
        put_arg(out, &usage->arg[i], json_object_get(args, usage->arg[i].name));
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

static int check_string(const char *name, const json_t *value, char *error, size_t size)
{
    if (!json_is_string(value) || json_string_length(value) > USAGE_VALUE_MAX ||
        strlen(json_string_value(value)) != json_string_length(value)) {
        snprintf(error, size, "argument \"%s\" must be text of at most %d bytes", name, USAGE_VALUE_MAX);
        return -1;
    }
    return 0;
}

static int check_arg(const struct usage_arg *arg, const json_t *value, char *error, size_t size)
{
    if (value == NULL) {
        if (!arg->required)
            return 0;
        snprintf(error, size, "argument \"%s\" is missing", arg->name);
        return -1;
    }
    if (arg->flag) {
        if (json_is_boolean(value))
            return 0;
        snprintf(error, size, "argument \"%s\" must be true or false", arg->name);
        return -1;
    }
    if (!(arg->option && arg->repeated))
        return check_string(arg->name, value, error, size);
    if (!json_is_array(value) || json_array_size(value) > USAGE_LIST_MAX) {
        snprintf(error, size, "argument \"%s\" must be an array of at most %d texts", arg->name,
                 USAGE_LIST_MAX);
        return -1;
    }
    size_t i;
    json_t *item;
    json_array_foreach(value, i, item)
        if (check_string(arg->name, item, error, size) != 0)
            return -1;
    return 0;
}

int usage_check(const struct usage *usage, const json_t *args, char *error, size_t size)
{
    size_t known = 0;
    if (!json_is_object(args)) {
        snprintf(error, size, "the arguments must be an object");
        return -1;
    }
    for (size_t i = 0; i < usage->n; i++) {
        const json_t *value = json_object_get(args, usage->arg[i].name);
        known += value != NULL;
        if (check_arg(&usage->arg[i], value, error, size) != 0)
            return -1;
    }
    if (known != json_object_size(args)) {
        snprintf(error, size, "there are arguments that this command does not know");
        return -1;
    }
    return check_groups(usage, args, error, size);
}
