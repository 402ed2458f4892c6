"""A small AWS in memory with a time of its own, in which the real settlers of a run can be stopped at every call.

world.py     time, faults, the bucket, the instances, commands; what must never happen is checked at every call
hosts.py     an instance and what runs on it, after a script
settlers.py  processes: the product's own Observer, Actor, Settler and Collector over the world
checks.py    what must hold once nothing changes any more
"""
