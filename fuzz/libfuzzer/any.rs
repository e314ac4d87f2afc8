//! Every target under libFuzzer, which measures coverage: SALLYPORT_FUZZ_TARGET names the one to
//! run. One program, since linking two dozen of them takes longer than a short run.

#![no_main]

use std::sync::LazyLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SALLYPORT_FUZZ_TARGET").expect("SALLYPORT_FUZZ_TARGET is set");
    *fuzz::target(&name).expect("SALLYPORT_FUZZ_TARGET names a target")
});

fuzz_target!(|data: &[u8]| {
    (TARGET.run)(data);
});
