//! Layer 0: newtypes, clock, number formats, glob, checksums, random numbers and the OS calls.
