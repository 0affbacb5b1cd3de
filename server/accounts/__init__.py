"""Who may sign in: account file, passwords, and the throttle on guesses."""
