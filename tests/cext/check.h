/* check.h: tests in C. A file of tests says TEST(name) { ... CHECK(...); ... }; check.c runs them.
 * A check that fails ends its test at once and prints what it saw. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct check_test {
    const char *file; /* without folder and extension */
    const char *name;
    void (*run)(void);
    struct check_test *next;
} check_test;

void check_register(check_test *test, const char *path);

#define TEST(title)                                                                                \
    static void title(void);                                                                       \
    __attribute__((constructor)) static void register_##title(void) {                              \
        static check_test test = {NULL, #title, title, NULL};                                      \
        check_register(&test, __FILE__);                                                           \
    }                                                                                              \
    static void title(void)

/* These return only when the check holds. */
void check_true(bool ok, const char *text, const char *file, int line);
void check_equal(int64_t a, int64_t b, const char *text, const char *file, int line);
void check_bytes(const void *a, size_t a_len, const void *b, size_t b_len, const char *text,
                 const char *file, int line);

/* Said with every failure of this test: which row of a table, which seed. NULL: nothing. */
void check_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(condition) check_true((condition), #condition, __FILE__, __LINE__)

/* Integers of any type; both are printed. */
#define CHECK_EQ(a, b) check_equal((int64_t)(a), (int64_t)(b), #a " == " #b, __FILE__, __LINE__)

#define CHECK_BYTES(a, a_len, b, b_len)                                                            \
    check_bytes(a, a_len, b, b_len, #a " is " #b, __FILE__, __LINE__)

/* Bytes that should be this text. */
#define CHECK_TEXT(a, a_len, text) CHECK_BYTES(a, a_len, text, strlen(text))

#endif
