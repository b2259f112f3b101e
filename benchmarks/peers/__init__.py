"""Programs that strep is compared with, one file each. None of them imports strep.

Each says a line of JSON when it is ready (its first port, the processes that do the work) and, on SIGTERM, one of what
it received.
"""
