/* resumption.h: connections that take up an earlier one's session.
 *
 * HTTP/3 may run before the handshake is complete (conn->started): at a client once quiche has sent
 * the first flight of a resumed session, at a server once it has read it. What runs then can be
 * replayed, so a client sends only what its caller marked with QG_EARLY, and a server announces only
 * what is safe and whole; the rest waits for the handshake. Requests in early data that is
 * refused are sent again on new streams, at once; for the server the old ones were reset before they
 * began. What else was in it quiche sends again, so HTTP/3 need not begin anew. */
#ifndef QG_RESUMPTION_H
#define QG_RESUMPTION_H

#include "conn.h"
#include "quicgreen_sessions.h"

/* Start HTTP/3, or raw streams, if they are not. */
void qg__conn_start_streams(qg_conn *conn);

/* Server: the first flight was read. Start early, if there is early data. */
void qg__conn_look_for_early(qg_conn *conn);

/* Did the client send requests in early data? (A server sees only that it said so.) */
bool qg__conn_early_tried(const qg_conn *conn);

/* The handshake is complete: count, and see to it that what was refused is sent again at once. */
void qg__conn_end_early(qg_conn *conn);

/* All packets that quiche had are out. True when it has more to send because of that. */
bool qg__conn_on_sent(qg_conn *conn);

/* A client's: when tickets wait for the server's settings, which are part of what is remembered, read
 * these before any response. */
void qg__conn_read_settings(qg_conn *conn);

/* Tell of tickets that came. False when the event ring has no room. */
bool qg__conn_say_tickets(qg_conn *conn);

#endif
