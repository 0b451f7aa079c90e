/* huffman.h: HPACK's Huffman code for strings (RFC 7541, section 5.2 and appendix B). */
#ifndef QG_HUFFMAN_H
#define QG_HUFFMAN_H

#include "base.h"

/* How many bytes `in` takes when coded. */
size_t qg__huffman_size(const uint8_t *in, size_t len);

/* Write the code of `in` to `out`, which has room for qg__huffman_size bytes. */
void qg__huffman_encode(const uint8_t *in, size_t len, uint8_t *out);

/* Returns the bytes written; QG_PROTOCOL for a wrong code or padding, QG_TOO_LARGE when `capacity`
 * is too little. */
int64_t qg__huffman_decode(const uint8_t *in, size_t len, uint8_t *out, size_t capacity);

#endif
