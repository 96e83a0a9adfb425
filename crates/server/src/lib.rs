//! Layer 5: workers, listeners, start-up, signals, logging: the database on the network.
