/* replay.c: a main for compilers without libFuzzer: runs a target on the files given, then on
 * inputs made from them, the same ones in each run.
 *
 *     target COUNT SECONDS FILE...
 *
 * COUNT inputs are made, or as many as take SECONDS. What was run last stands in the file that
 * FUZZ_LAST names, to be looked at after a crash. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuzz.h"
#include "random.h"

#define INPUT_MAX 4096

typedef struct seed {
    uint8_t *bytes;
    size_t len;
} seed;

static void run(const uint8_t *bytes, size_t len) {
    const char *last = getenv("FUZZ_LAST");
    FILE *file = last != NULL ? fopen(last, "wb") : NULL;
    if (file != NULL) {
        fwrite(bytes, 1, len, file);
        fclose(file);
    }
    uint8_t *copy = fuzz_copy(bytes, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static seed load(const char *path) {
    seed s = {.bytes = malloc(INPUT_MAX)};
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    s.len = fread(s.bytes, 1, INPUT_MAX, file);
    fclose(file);
    return s;
}

/* One small change. */
static size_t change(uint64_t *random, uint8_t *bytes, size_t len, const seed *other) {
    size_t at = random_below(random, len + 1), n = 1 + random_below(random, 16);
    switch (random_below(random, 6)) {
    case 0: /* a bit */
        if (at < len) {
            bytes[at] ^= (uint8_t)(1 << random_below(random, 8));
        }
        return len;
    case 1: /* a byte that matters more often than others */
        if (at < len) {
            static const uint8_t values[] = {0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff};
            bytes[at] = values[random_below(random, sizeof values)];
        }
        return len;
    case 2: /* less */
        n = n < len - at ? n : len - at;
        memmove(bytes + at, bytes + at + n, len - at - n);
        return len - n;
    case 3: /* more */
        n = n < INPUT_MAX - len ? n : INPUT_MAX - len;
        memmove(bytes + at + n, bytes + at, len - at);
        random_bytes(random, bytes + at, n);
        return len + n;
    case 4: /* the end of another one */
        if (other->len > at) {
            memcpy(bytes + at, other->bytes + at, other->len - at);
            return other->len;
        }
        return len;
    default: /* some bytes */
        n = n < len - at ? n : len - at;
        random_bytes(random, bytes + at, n);
        return len;
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s COUNT SECONDS FILE...\n", argv[0]);
        return 2;
    }
    unsigned long count = strtoul(argv[1], NULL, 10), made = 0;
    time_t end = time(NULL) + atol(argv[2]);
    unsigned seeds = (unsigned)argc - 3;
    seed *all = calloc(seeds, sizeof *all);
    for (unsigned i = 0; i < seeds; i++) {
        all[i] = load(argv[3 + i]);
        run(all[i].bytes, all[i].len);
    }
    uint64_t random = 1;
    for (; made < count && time(NULL) < end; made++) {
        uint8_t bytes[INPUT_MAX];
        const seed *from = &all[made % seeds];
        size_t len = from->len;
        memcpy(bytes, from->bytes, len);
        for (uint64_t changes = 1 + random_below(&random, 6); changes > 0; changes--) {
            len = change(&random, bytes, len, &all[random_below(&random, seeds)]);
        }
        run(bytes, len);
    }
    printf("%u seeds, %lu made of them\n", seeds, made);
    for (unsigned i = 0; i < seeds; i++) {
        free(all[i].bytes);
    }
    free(all);
    return 0;
}
