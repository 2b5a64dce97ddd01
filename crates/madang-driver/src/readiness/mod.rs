//! The readiness driver (being built).
