//! The io_uring driver (being built).
