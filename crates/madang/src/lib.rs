//! madang
