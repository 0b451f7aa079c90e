#include "member.h"

bool qg__member_join(qg_engine *e, const qg_engine_options *o) {
    uint16_t host_id = o->host_id;
    e->counters = o->counters != NULL ? o->counters : &e->own_counters;
    if (o->group != NULL) {
        qg_counters *counters = qg__group_counters(o->group, o->slot, o->generation);
        if (counters == NULL) {
            return false;
        }
        e->group = qg__group_reference(o->group);
        e->counters = o->counters != NULL ? o->counters : counters;
        host_id = (uint16_t)o->group->header->host_id;
    }
    qg__cid_init(&e->cids, (qg_cid_origin){host_id, o->slot, o->generation});
    return true;
}

qg_keys *qg__member_keys(const qg_engine_options *o) {
    if (o->keys != NULL) {
        return qg__keys_reference(o->keys);
    }
    /* Ten seconds per epoch are plenty for Retry, which is all an engine's own ring is for. */
    return o->group != NULL ? qg_group_keys(o->group)
                            : qg_keys_new(NULL, QG_TOKEN_VALID_S, 2, qg__wall_s());
}

bool qg__member_take(qg_engine *e) {
    qg_dgram dgram;
    if (!qg__handover_receive(&e->handover)) {
        return false;
    }
    e->handed_over = true;
    while (qg__handover_next(&e->handover, &dgram)) {
        qg_endpoint *ep = qg__endpoint_at(e, &dgram.to);
        if (ep != NULL) {
            qg__endpoint_receive(ep, &dgram);
        }
    }
    e->handed_over = false;
    return true;
}

void qg__member_send(qg_engine *e) {
    int dead = qg__handover_flush(&e->handover);
    for (int i = 0; dead >= 0 && i < e->endpoint_count; i++) {
        qg_endpoint *ep = e->endpoints[i];
        if (ep != NULL && ep->listening) {
            qg__group_reset(e->group, (uint32_t)dead, ep->dp, e->keys);
        }
    }
}
