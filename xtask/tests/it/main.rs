//! The tasks as people run them.

mod current;
mod duplicates;
mod without_uring;
