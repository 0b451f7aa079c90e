/* check.c: runs the tests. Arguments name those to run: a piece of "file.name" each. */
#include "check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The slowest test takes about two seconds; the rest is for busy machines. */
#define TEST_SECONDS_MAX 30

static check_test *first, *last;
static jmp_buf failed;
static uint64_t checks;
static char note[200];

void check_register(check_test *test, const char *path) {
    const char *slash = strrchr(path, '/');
    char *stem = strdup(slash != NULL ? slash + 1 : path);
    stem[strcspn(stem, ".")] = '\0';
    test->file = stem; /* for as long as the process */
    if (last != NULL) {
        last->next = test;
    } else {
        first = test;
    }
    last = test;
}

void check_note(const char *format, ...) {
    note[0] = '\0';
    if (format != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(note, sizeof note, format, arguments);
        va_end(arguments);
    }
}

static void fail(const char *text, const char *file, int line) {
    fprintf(stderr, "%s:%d: %s%s%s\n", file, line, text, note[0] != '\0' ? "\n    in " : "", note);
    longjmp(failed, 1);
}

void check_true(bool ok, const char *text, const char *file, int line) {
    checks++;
    if (!ok) {
        fail(text, file, line);
    }
}

void check_equal(int64_t a, int64_t b, const char *text, const char *file, int line) {
    checks++;
    if (a != b) {
        fprintf(stderr, "    %lld (0x%llx) and %lld (0x%llx)\n", (long long)a, (long long)a,
                (long long)b, (long long)b);
        fail(text, file, line);
    }
}

static void print_bytes(const uint8_t *bytes, size_t len) {
    fprintf(stderr, "    %zu bytes: ", len);
    for (size_t i = 0; i < len && i < 160; i++) {
        bool plain = bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '\\';
        fprintf(stderr, plain ? "%c" : "\\x%02x", bytes[i]);
    }
    fputc('\n', stderr);
}

void check_bytes(const void *a, size_t a_len, const void *b, size_t b_len, const char *text,
                 const char *file, int line) {
    checks++;
    if (a_len != b_len || (a_len > 0 && memcmp(a, b, a_len) != 0)) {
        print_bytes(a, a_len);
        print_bytes(b, b_len);
        fail(text, file, line);
    }
}

static bool chosen(const check_test *test, int count, char **names) {
    char full[200];
    snprintf(full, sizeof full, "%s.%s", test->file, test->name);
    bool any = count == 0;
    for (int i = 0; i < count; i++) {
        any |= strstr(full, names[i]) != NULL;
    }
    return any;
}

static bool passes(const check_test *test) {
    if (setjmp(failed) != 0) {
        return false;
    }
    alarm(TEST_SECONDS_MAX);
    check_note(NULL);
    test->run();
    return true;
}

int main(int argc, char **argv) {
    unsigned run = 0, bad = 0;
    for (check_test *test = first; test != NULL; test = test->next) {
        if (!chosen(test, argc - 1, argv + 1)) {
            continue;
        }
        bool ok = passes(test);
        printf("%s %s.%s\n", ok ? "ok    " : "FAILED", test->file, test->name);
        fflush(stdout);
        run++;
        bad += !ok;
    }
    printf("%u tests, %llu checks, %u failed\n", run, (unsigned long long)checks, bad);
    fflush(stdout);
    for (check_test *test = first; test != NULL; test = test->next) {
        free((char *)(uintptr_t)test->file);
    }
    if (bad > 0) {
        _exit(1); /* what a failed test left behind is no leak worth a report */
    }
    return run > 0 ? 0 : 2;
}
