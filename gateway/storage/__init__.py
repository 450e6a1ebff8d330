"""The database: connections, transactions, tables, and messages between processes."""
