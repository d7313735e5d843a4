"""The supervisor: processes, shared memory, the session's machine and the control socket."""
