"""A run's folder belongs to one run at a time: the lease ``RUNNING`` says to which.

Rank 0 makes the file, exclusively, and renews a counter in it every few seconds; whoever starts in
the same folder is refused. A holder that ended without removing it, as by SIGKILL, is followed at
once where it is known to be gone, else after it has missed many beats by the follower's own
monotonic clock. Hosts need not agree on dates, clocks or locks: there are only names made
exclusively and names replaced, which NFS and Lustre do atomically.
"""
