"""Child processes: start a command in the inherited state, forward signals to it, end and reap what it leaves. Linux only."""
