/* member.h: an engine's part in a group of workers. */
#ifndef QG_MEMBER_H
#define QG_MEMBER_H

#include "engine.h"

/* Take its place, if it has one: counters, and the origin of its ids. False: the slot is not its own. */
bool qg__member_join(qg_engine *engine, const qg_engine_options *options);

/* The ring for Retry and reset tokens. NULL without memory. */
qg_keys *qg__member_keys(const qg_engine_options *options);

/* Take a message of packets that other workers got and that are ours. False: there is none. */
bool qg__member_take(qg_engine *engine);

/* Send what we got that is other workers'. One that is found dead is dead for all, and whoever found it
 * so tells its peers, from a socket that they know. */
void qg__member_send(qg_engine *engine);

#endif
