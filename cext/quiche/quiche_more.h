/* What src/lib.rs adds to quiche.h. */
#ifndef QUICHE_MORE_H
#define QUICHE_MORE_H

#include <stddef.h>
#include <stdint.h>

#include "quiche.h"

quiche_config *qgq_config_new(void); /* to be freed with quiche_config_free */
uint64_t qgq_conn_timeout_at_ns(const quiche_conn *conn, uint64_t now_ns);
uint64_t qgq_conn_peer_idle_timeout_ms(const quiche_conn *conn);
int64_t qgq_conn_stream_capacity(quiche_conn *conn, uint64_t stream_id, uint64_t *code);
void qgq_config_set_send_capacity_factor(quiche_config *config, double factor);
void qgq_conn_set_qlog(quiche_conn *conn, const char *title, const char *description,
                       void (*write)(void *context, const uint8_t *bytes, size_t len),
                       void *context);
void qgq_conn_end_qlog(quiche_conn *conn);

#endif
