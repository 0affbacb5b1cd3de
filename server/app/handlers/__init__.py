"""The pages and the JSON interface of the standalone server, one module per subject."""
