"""Session tickets of clients and where they are kept, so that no handshake is paid for twice.

    store                      lives as long as       is shared by
    MemoryTicketStore          the object             the threads of a process
    SharedMemoryTicketStore    the machine is up      the processes of a user
    FileTicketStore            the files              the processes of a user
    RedisTicketStore           Redis keeps it         whoever reaches it

All do what `TicketStore` says. They know nothing of gevent and of connections: they may be called from any
thread, and may block; a greenlet that must not block calls them in a thread.
"""

from .file import FileTicketStore
from .key import TicketKeys, ticket_key
from .memory import MemoryTicketStore
from .redis import RedisTicketStore
from .shared_memory import SharedMemoryTicketStore
from .store import KEEP, TicketStore, fingerprint
from .ticket import Ticket

__all__ = [
    "KEEP",
    "FileTicketStore",
    "MemoryTicketStore",
    "RedisTicketStore",
    "SharedMemoryTicketStore",
    "Ticket",
    "TicketKeys",
    "TicketStore",
    "fingerprint",
    "ticket_key",
]
