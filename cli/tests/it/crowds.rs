//! Clients that cost: many at once, slow ones, silent ones, ones that do not
//! read. What they may take is bounded, and an honest neighbour keeps its pace.

mod child;
mod many;
mod secret;
mod slow;
mod stalled;
mod storm;
