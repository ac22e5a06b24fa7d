"""The interop labs: network namespaces, one driver for each BGP daemon, and waiting on conditions.

Only Python's standard library is used. A scenario is a folder in ../scenarios; ../run runs it in a sandbox of its own (see sandbox.py).
"""
