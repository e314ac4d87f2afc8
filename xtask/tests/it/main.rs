//! The tasks as people run them.

mod current;
mod duplicates;
mod fuzz;
mod without_uring;
