"""Is this computer fit for a session? Facts are read or measured, then judged by pure checks."""
