//! madang-driver
