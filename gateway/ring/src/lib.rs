//! gateway/ring
