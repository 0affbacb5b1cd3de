"""The programs and snippets in the pages of docs/, each run as printed."""
