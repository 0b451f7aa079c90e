/* qlog.h: where a connection's qlog gathers until the turn ends.
 *
 * quiche gives a qlog piece by piece, in the middle of what it does. The pieces are kept here, whole records
 * only, and written to the file by qg__qlogs_write at the end of a flush.
 *
 * Life: a connection has at most one. It outlives its connection, and its successor's start, until what it
 * holds is written. While it holds something, or has failed and nobody was told, it is in engine->qlogs. */
#ifndef QG_QLOG_H
#define QG_QLOG_H

#include "conn.h"

/* Begin a qlog of the connection, in place of any other. With `folder` the file is one of its own there.
 * `now`: make the file at once; else at the next write. QG_OK, QG_SYSTEM with errno, QG_NOMEM,
 * QG_TOO_LARGE. */
int qg__qlog_begin(qg_conn *conn, const char *path, bool folder, bool now);

/* The connection was none: what was gathered is dropped, and no file is made. */
void qg__qlog_forget(qg_conn *conn);

/* The connection is about to be freed, its quiche_conn is already: write what is left, at the next flush. */
void qg__qlog_conn_gone(qg_conn *conn);

/* Write what was gathered, and tell of files that failed. False when the event ring had no room. */
bool qg__qlogs_write(struct qg_engine *engine);

/* The engine ends: write and free all that have no connection any more. */
void qg__qlogs_free(struct qg_engine *engine);

/* In a forked child: close our copies of the descriptors. */
void qg__qlogs_abandon(struct qg_engine *engine);

#endif
