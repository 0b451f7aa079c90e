#include "resumption.h"

#include "engine.h"
#include "h3.h"
#include "raw.h"

void qg__conn_start_streams(qg_conn *conn) {
    if (conn->started) {
        return;
    }
    conn->started = true;
    if (conn->raw) {
        qg__raw_start(conn);
    } else {
        qg__h3_start(conn);
    }
}

void qg__conn_look_for_early(qg_conn *conn) {
    /* Of raw streams nobody can tell what is safe. */
    if (conn->is_server && !conn->raw && !conn->started &&
        quiche_conn_is_in_early_data(conn->quiche)) {
        qg__conn_start_streams(conn);
    }
}

bool qg__conn_early_tried(const qg_conn *conn) {
    return conn->is_server ? conn->handshake.early_offered : conn->early_sent;
}

void qg__conn_end_early(qg_conn *conn) {
    qg_counters *counters = conn->engine->counters;
    bool tried = qg__conn_early_tried(conn);
    bool accepted = SSL_early_data_accepted(conn->ssl) == 1;
    conn->wants_early = false;
    counters->early_data_accepted += tried && accepted;
    counters->early_data_refused += tried && !accepted;
    if (!conn->is_server && conn->early_sent) {
        qg__conn_settle_early(conn, accepted);
        /* The rest that was refused, our SETTINGS, and what a Retry dropped: quiche sends it again when
         * its probe timeout passes, or a round trip after a packet that asks for an acknowledgement. */
        conn->nudge = true;
        qg__conn_dirty(conn);
    }
}

bool qg__conn_on_sent(qg_conn *conn) {
    if (conn->wants_early && quiche_conn_is_in_early_data(conn->quiche)) {
        conn->wants_early = false;
        if (!conn->raw && quiche_conn_peer_streams_left_uni(conn->quiche) == 0) {
            return false; /* HTTP/3 cannot begin by what the ticket remembers; the server may allow more */
        }
        conn->h3.peer_max_field_section_size = conn->remembered.max_field_section_size;
        conn->h3.peer_extended_connect = conn->remembered.extended_connect;
        qg__conn_start_streams(conn);
        qg__conn_open_pending(conn); /* requests only, which say nothing */
        return true;
    }
    if (conn->nudge && conn->established) {
        /* Only now: in the same flight as the handshake's last packet it would count for that. */
        conn->nudge = false;
        return quiche_conn_send_ack_eliciting(conn->quiche) == 0;
    }
    return false;
}

void qg__conn_read_settings(qg_conn *conn) {
    uint64_t id;
    if (conn->is_server || conn->raw || conn->h3.settings_seen || conn->handshake.tickets == NULL) {
        return;
    }
    quiche_stream_iter *readable = quiche_conn_readable(conn->quiche);
    while (quiche_stream_iter_next(readable, &id)) {
        if ((id & 2) != 0 &&
            (!qg__engine_room(conn->engine, conn->config) || !qg__h3_readable(conn, id))) {
            break;
        }
    }
    quiche_stream_iter_free(readable);
}

bool qg__conn_say_tickets(qg_conn *conn) {
    qg_events *events = &conn->engine->events;
    qg_handshake *handshake = &conn->handshake;
    if (conn->token == 0 || !(conn->raw || conn->h3.settings_seen)) {
        return true; /* the server's settings are part of what is remembered */
    }
    qg_remembered remembered = {conn->h3.peer_max_field_section_size,
                                conn->h3.peer_extended_connect};
    while (handshake->tickets != NULL) {
        qg_ticket *ticket = handshake->tickets;
        if (!qg__events_room(events, ticket->len)) {
            return false;
        }
        qg__ticket_seal(ticket, &remembered);
        memcpy(qg__events_at(events), ticket->bytes, ticket->len);
        qg_event *event = qg__events_add(events, QG_EVENT_TICKET);
        event->token = conn->token;
        event->conn = conn->id;
        event->head_len = ticket->len;
        event->value = ticket->lifetime_s;
        event->flags = ticket->early ? QG_EARLY : 0;
        qg__events_took(events, ticket->len);
        qg__session_drop_first(handshake);
    }
    return true;
}
