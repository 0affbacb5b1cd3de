"""The login server over HTTP."""
