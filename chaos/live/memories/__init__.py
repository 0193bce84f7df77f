"""Every way in which one node of a cluster forgets, played many times on real servers: who holds
the lock, with which token?"""
