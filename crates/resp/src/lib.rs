//! Layer 1: the RESP2, RESP3 and inline protocols: parser and writer. No sockets.
