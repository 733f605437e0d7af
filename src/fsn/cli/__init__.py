"""The command line: one `fsn` for users, operators of nodes and of coordinators."""
