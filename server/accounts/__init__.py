"""Accounts: the account file, password checks, and limits on guesses and on visitors."""
