"""The commands that sign a person in and out, and the file where the command line stores its sessions."""
