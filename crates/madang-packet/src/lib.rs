//! madang-packet
