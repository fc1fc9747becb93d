"""Another program's process: started as if we were not there, told what we are told, and ended with all that it leaves.

Knows fork, signals and /proc; must not know what a proxy is. Linux only.
"""
