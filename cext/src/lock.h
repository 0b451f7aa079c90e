/* lock.h: the lock over what engines of several threads share: key rings, and registers of early data.
 *
 * One for all of them, which a fork holds: so a child finds it free, and nothing half done under it, also
 * when another thread of its parent was at it. (A lock that another thread held at the fork is never given
 * back in the child.) What is done under it takes a microsecond, or once in a period, when keys are derived,
 * some hundreds. */
#ifndef QG_LOCK_H
#define QG_LOCK_H

void qg__lock(void);
void qg__unlock(void);

#endif
