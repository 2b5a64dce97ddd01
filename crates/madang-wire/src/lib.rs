//! madang-wire
