/* What src/lib.rs adds to quiche.h. */
#ifndef QUICHE_MORE_H
#define QUICHE_MORE_H

#include <stdint.h>

#include "quiche.h"

quiche_config *qgq_config_new(void); /* to be freed with quiche_config_free */
uint64_t qgq_conn_timeout_at_ns(const quiche_conn *conn, uint64_t now_ns);
uint64_t qgq_conn_peer_idle_timeout_ms(const quiche_conn *conn);
int64_t qgq_conn_stream_capacity(quiche_conn *conn, uint64_t stream_id, uint64_t *code);
void qgq_config_set_send_capacity_factor(quiche_config *config, double factor);

#endif
