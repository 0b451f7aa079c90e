/* config.h: transport settings, and what follows from them. One configuration serves many
 * connections; it is never changed after it was made. */
#ifndef QG_CONFIG_H
#define QG_CONFIG_H

#include "base.h"
#include "head.h"
#include "quiche_more.h"
#include "tls.h"

struct qg_config {
    qg_config_options options;
    quiche_config *quiche;
    qg_tls *tls;
    char *qlog_dir; /* NULL: none */
    qg_head_limits limits;
    _Atomic uint32_t references; /* engines of several threads may share it */
    /* Of everything a client remembers with a ticket: limits, SETTINGS, protocols. Early data is
     * only taken by a server whose digest is the same. */
    uint8_t digest[32];
};

qg_config *qg__config_reference(qg_config *config);

#endif
