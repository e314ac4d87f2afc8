//! The tasks as people run them.

mod current;
mod without_uring;
