//! The simulated driver (being built).
pub struct SimSocket;
