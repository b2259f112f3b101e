"""All cores: worker processes behind one port, and the parent that looks after them.

``supervisor``  the parent: starts them, stops them, adds up their figures
``process``     one worker as the parent sees it
``worker``      a worker's own life
``nursery``     the process that workers are forked from
``ports``, ``steering``  sockets that they share, and which datagram goes to which
``board``, ``ledger``, ``messages``, ``merge``  what a worker tells the parent, and how that becomes one summary
"""
