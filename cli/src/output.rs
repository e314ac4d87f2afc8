//! Standard output that may be a closed pipe.
//!
//! Owns the one way to print results: `sallyport … | head -1` must end quietly,
//! while `println!` panics.

use std::fmt;
use std::io::Write as _;

/// Prints to standard output; errors are nobody's who still reads.
pub fn print(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

/// [`print`] with a newline.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::output::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}

pub(crate) use say;
